#include "engine/buffer.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ghostnets {

namespace {

// Buffers from this size on request huge pages: weights that are read once a run would otherwise wait for the TLB.
constexpr std::size_t kLargeBuffer = std::size_t(512) << 10;
constexpr std::size_t kLargePage = std::size_t(2) << 20;

}  // namespace

Buffer::Buffer(std::size_t size) {
    const std::size_t unit = size >= kLargeBuffer ? kLargePage : 64;
    const std::size_t bytes = (std::max<std::size_t>(size, 1) + unit - 1) / unit * unit;
    void* memory = ::operator new(bytes, std::align_val_t(unit));
#if defined(__linux__)
    if (unit == kLargePage) madvise(memory, bytes, MADV_HUGEPAGE);  // best effort; failure is ignored
#endif
    std::memset(memory, 0, bytes);
    data_ = {static_cast<std::byte*>(memory), Free{unit}};
}

void Buffer::Free::operator()(std::byte* data) const { ::operator delete(data, std::align_val_t(alignment)); }

}  // namespace ghostnets
