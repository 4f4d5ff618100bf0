// An operation: one kernel applied to one map, or one segment of a map, with its weights packed.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/buffer.hpp"
#include "engine/plan.hpp"

namespace ghostnets {

enum class OpKind {
    input,  // reads a row of the image as floats, zero-padded at both ends for the stem
    pad,    // pads a map with zeros on all sides, for a convolution
    gemm,
    depthwise,
    binary,
    convert,       // changes the storage type of a map
    average_pool,  // halves the input of a DFC gate
    window_average,
    adaptive_average,
    max_pool,
    upsample_nearest,
    bilinear,
    arrange,
    scale,  // as binary, with a second operand of one pixel
    sum,
    mean,
    output,  // writes a row of a map to the caller's array
};

// The window of a convolution or pooling; of input, the horizontal padding alone; of pad, the padding alone.
struct Window {
    int kernel_h = 1, kernel_w = 1, stride = 1, dilation_h = 1, dilation_w = 1;
    int pad_h = 0, pad_w = 0;          // above and to the left
    int pad_end_h = 0, pad_end_w = 0;  // below and to the right

    // Padding that keeps the size at stride 1.
    static Window same(int kernel_h, int kernel_w, int stride, int dilation_h, int dilation_w) {
        Window window{kernel_h, kernel_w, stride, dilation_h, dilation_w};
        window.pad_h = window.pad_end_h = dilation_h * (kernel_h / 2);
        window.pad_w = window.pad_end_w = dilation_w * (kernel_w / 2);
        return window;
    }

    // Padding of a node: above, to the left, below, to the right.
    void pad(const std::vector<int>& pads) {
        pad_h = pads[0];
        pad_w = pads[1];
        pad_end_h = pads[2];
        pad_end_w = pads[3];
    }
    bool has_padding() const { return pad_h || pad_w || pad_end_h || pad_end_w; }

    int out_height(int height) const {
        return positions(height + pad_h + pad_end_h - dilation_h * (kernel_h - 1), stride);
    }
    int out_width(int width) const {
        return positions(width + pad_w + pad_end_w - dilation_w * (kernel_w - 1), stride);
    }
    static int positions(int places, int stride) { return places < 1 ? 0 : (places - 1) / stride + 1; }
    // Whether an output pixel depends on several input pixels, so that the operation must run row by row.
    bool is_spatial() const { return kernel_h > 1 || kernel_w > 1 || stride > 1; }
};

// A matrix product over `segments` segments of the input's pixels from `first_segment` on.
struct GemmOptions {
    int first_segment = 0, segments = 1;
    int depth = 0, vectors = 0;  // groups of terms per sum, vectors of outputs
    bool pairs_terms = false;    // see GemmTask
    bool is_stem = false;
};

// Output size of resizing or adaptive pooling: the size of `like`, `factor` times the input, or a given size.
struct SizeOptions {
    int like = -1, factor = 0, height = 0, width = 0;
    bool aligns_corners = false;
};

// See WindowAverageTask.
struct AverageOptions {
    float zero = 0, scale = 1, shift = 0;
};

// Consecutive channels of a pixel that `arrange` sets to zero.
struct Run {
    int first, count;
};
struct ArrangeOptions {
    std::vector<ArrangeMove> moves;
    std::vector<Run> zeros;
    int zero = 0;  // the byte that represents 0
};

// Weights and constants as the kernels' tasks take them.
struct PackedWeights {
    Buffer weights, bias, scale, other_scale, shift, other_shift;
};

// Reads and writes `channels` values of a pixel from the offsets on; gemm reads segments instead.
struct Op {
    OpKind kind;
    int node = 0;                        // index in the plan
    int in = -1, out = -1, other = -1;  // maps
    int in_offset = 0, out_offset = 0, other_offset = 0, channels = 0;
    Activation activation = Activation::none;
    int zero = 0;     // relu: the byte that represents 0 in `out`, if the kernel clamps bytes
    bool stores_activated = false;  // whether the kernel computes an activation other than ReLU as it stores
    float slope = 0;  // leaky_relu: slope of negative values
    BinaryOp binary = BinaryOp::none;
    Window window{};
    GemmOptions gemm{};         // gemm
    SizeOptions size{};         // resizing and adaptive pooling
    ArrangeOptions arrange{};   // arrange
    bool counts_padding = false;  // window_average: whether padding counts as zeros
    AverageOptions average{};   // window_average, adaptive_average
    Buffer pad{};               // depthwise: see DepthwiseTask; pad: the byte that represents 0
    Buffer table{};             // late activation of bytes: see ActivateTask
    int output = 0;           // output: its index
    PackedWeights packed{};
    bool starts_group = false;  // a fusion group ends where all pixels must be known, or at the end of a bottleneck
    double macs = 0;            // multiply-adds for a pixel of the output, without padding
    std::size_t weight_bytes = 0;

    // The kernels compute max(clamp_min, x) as they store, some of them others too; the rarer activations follow in
    // place.
    float clamp_min() const {
        return activation == Activation::relu ? float(zero) : -std::numeric_limits<float>::infinity();
    }
    Activation stored_activation() const { return stores_activated ? activation : Activation::none; }
    bool has_late_activation() const { return activation > Activation::relu && !stores_activated; }
    // Number of output rows computed at a time.
    int row_step() const {
        return kind == OpKind::depthwise && pairs_rows(window.kernel_h, window.kernel_w, window.stride,
                                                       std::max(window.dilation_h, window.dilation_w))
                   ? 2
                   : 1;
    }
    bool reads_other() const { return binary != BinaryOp::none; }  // otherwise `other` only determines a size
    bool reads(int map) const { return in == map || (reads_other() && other == map); }
    bool is_gemm() const { return kind == OpKind::gemm; }
    bool is_spatial_gemm() const { return is_gemm() && window.is_spatial(); }
};

}  // namespace ghostnets
