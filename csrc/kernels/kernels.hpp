// The tasks of the engine's kernels, and the table through which the engine calls them.
//
// Maps are NHWC. The channels of a pixel are split into segments (the halves of a Ghost module), each padded to a
// multiple of kChannelBlock values; padding is zero because its weights and biases are zero. Offsets and strides count
// values of any type; sums are accumulated in float32 or int32. Nothing here depends on the instruction set:
// kernels.cpp is compiled once for each, and find_kernels chooses among the tables at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/isa.hpp"

namespace ghostnets {

constexpr int kChannelBlock = 8;

constexpr int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Storage type of the values of a map. A byte q represents scale * (q - zero), with a scale and zero point a channel.
enum class Type { f32, bf16, u8 };

constexpr int size_of(Type type) { return type == Type::f32 ? 4 : type == Type::bf16 ? 2 : 1; }

// Gemm weights are stored in groups of 32 bits: that many consecutive values of a pixel are multiplied and summed by
// one instruction, if the processor has one.
constexpr int group_of(Type type) { return 4 / size_of(type); }

enum class Activation {
    none,
    relu,
    sigmoid,
    hard_sigmoid,
    clamp,
    relu6,
    leaky_relu,
    hard_swish,
    silu
};  // clamp: to [0, 1]

// Whether the results lie between 0 and 1.
constexpr bool is_gate(Activation activation) {
    return activation == Activation::sigmoid || activation == Activation::hard_sigmoid ||
           activation == Activation::clamp;
}

enum class BinaryOp { none, add, multiply };

// out[p][v] = activation(bias[v] + sum over segments s and k of segments[s][p * pixel_stride + k] * weights[...][v]). A
// 1 x 1 convolution has one segment for each segment of its input map, a k x k one that many for each tap of the
// kernel, and the stem, whose input has few channels, one for each kernel row.
struct GemmTask {
    Type in, out_type;  // f32 to any; bf16 and u8 to themselves or f32
    const void* const* segments;  // of pixel 0
    int segment_count;
    int segment_groups;  // without padding
    std::ptrdiff_t pixel_stride;
    const void* weights;  // [vector][segment_count * segment_groups][width][group], first vector to compute
    std::ptrdiff_t vector_stride;  // in steps of width groups
    const float* bias;
    const float* scale;  // of the sums of bytes, before the bias
    int vectors;
    int columns;  // values of these vectors within the output; the last vector may be half
    bool pairs_terms;  // weights of that half vector are [segment_count * pairs of groups][8 outputs][2 terms]
    void* out;
    std::ptrdiff_t out_stride;
    int pixels;
    float clamp_min;  // ReLU's 0, of bytes that represented by one; otherwise -inf
    Activation activation;  // relu6, leaky_relu or hard_swish, or none; not of bytes
    float slope;  // of leaky_relu, from 0 to 1
};

// One or two output rows of a depthwise convolution, then out = activation(...) (+ or *) other.
struct DepthwiseTask {
    Type type;  // of input, output and other
    const void* const* rows;  // input rows, null above and below the map: kernel_h, one more for a second output row
    int out_rows;  // 2 only where `pairs_rows` is true
    std::ptrdiff_t in_stride;  // values from one pixel to the next
    int in_width;
    void* out[2];
    std::ptrdiff_t out_stride;
    int out_width;
    int kernel_h, kernel_w, stride, pad_w;
    int dilation_h, dilation_w;  // of the rows, which `rows` has already taken apart, and of the columns
    const void* weights;  // float [kernel_h * kernel_w][weight_stride], or by groups: see `stacks_of`
    std::ptrdiff_t weight_stride;
    const float* bias;
    int channels;  // a multiple of kChannelBlock
    // By groups: the value of padding, for each channel. For bytes: out = sum * scale + bias and, with another map,
    // + other * other_scale + shift or * other * other_scale + shift.
    const void* pad;
    const float *scale, *other_scale, *shift;
    float clamp_min;  // as in GemmTask
    Activation activation;  // as in GemmTask; none with another map
    float slope;
    BinaryOp binary;
    const void* other[2];
    std::ptrdiff_t other_stride;
};

// Whether a depthwise convolution computes two output rows at a time, as the cheap operation does: the rows share most
// of their inputs, which are loaded once for both.
constexpr bool pairs_rows(int kernel_h, int kernel_w, int stride, int dilation) {
    return kernel_h == 3 && kernel_w == 3 && stride == 1 && dilation == 1;
}

// By groups: rows of a depthwise convolution's input are stacked, two of bfloat16 or four of bytes, the first in the
// low bits. `step` output rows (1 or 2) share the stacks. The layout of the weights is
//   [block of channels][stack][kernel_w][step][block][group];
// a block is a vector of channels, or the half one at the end. Weights of a second row are shifted down by one row.
constexpr int stacks_of(Type type, int kernel_h, int step) {
    return (kernel_h + step - 1 + group_of(type) - 1) / group_of(type);
}

// out[p][c] = max(clamp_min, a[p][c] (+ or *) b[p][c]); a stride of 0 repeats one pixel.
struct BinaryTask {
    Type type, b_type;  // of a and out; b has the same, or bfloat16 if they are bytes
    const void* a;
    std::ptrdiff_t a_stride;
    const void* b;
    std::ptrdiff_t b_stride;
    void* out;
    std::ptrdiff_t out_stride;
    int pixels, channels;
    BinaryOp binary;
    float clamp_min;
    // For bytes: a * a_scale + b * b_scale + shift, or (a * a_scale + shift) * (b + b_shift) + b_scale.
    const float *a_scale, *b_scale, *shift, *b_shift;
};

// out[p][c] = in[p][c] * scale[c] + shift[c], from one storage type to another; without a scale in[p][c].
struct ConvertTask {
    Type in_type, out_type;
    const void* in;
    std::ptrdiff_t in_stride;
    void* out;
    std::ptrdiff_t out_stride;
    int pixels, channels;
    const float *scale, *shift;  // null if neither map is in bytes
};

// One row of average pooling over disjoint windows of row_count x window_w pixels.
struct AveragePoolTask {
    Type type;
    const void* const* rows;
    int row_count, window_w;
    std::ptrdiff_t stride;
    void* out;
    int out_width, channels;
};

// One row of average pooling over any windows.
struct WindowAverageTask {
    Type type;
    const void* const* rows;  // null outside of the map
    int row_count;
    const int* columns;  // of each window: the first and the end, within the map
    std::ptrdiff_t stride;
    void* out;
    int out_width, channels;
    int divisor;  // 0: the number of pixels within the map
    float zero, scale, shift;  // out = (sum - zero * pixels within the map) / divisor * scale + shift
};

// One row of bilinear resizing: out[p][c] is between rows[i][columns[2 * p]][c] and rows[i][columns[2 * p + 1]][c].
struct BilinearTask {
    Type type;
    const void* rows[2];
    float row_weight;  // of the second row
    const int* columns;
    const float* column_weights;  // of the second columns
    std::ptrdiff_t stride;
    void* out;
    int out_width, channels;
};

// One row of max pooling; pixels outside of the map are ignored.
struct MaxPoolTask {
    Type type;
    const void* const* rows;  // kernel_h, null outside of the map
    int kernel_h, kernel_w, stride, dilation, pad_w, in_width;
    std::ptrdiff_t pixel_stride;
    void* out;
    int out_width, channels;
};

// out[p][c] = in[columns[p]][c]: one row of a gate, upsampled by nearest neighbours.
struct UpsampleTask {
    Type type;
    const void* in;
    std::ptrdiff_t in_stride;
    const int* columns;
    void* out;
    std::ptrdiff_t out_stride;
    int pixels, channels;
};

// In-place activations other than ReLU.
struct ActivateTask {
    Type type;
    void* values;
    std::ptrdiff_t stride;
    int pixels, channels;
    Activation activation;
    float slope;  // of leaky_relu
    const std::uint8_t* table;  // for bytes: the result for each
};

// Some channels of a vector of the output, copied from channels of the input that lie within one vector.
struct ArrangeMove {
    int from, to;  // first channel of the vector of the input, and of the output
    int lanes;  // channels in these vectors
    std::int32_t sources[16];  // of each lane: the lane of the input
    std::int32_t mask[16];  // -1 for lanes that are copied, 0 for those that keep their value
};

// out[p][move.to + i] = in[p][move.from + move.sources[i]] for the lanes of each move.
struct ArrangeTask {
    Type type;
    const void* in;
    std::ptrdiff_t in_stride;
    void* out;
    std::ptrdiff_t out_stride;
    int pixels;
    const ArrangeMove* moves;
    int move_count;
};

// out[c * plane + p] = in[p * in_stride + c].
struct PlanesTask {
    const float* in;
    std::ptrdiff_t in_stride;
    int pixels, channels;
    float* out;
    std::ptrdiff_t plane;
};

// out[c] (+)= sum over pixels of in[p * stride + c].
struct SumTask {
    Type type;  // of the map
    const void* in;
    std::ptrdiff_t stride;
    int pixels, channels;
    float* out;
    bool accumulate;
};

// out[c] = scale * sum over `slots` of in[slot * stride + c], or channel_scale[c] times that + shift[c].
struct MeanTask {
    Type type;  // of the result
    const float* in;
    std::ptrdiff_t stride;
    int slots, channels;
    float scale;
    void* out;
    const float *channel_scale, *shift;  // null unless a map is in bytes
};

// The kernels of one instruction set.
struct Kernels {
    Isa isa;
    int width;  // floats in a vector
    bool groups_bf16;  // whether bfloat16 depthwise convolutions run on groups; those of bytes always do
    void (*gemm)(const GemmTask&);
    void (*depthwise)(const DepthwiseTask&);
    void (*binary)(const BinaryTask&);
    void (*convert)(const ConvertTask&);
    void (*average_pool)(const AveragePoolTask&);
    void (*window_average)(const WindowAverageTask&);
    void (*bilinear)(const BilinearTask&);
    void (*max_pool)(const MaxPoolTask&);
    void (*upsample_nearest)(const UpsampleTask&);
    void (*arrange)(const ArrangeTask&);
    void (*copy_planes)(const PlanesTask&);
    // out[p * planes + c] = in[c * plane + p].
    void (*interleave)(const float* in, std::ptrdiff_t plane, int planes, int pixels, float* out);
    void (*activate)(const ActivateTask&);
    void (*sum)(const SumTask&);
    void (*mean)(const MeanTask&);
    // out[i] = in[i] * scale[i] + shift[i].
    void (*normalize)(const std::uint8_t* in, const float* scale, const float* shift, int count, float* out);
};

// kernels.cpp, compiled once for each instruction set.
extern const Kernels kBaselineKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels, kAvx2VnniKernels, kAvx512Kernels, kAvx512VnniKernels, kAvx512Bf16Kernels;
void gemm_amx(const GemmTask& task);  // gemm_tiles.cpp
#elif defined(__aarch64__)
extern const Kernels kNeonDotKernels, kNeonBf16Kernels;
#endif

// The kernels of an instruction set, the best one if the name is empty; null if this processor has none of that
// name.
const Kernels* find_kernels(const std::string& name);

}  // namespace ghostnets
