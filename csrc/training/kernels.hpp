// The kernels for training on the CPU: their arguments, and the tables through which Python calls them.
//
// Maps are NHWC and contiguous. A convolution stores its raw output z once and accumulates its statistics on the way;
// batch normalisation, ReLU and a gate are applied by the reader of z, so normalised maps and concatenations are never
// stored. The backward pass works alike: the gradient of z is affine in the gradient d of the activated map and in z,
//   dz = a * [z * scale + shift > 0] * (gate * d + offset) + b * z + c,
// and is computed as it is read. All kernels exist in float and in double (for gradient checks).
#pragma once

#include <cstddef>
#include <string>

#include "common/isa.hpp"

namespace ghostnets::training {

constexpr int kMaxInputs = 2;  // the two halves of a Ghost module

// A raw map, and how it is read.
template <class T>
struct MapView {
    const T* values;
    int channels;
    const T* statistics;  // four rows: mean, 1 / deviation, scale, shift; null to read the values as they are
    std::ptrdiff_t row;   // stride between rows of the statistics
    bool relu;
    const T* gate;  // [image][gate_stride]; null for none
    std::ptrdiff_t gate_stride;
};

// The batch normalisation after a convolution, in training.
template <class T>
struct Norm {
    const T *gamma, *beta;
    T *running_mean, *running_var;
    double momentum, eps;
    T* statistics;  // output; as in MapView
};

// Backward pass of a normalisation: sums over all pixels -> gradients of gamma and beta, and three rows of a, b, c.
template <class T>
struct NormGradient {
    const T* gamma;
    T *gamma_gradient, *beta_gradient;
    T* coefficients;
    std::ptrdiff_t row;
};

// The gradient of a raw map.
template <class T>
struct Gradient {
    const T* d;  // gradient of the activated map
    std::ptrdiff_t d_stride;
    MapView<T> map;         // the raw map; its gate multiplies d
    const T* offset;        // [image][gate_stride]; null for none
    const T* coefficients;  // a, b, c
    std::ptrdiff_t row;
};

// Destination of the gradient of an input: out = gradient (+ add * add_gate + add_offset).
// Only depthwise convolutions support add_gate and add_offset.
template <class T>
struct Target {
    T* out;
    const T* add;
    std::ptrdiff_t add_stride;
    const T *add_gate, *add_offset;  // [image][gate_stride]; null for none
    std::ptrdiff_t gate_stride;
    NormGradient<T> norm;  // gamma is null if the sums are not needed
    T* image_sums;         // [2][image][channels]: sums of mask * d and mask * d * (z - mean); null for none
};

template <class T>
struct Pointwise {
    int threads, pixels, image_pixels;
    MapView<T> inputs[kMaxInputs]{};
    int input_count{};
    const T* weight{};  // [out_channels][in_channels]
    int out_channels{};
    T* out{};  // forward
    Norm<T> norm{};
    Gradient<T> gradient{};  // backward
    Target<T> targets[kMaxInputs]{};
    T* weight_gradient{};
};

template <class T>
struct Depthwise {
    int threads, images, height, width, kernel, stride;
    MapView<T> inputs[kMaxInputs]{};
    int input_count{};
    const T* weight{};  // [channels][kernel][kernel]
    T* out{};           // forward
    Norm<T> norm{};
    Gradient<T> gradient{};  // backward
    Target<T> targets[kMaxInputs]{};
    T* weight_gradient{};
};

// Several depthwise filters over one map, each with its own normalisation: z_f = filter_f * x; the pixel under the
// centre of the filter counts as one more. See branches.hpp.
template <class T>
struct Branches {
    int threads, images, height, width, channels, kernel, stride, filters;
    const T* x{};        // [images][height][width][channels]
    const T* weights{};  // [filters][channels][kernel][kernel]
    double* moments{};   // forward: [2][filters + 1][channels], sums of z and of its squares
    const T* d{};        // backward: gradient of the sum of the branches, at the size of the output
    const T* merged{};   // [channels][kernel][kernel], the filter from x to this sum
    const T *slopes{}, *offsets{};  // [filters + 1][channels]: the statistics add slope z + offset to the gradient of z
    T* out{};  // gradient of x
    T* weight_gradients{};  // shaped as weights: sums of (slope z + offset) x alone
};

// out = concatenation of the activated inputs, + residual.
template <class T>
struct Join {
    int threads, pixels, image_pixels;
    MapView<T> inputs[kMaxInputs]{};
    int input_count{};
    MapView<T> residual{};  // values null for none
    T* out{};
};

// Sums of a gradient that another layer computed, and the normalisation's gradients that follow from them.
template <class T>
struct Sums {
    int threads, pixels, image_pixels;
    Gradient<T> gradient;  // without coefficients
    NormGradient<T> norm;
};

// For each image and channel: the number of pixels that pass the ReLU, and the sum of z - mean over these;
// [2][image][channels].
template <class T>
struct ImageSums {
    int threads, pixels, image_pixels;
    MapView<T> map;
    T* out;
};

template <class T>
struct Kernels {
    void (*pointwise_forward)(const Pointwise<T>&);
    void (*pointwise_backward)(const Pointwise<T>&);
    void (*depthwise_forward)(const Depthwise<T>&);
    void (*depthwise_backward)(const Depthwise<T>&);
    void (*branch_moments)(const Branches<T>&);
    void (*branch_gradient)(const Branches<T>&);
    void (*join)(const Join<T>&);
    void (*sums)(const Sums<T>&);
    void (*image_sums)(const ImageSums<T>&);
};

// The kernels of one instruction set.
struct KernelTable {
    Isa isa;
    Kernels<float> single;
    Kernels<double> full;
};

// kernels.cpp, compiled once for each instruction set.
extern const KernelTable kBaselineKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels, kAvx512Kernels;
#endif

// The kernels of an instruction set, the best one if the name is empty; null if this processor has none of that name.
const KernelTable* find_kernels(const std::string& name);

// Writes the gradients and coefficients of a normalisation. sums is [2][channels]: sums of d' and of d' * (z - mean),
// d' being the masked gradient.
template <class T>
void finish_gradient(const NormGradient<T>& norm, const T* statistics, std::ptrdiff_t row, const double* sums,
                     int channels, double count);
// Writes the statistics of a normalisation and updates its running ones. sums is [2][channels]: sums of z and of its
// squares.
template <class T>
void finish_statistics(const Norm<T>& norm, std::ptrdiff_t row, const double* sums, int channels, double count);

// Runs work(context, share) for each share from 0, on torch's own OpenMP threads if they are loaded: a second pool
// would compete with the first for the cores, because idle threads spin for milliseconds.
void run_shares(int shares, void (*work)(void*, int), void* context);

// 64-byte aligned scratch memory for one call, reused by the next: of the calling thread (slot 0) or a share (slot 1).
void* workspace(int slot, std::size_t bytes);

}  // namespace ghostnets::training
