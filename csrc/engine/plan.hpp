// A plan as ghostnets/engine/plan.py writes it: nodes over maps, with float32 weights.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace ghostnets {

inline void require(bool condition, const std::string& problem) {
    if (!condition) throw std::invalid_argument("the plan is damaged: " + problem);
}

struct Tensor {
    std::vector<int> shape;
    const float* data = nullptr;  // C order; must live until the network is built
    int size(int axis) const { return shape[axis]; }
};

// Channels of a map: `segments` runs of `channels`, each padded to kChannelBlock, and how values are stored.
struct Layout {
    int segments = 1, channels = 0;
    Type type = Type::f32;
    int padded() const { return round_up(channels, kChannelBlock); }
    int stride() const { return segments * padded(); }  // values of a pixel
    // Whether a pixel has as many values, padded and not: maps whose ranges, one a channel, are read together.
    bool matches(const Layout& other) const {
        return stride() == other.stride() && segments * channels == other.segments * other.channels;
    }
    int groups() const { return round_up(channels, group_of(type)) / group_of(type); }  // groups per segment, for gemm
};

// Position of logical channel `index` among the padded values of a pixel.
inline int position(const Layout& layout, int index) {
    return index / layout.channels * layout.padded() + index % layout.channels;
}

enum class NodeKind {
    stem,
    ghost,
    conv,
    depthwise,
    add,
    squeeze_excite,
    mix,
    average,
    max_pool,
    pool,
    linear,
    output,
    multiply,  // two maps of the same size
    scale,  // a map times one pixel
    arrange,  // channels of some maps in another order: concatenation, splitting, shuffling, padding
    average_pool,  // in square windows
    adaptive_pool,  // means, of out_h x out_w pixels
    resize,  // nearest or bilinear
    convert,  // a map, stored in another type
};

const char* node_kind_name(NodeKind kind);
NodeKind node_kind_named(const std::string& name);  // throws std::invalid_argument for an unknown name

// One step of a plan; maps are indices into the plan's layouts.
struct Node {
    NodeKind kind{};
    std::string name;  // name of the module in the network
    int input = -1, output = -1;
    // ghost, add: map to add; multiply, scale: the other factor; ghost: map to upsample and multiply by
    int residual = -1, gate = -1;
    int like = -1;  // resize: map whose size the output has
    std::vector<int> pooled;  // mix: the maps whose means it mixes; arrange: the maps that it reads
    std::vector<int> sources;  // arrange: input channel of each output channel, counted over all maps; -1 for zero
    std::vector<int> pads;  // convolution: top, left, bottom, right; empty for "same" padding
    int groups = 1;  // conv
    int stride = 1, dilation_h = 1, dilation_w = 1;
    int primary_dilation = 1;  // ghost
    int kernel = 1, pad = 0, pad_end = 0;  // pooling, in both directions; pad_end: bottom and right
    int out_h = 0, out_w = 0;  // adaptive_pool, resize: size of the output; 0: that of `like`, or a factor
    int factor = 0;  // resize: factor of both sides
    bool counts_padding = false;  // average_pool: padding counts as zeros
    bool is_bilinear = false, aligns_corners = false;  // resize
    bool ends_group = false;  // whether a fusion group ends with the node
    Activation activation = Activation::none;
    float slope = 0;  // leaky_relu: slope of negative values
    Activation inner_activation = Activation::relu;  // squeeze_excite, mix: activation of the first layer
    Tensor weight, bias;  // ghost: the primary convolution; squeeze_excite, mix: the first layer
    Tensor second_weight, second_bias;  // stem, ghost: the cheap operations; squeeze_excite, mix: the second layer
};

struct Plan {
    std::vector<Layout> layouts;
    std::vector<Node> nodes;
    Type precision = Type::f32;  // storage type of maps and weights
    std::vector<int> floats;  // maps stored in float32 regardless, as are the weights of their readers
    std::vector<Tensor> ranges;  // u8: for each map of the network (2, segments * channels), minimum and maximum
    int in_channels = 3;
    std::vector<float> scale, shift;  // uint8 input is normalised to value * scale + shift, one pair a channel
    std::vector<std::vector<int>> orders;  // for each output: positions of the network's channels, without padding
};

// Throws std::invalid_argument, naming the node and its fault, for a plan that the planner would not write.
void check_plan(const Plan& plan);

}  // namespace ghostnets
