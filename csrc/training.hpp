// Training on the CPU: what its kernels compute, and the table through which Python calls them.
//
// Maps are NHWC and dense. A convolution writes its raw output z once, and sums its statistics on the way; batch
// normalisation, ReLU and a gate are applied by whoever reads z, so normalised maps and concatenations are never
// stored. Backwards it is the same: the gradient of z is affine in the gradient d of the activated map and in z,
//   dz = a * [z * scale + shift > 0] * (gate * d + offset) + b * z + c,
// and is computed as it is read. Everything exists in float and in double (for checks of the gradients).
#pragma once

#include <cstddef>

namespace ghostnets::training {

constexpr int kParts = 2;  // an input is at most the two halves of a Ghost module

// A raw map, and how it is read.
template <class T>
struct Part {
    const T* values;
    int channels;
    const T* statistics;  // mean, 1 / deviation, scale, shift: four rows; null where values are taken as they are
    std::ptrdiff_t row;   // from one row of the statistics to the next
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
    T* statistics;  // written; as in Part
};

// Backwards through it: from sums over all pixels to the gradients of gamma and beta, and to a, b, c (three rows).
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
    const T* d;  // of the activated map
    std::ptrdiff_t d_stride;
    Part<T> part;           // the raw map; its gate multiplies d
    const T* offset;        // [image][gate_stride]; null for none
    const T* coefficients;  // a, b, c
    std::ptrdiff_t row;
};

// Where the gradient of an input part goes: out = gradient (+ add * add_gate + add_offset).
// Gate and offset are for depthwise convolutions alone.
template <class T>
struct Target {
    T* out;
    const T* add;
    std::ptrdiff_t add_stride;
    const T *add_gate, *add_offset;  // [image][gate_stride]; null for none
    std::ptrdiff_t gate_stride;
    NormGradient<T> norm;            // gamma is null where no sums are wanted
    T* image_sums;                   // [2][image][channels]: of mask * d and mask * d * (z - mean); null for none
};

template <class T>
struct Pointwise {
    int threads, pixels, image_pixels;
    Part<T> parts[kParts];
    int part_count;
    const T* weight;  // [out_channels][in_channels]
    int out_channels;
    T* out;  // forward
    Norm<T> norm;
    Gradient<T> gradient;  // backward
    Target<T> targets[kParts];
    T* weight_gradient;
};

template <class T>
struct Depthwise {
    int threads, images, height, width, kernel, stride;
    Part<T> parts[kParts];
    int part_count;
    const T* weight;  // [channels][kernel][kernel]
    T* out;           // forward
    Norm<T> norm;
    Gradient<T> gradient;  // backward
    Target<T> targets[kParts];
    T* weight_gradient;
};

// Several depthwise filters over one map, each with its own normalisation: z_f = filter_f * x, and the map under the
// middle of the filter as one more. See training_branches.hpp.
template <class T>
struct Branches {
    int threads, images, height, width, channels, kernel, stride, filters;
    const T* x;        // [images][height][width][channels]
    const T* weights;  // [filters][channels][kernel][kernel]
    double* moments;   // forward: [2][filters + 1][channels], sums of z and of its squares
    const T* d;        // backward: of the sum of the branches, at the size of the output
    const T* merged;   // [channels][kernel][kernel], the filter that leads from x to this sum
    const T *slopes,
        *offsets;  // [filters + 1][channels]: what the statistics add to the gradient of z is slope z + offset
    T* out;                     // the gradient of x
    T* weight_gradients;        // as weights: the sums of slope z + offset with x alone
};

// out = parts side by side, activated, + residual.
template <class T>
struct Join {
    int threads, pixels, image_pixels;
    Part<T> parts[kParts];
    int part_count;
    Part<T> residual;  // values null for none
    T* out;
};

// Sums of a gradient that is not computed here, and what follows from them.
template <class T>
struct Sums {
    int threads, pixels, image_pixels;
    Gradient<T> gradient;  // without coefficients
    NormGradient<T> norm;
};

// For each image and channel: how many pixels pass the ReLU, and the sum of z - mean over these; [2][image][channels].
template <class T>
struct ImageSums {
    int threads, pixels, image_pixels;
    Part<T> part;
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

struct InstructionSet {
    const char* name;
    Kernels<float> single;
    Kernels<double> full;
};

// training_kernels.cpp, compiled once for each.
extern const InstructionSet kBaseline;
#if defined(__x86_64__)
extern const InstructionSet kAvx2, kAvx512;
#endif

// sums is [2][channels]: of d' and of d' * (z - mean), d' being the masked gradient.
template <class T>
void finish_gradient(const NormGradient<T>& norm, const T* statistics, std::ptrdiff_t row, const double* sums,
                     int channels, double count);
// sums is [2][channels]: of z and of its squares.
template <class T>
void finish_statistics(const Norm<T>& norm, std::ptrdiff_t row, const double* sums, int channels, double count);

// Runs work(context, share) for each share from 0, on torch's own threads where they can be had (OpenMP): a second team
// would fight with the first one for the cores, because threads spin for milliseconds after their work.
void run_shares(int shares, void (*work)(void*, int), void* context);

// Memory for one call, 64-byte aligned: of the calling thread (slot 0) or of a share (slot 1). It is kept for the next.
void* workspace(int slot, std::size_t bytes);

}  // namespace ghostnets::training
