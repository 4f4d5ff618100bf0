// A compiled network: the nodes of a plan, lowered to operations on rows of maps, with weights packed for the kernels.
//
// A plan speaks of Ghost modules; an operation is one kernel over one map or segment of a map. What an operation needs
// of its inputs, row by row, is written down here once; program.cpp derives what may run fused, and in what order.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace ghostnets {

// Zero-filled bytes at a 64-byte boundary.
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(std::size_t bytes);
    std::byte* data() const { return data_.get(); }
    float* floats() const { return reinterpret_cast<float*>(data_.get()); }

private:
    struct Free {
        void operator()(std::byte* data) const;
    };
    std::unique_ptr<std::byte[], Free> data_;
};

struct Tensor {
    std::vector<int> shape;
    const float* data = nullptr;  // C order; needed until the network is built
    int size(int axis) const { return shape[axis]; }
};

// Channels of a map: `segments` runs of `channels`, each padded to kChannelBlock, and how values are stored.
struct Layout {
    int segments = 1, channels = 0;
    Type type = Type::f32;
    int padded() const { return round_up(channels, kChannelBlock); }
    int stride() const { return segments * padded(); }  // values of a pixel
    int groups() const { return round_up(channels, group_of(type)) / group_of(type); }  // of a segment, for dense
};

// A value as it is stored.
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

// Position of logical channel `index` among the padded values of a pixel.
inline int position(const Layout& layout, int index) {
    return index / layout.channels * layout.padded() + index % layout.channels;
}

// How the bytes of a map are meant, for each of segments * channels; empty where it is not in bytes.
struct Quantization {
    std::vector<float> scales, zeros;
};

struct Map {
    Layout layout;
    Quantization quantization;
    float scale(int channel) const { return layout.type == Type::u8 ? quantization.scales[channel] : 1; }
    float zero(int channel) const { return layout.type == Type::u8 ? quantization.zeros[channel] : 0; }
};

// One step of a plan, as ghostnets/engine/plan.py writes it; maps are indices into the plan's layouts.
struct Node {
    std::string
        kind;  // stem, ghost, conv, depthwise, add, squeeze_excite, mix, average, max_pool, pool, linear, output
    std::string name;  // of the module in the network
    int input = -1, output = -1;
    int residual = -1, gate = -1;  // of ghost and add: map to add; of ghost: to upsample_nearest and multiply by
    std::vector<int> pooled;       // of mix: the maps whose means it mixes
    int groups = 1;                // of conv
    int stride = 1, dilation_h = 1, dilation_w = 1;
    int primary_dilation = 1;             // of ghost
    int kernel = 1, pad = 0, pad_end = 0;  // of max_pool, in both directions; pad_end: below and to the right
    Activation activation = Activation::none;
    Tensor weight, bias;                // ghost: the primary convolution; squeeze_excite, mix: the first layer
    Tensor second_weight, second_bias;  // stem, ghost: the cheap operations; squeeze_excite, mix: the second layer
};

struct PlanSource {
    std::vector<Layout> layouts;
    std::vector<Node> nodes;
    Type precision = Type::f32;  // of maps and weights
    std::vector<Tensor> ranges;  // u8: (2, segments * channels), clamp_min and greatest, of each of a network's maps
    int in_channels = 3;
    std::vector<float> scale, shift;  // of uint8 input: value * scale + shift, one of each a channel
    std::vector<std::vector<int>> orders;  // of each output: where the network's channels stand, without padding
};

// input: the image's row, as floats, with the stem's zero padding at both ends. pad: a row with zeros at both ends, for
// a convolution. scale: as binary, with one pixel for the whole map. output: a row of the caller's own map.
enum class OpKind {
    input,
    pad,
    gemm,
    depthwise,
    binary,
    average_pool,
    max_pool,
    upsample_nearest,
    scale,
    sum,
    mean,
    output
};

// dense reads `segments` segments of a pixel from `first_segment` on; all write, and the others read, `channels` values
// from their offsets on.
struct Op {
    OpKind kind;
    int node = 0;  // of the plan
    int in = -1, out = -1, other = -1;  // maps
    int in_offset = 0, out_offset = 0, other_offset = 0, channels = 0;
    int kernel_h = 1, kernel_w = 1, stride = 1, dilation_h = 1, dilation_w = 1;
    int first_segment = 0, segments = 1;  // dense
    int border = 0, border_end = 0;       // maximum: pixels around the map that are not there
    int output = 0;                       // output: which one
    Activation activation = Activation::none;
    BinaryOp binary = BinaryOp::none;
    int depth = 0, vectors = 0;  // dense: groups of terms of a sum, vectors of outputs
    bool pairs_terms = false;    // dense: see GemmTask
    Buffer weights, bias, scale, other_scale, shift, pad, table;  // as the kernels' tasks have them
    Buffer planar_weights;   // dense of the stem: for float images, whose planes are apart
    bool starts_part = false;  // a part ends where all pixels must be known, or at the end of a bottleneck
    bool is_stem = false;
    bool is_padded = false;    // dense: its input has the zeros at both ends of a row already
    double macs = 0;           // multiply-adds for a pixel of the output, padding not counted
    std::size_t weight_bytes = 0;

    // The kernels compute max(clamp_min, x) on the way; the rarer activations follow in place.
    float clamp_min() const { return activation == Activation::relu ? 0.0f : -std::numeric_limits<float>::infinity(); }
    bool has_late_activation() const { return activation > Activation::relu; }
    // Output rows that are computed at a time.
    int row_step() const {
        return kind == OpKind::depthwise && pairs_rows(kernel_h, kernel_w, stride, std::max(dilation_h, dilation_w))
                   ? 2
                   : 1;
    }
    bool reads_other() const { return binary != BinaryOp::none; }  // else it is there for its size
    int pad_h() const { return kind == OpKind::max_pool ? border : dilation_h * (kernel_h / 2); }
    int pad_w() const { return kind == OpKind::max_pool ? border : is_padded ? 0 : dilation_w * (kernel_w / 2); }
    // dense: whether an output pixel is another place than the input pixel, so that rows must be told apart.
    bool is_spatial() const { return kernel_h > 1 || kernel_w > 1 || stride > 1; }
};

// A map that the caller gets, as (N, channels, H, W).
struct Output {
    int map;
    std::vector<int> positions;  // of the network's channels within a pixel
};

struct Network {
    // Throws std::invalid_argument for a plan that is not sound.
    Network(const PlanSource& source, const Kernels& kernels);

    const Kernels& kernels;
    std::vector<Layout> layouts;  // the plan's, then those of maps between the operations of one node
    std::vector<Quantization> quantizations;  // of these
    std::vector<Op> ops;          // up to the mean over all pixels
    std::vector<Op> head;         // linear layers on it
    std::vector<Output> outputs;  // maps, or one vector: of the last linear layer, or the mean
    std::vector<std::pair<std::string, std::string>> nodes;  // of the plan: name and kind
    int in_channels;
    int features = 0;  // values of a pixel after the mean; 0 where maps are the result
    std::vector<float> scale, shift;

    // The task of a dense operation over `count` vectors from `first` on, but for its pixels.
    GemmTask gemm_task(const Op& op, int first, int count) const;

    std::size_t features_bytes() const {
        return features ? std::size_t(features) * size_of(layouts[ops.back().out].type) : 0;
    }
    bool gives_maps() const { return features == 0; }

    // What map `in` of this height and width becomes.
    static int out_size(const Op& op, int size, bool vertical);
};

}  // namespace ghostnets
