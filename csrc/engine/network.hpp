// A compiled network: the nodes of a plan, lowered to operations on rows of maps, with weights packed for the kernels.
//
// A plan is written in terms of Ghost modules; an operation is one kernel over one map or segment of a map. Which rows
// an operation needs of its inputs follows from its window; the planner derives what may run fused, and in what order.
#pragma once

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "engine/operation.hpp"
#include "engine/plan.hpp"

namespace ghostnets {

// Reads value `index` of a float32 or bfloat16 map.
inline float get(const std::byte* from, Type type, std::size_t index) {
    std::uint32_t bits = 0;
    if (type == Type::f32) {
        std::memcpy(&bits, from + 4 * index, 4);
    } else {
        std::uint16_t upper;
        std::memcpy(&upper, from + 2 * index, 2);
        bits = std::uint32_t(upper) << 16;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Scale and zero point of each of segments * channels; empty for a map that is not stored in bytes.
struct Quantization {
    std::vector<float> scales, zeros;
};

struct Map {
    Layout layout;
    Quantization quantization;
    float scale(int channel) const { return layout.type == Type::u8 ? quantization.scales[channel] : 1; }
    float zero(int channel) const { return layout.type == Type::u8 ? quantization.zeros[channel] : 0; }
};

// A map that the caller receives, as (N, channels, H, W).
struct Output {
    int map;
    std::vector<int> positions;  // position of each channel of the network within a pixel
};

struct Network {
    // Throws std::invalid_argument for a damaged plan.
    Network(const Plan& plan, const Kernels& kernels);

    const Kernels& kernels;
    std::vector<Layout> layouts;              // the plan's, then those of maps between the operations of one node
    std::vector<Quantization> quantizations;  // of these
    std::vector<Op> ops;                      // up to the mean over all pixels
    std::vector<Op> head;                     // linear layers on it
    std::vector<Output> outputs;              // maps, or one vector: of the last linear layer, or the mean
    std::vector<std::pair<std::string, NodeKind>> nodes;  // of the plan: name and kind
    int in_channels;
    int features = 0;  // values of a pixel after the mean; 0 if maps are the result
    std::vector<float> scale, shift;

    // The results of an operation's late activation of bytes; null for other types.
    const std::uint8_t* table(const Op& op) const { return reinterpret_cast<const std::uint8_t*>(op.table.data()); }

    // The task of a gemm over `count` vectors from `first` on, without its pixels.
    GemmTask gemm_task(const Op& op, int first, int count) const;

    std::size_t features_bytes() const {
        return features ? std::size_t(features) * size_of(layouts[ops.back().out].type) : 0;
    }
    bool gives_maps() const { return features == 0; }

private:
    void set_types(const Plan& plan);
    void lower(const Plan& plan);
    void set_outputs(const Plan& plan);
};

}  // namespace ghostnets
