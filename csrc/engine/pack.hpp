// Weights and constants as the kernels read them, for every type of map.
//
// A byte q of channel c represents scale[c] * (q - zero[c]). Quantisation is folded here: the scales of the input into
// the weights, which are then rounded to 8 bits with a scale for each output; zero points, biases and the scale of the
// output into one multiplication and one addition after each sum. For float32 and bfloat16 all scales are 1.
#pragma once

#include <functional>

#include "engine/network.hpp"

namespace ghostnets {

// Weight of an output (row) and a term of its sum.
using WeightAt = std::function<float(int row, int term)>;

// The quantisation of a map from its ranges (2, channels). The zero point is a byte, so that zeros (of ReLU and of
// padding) are exact.
Quantization quantization_of(const Tensor& range);

// For bytes, the quantisation of the values before an activation that is applied late and gives `out`; otherwise that
// of `out`. Also writes the lookup table of the activation.
Map before_activation(Op& op, const Map& out);

// Packs weights [vector][segment][group][width][value] and constants of a gemm whose sums have `segments` segments of
// `length` terms.
void pack_gemm(Op& op, const Map& in, const Map& out, int segments, int length, const float* bias, int width,
               const WeightAt& at);

// Maps, weights and biases of a depthwise convolution over one segment of its map.
struct DepthwiseSource {
    Map in, out;
    const Map* other;  // null for none
    int in_segment, out_segment;
    const float* weight;  // [channels][taps]
    const float* bias;
};

void pack_depthwise(Op& op, const DepthwiseSource& source, const Kernels& kernels);

// Packs the constants of a sum, product or mean of `channels` values from the operation's offsets on.
void pack_constants(Op& op, const Map& in, const Map& out, const Map* other);

}  // namespace ghostnets
