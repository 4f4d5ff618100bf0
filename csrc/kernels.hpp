// What the kernels compute, and the table through which the rest of the engine calls them.
//
// Maps are NHWC. The channels of a pixel stand in segments (the halves of a Ghost module), each padded to a multiple of
// kChannelBlock floats; padding holds zeros because its weights and biases are zero. Nothing here depends on the
// instruction set: kernels.cpp is compiled once for each, and dispatch.cpp chooses among the tables when asked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ghostnets {

constexpr int kChannelBlock = 8;

constexpr int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

enum class Activation { none, relu, sigmoid, hard_sigmoid, clamp };  // clamp: to [0, 1]
enum class Combine { none, add, multiply };

// out[p][v] = max(least, bias[v] + sum over segments s and k of segments[s][p * pixel_stride + k] * weights[...][v]); `least` is 0 for ReLU, -inf for nothing.
// A 1 x 1 convolution has one segment for each segment of its input map; a k x k one has one for each kernel row.
struct DenseTask {
    const float* const* segments;  // of pixel 0
    int segment_count;
    int segment_length;  // real channels: the padding is not walked
    std::ptrdiff_t pixel_stride;
    const float* weights;  // [vector][segment_count * segment_length][width], first vector to compute
    std::ptrdiff_t vector_stride;
    const float* bias;
    int vectors;
    int columns;  // floats of all these vectors that exist in the output; the last vector may be half
    float* out;
    std::ptrdiff_t out_stride;
    int pixels;
    float least;
};

// One or two output rows of a depthwise convolution, over a slice of channels, then out = max(least, ...) (+ or *) other.
struct DepthwiseTask {
    const float* const* rows;  // input rows, null above and below the map: kernel_h, one more for a second output row
    int out_rows;              // 2 only where `pairs_rows` is true
    std::ptrdiff_t in_stride;  // floats from one pixel to the next
    int in_width;
    float* out[2];
    std::ptrdiff_t out_stride;
    int out_width;
    int kernel_h, kernel_w, stride, dilation, pad_w;
    const float* weights;  // [kernel_h * kernel_w][weight_stride]
    std::ptrdiff_t weight_stride;
    const float* bias;
    int channels;  // a multiple of kChannelBlock
    float least;
    Combine combine;
    const float* other[2];
    std::ptrdiff_t other_stride;
};

// Whether a depthwise convolution takes two output rows at a time. The cheap operation does: the rows share most of
// their inputs, which are then loaded once for both.
constexpr bool pairs_rows(int kernel_h, int kernel_w, int stride, int dilation) {
    return kernel_h == 3 && kernel_w == 3 && stride == 1 && dilation == 1;
}

// out[p][c] = a[p][c] (+ or *) b[p][c]; a stride of 0 repeats one pixel.
struct CombineTask {
    const float* a;
    std::ptrdiff_t a_stride;
    const float* b;
    std::ptrdiff_t b_stride;
    float* out;
    std::ptrdiff_t out_stride;
    int pixels, channels;
    Combine combine;
};

// One row of average pooling: windows of row_count x window_w pixels, which do not overlap.
struct AverageTask {
    const float* const* rows;
    int row_count, window_w;
    std::ptrdiff_t stride;
    float* out;
    int out_width, channels;
};

// out[p][c] = in[columns[p]][c]: one row of a gate, enlarged by its nearest neighbours.
struct EnlargeTask {
    const float* in;
    std::ptrdiff_t in_stride;
    const int* columns;
    float* out;
    std::ptrdiff_t out_stride;
    int pixels, channels;
};

// In place, the rarer activations.
struct ActivateTask {
    float* values;
    std::ptrdiff_t stride;
    int pixels, channels;
    Activation activation;
};

struct Kernels {
    const char* name;
    int width;  // floats in a vector
    void (*dense)(const DenseTask&);
    void (*depthwise)(const DepthwiseTask&);
    void (*combine)(const CombineTask&);
    void (*average)(const AverageTask&);
    void (*enlarge)(const EnlargeTask&);
    void (*activate)(const ActivateTask&);
    // out[c] (+)= sum over pixels of in[p * stride + c].
    void (*sum)(const float* in, std::ptrdiff_t stride, int pixels, int channels, float* out, bool accumulate);
    // out[i] = in[i] * scale[i] + shift[i].
    void (*normalize)(const std::uint8_t* in, const float* scale, const float* shift, int count, float* out);
};

// Names of the instruction sets that this processor has, best first.
std::vector<std::string> instruction_sets();

// The kernels of an instruction set, the best one where the name is empty; null where there are none of that name.
const Kernels* find_kernels(const std::string& name);

}  // namespace ghostnets
