// Aligned memory for maps and weights.
#pragma once

#include <cstddef>
#include <memory>

namespace ghostnets {

// Zero-initialised bytes at a 64-byte boundary.
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(std::size_t bytes);
    std::byte* data() const { return data_.get(); }
    float* floats() const { return reinterpret_cast<float*>(data_.get()); }

private:
    struct Free {
        std::size_t alignment;
        void operator()(std::byte* data) const;
    };
    std::unique_ptr<std::byte[], Free> data_;
};

}  // namespace ghostnets
