// Weights and constants as the kernels read them, for every type of map.
//
// A byte q of channel c stands for scale[c] * (q - zero[c]). What this asks of the kernels is folded here: the scales
// of the input into weights, which are then rounded to 8 bits with a scale for each output; zeros, biases and the scale
// of the output into one multiplication and one addition after each sum. For float32 and bfloat16 all scales are 1.
#pragma once

#include <functional>

#include "engine/network.hpp"

namespace ghostnets {

// The quantisation of a map whose channels took these values: zero is a byte, so that zeros (ReLU's, the border's) are
// exact.
Quantization quantization_of(const Tensor& range);

// Of `op`, weights [vector][segment][group][width][value] and constants of a dense operation; at(row, term) is the
// weight of an output and a term, of which each segment has `length`.
void pack_gemm(Op& op, const Map& in, const Map& out, int segments, int length, const float* bias, int width,
               const std::function<float(int, int)>& at);

// The weights alone, where nothing is in bytes: of images whose planes are apart.
Buffer pack_floats(const Map& out, int length, int width, const std::function<float(int, int)>& at);

// Weights and constants of a depthwise convolution of one segment; weight is [channels][taps].
void pack_depthwise(Op& op, const Map& in, const Map& out, const Map* other, int in_segment, int out_segment,
                    const float* weight, const float* bias, const Kernels& kernels);

// Constants of an operation on single values, `channels` of them from its offsets on: a sum, a product or a mean.
void pack_constants(Op& op, const Map& in, const Map& out, const Map* other);

}  // namespace ghostnets
