// 1 x 1 convolutions, linear layers and the stem: a matrix product whose tile of outputs stays in registers.
//
// A tile is P pixels x V vectors of output channels. For each k, V vectors of weights are loaded and P activations are
// broadcast: P + V loads for P * V multiply-adds. Every map of GhostNet at 224 x 224 is a multiple of 7 wide, so tiles of
// 14 x 2 and 7 x 3 leave no rest and fill 28 or 21 of 32 registers. With 16 registers tiles are 6 x 2 and 4 x 3.
// Where values are narrower than 32 bits, a step takes a group of them (storage.hpp).
#pragma once

#include "kernels.hpp"
#include "simd.hpp"
#include "storage.hpp"

namespace ghostnets::GHOSTNETS_ISA {

template <class In, class Out, int P, int V>
void dense_tile(const DenseTask& task, int pixel, int vector) {
    using F = Floats<kWidth>;
    using Groups = typename Product<In>::Groups;
    constexpr int kGroup = group_of(kType<In>);
    F sums[P][V];
    const float* bias = task.bias + vector * kWidth;
    const Groups* weights = static_cast<const Groups*>(task.weights) + vector * task.vector_stride;
    const std::ptrdiff_t vector_stride = task.vector_stride, stride = task.pixel_stride;
#pragma GCC unroll 28
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[p][v] = load<kWidth>(bias + v * kWidth);

    for (int s = 0; s < task.segment_count; ++s) {
        // One base pointer for every four pixels: an address is base + {0, 1, 2, 3} * stride, which needs few registers.
        const In* base[(P + 3) / 4];
#pragma GCC unroll 7
        for (int b = 0; b < (P + 3) / 4; ++b) base[b] = static_cast<const In*>(task.segments[s]) + (pixel + 4 * b) * stride;
        for (int k = 0; k < task.segment_groups; ++k) {
            Groups w[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) w[v] = weights[v * vector_stride];
            ++weights;
#pragma GCC unroll 28
            for (int p = 0; p < P; ++p) {
                typename Product<In>::Group x;
                __builtin_memcpy(&x, base[p / 4] + (p % 4) * stride + k * kGroup, sizeof x);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) sums[p][v] = Product<In>::add(sums[p][v], x, w[v]);
            }
        }
    }

    Out* out = static_cast<Out*>(task.out) + pixel * task.out_stride + vector * kWidth;
    const F least = F{} + task.least;
    const bool is_half = task.columns < (vector + V) * kWidth;
#pragma GCC unroll 28
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
        for (int v = 0; v + 1 < V; ++v) store<kWidth>(out + v * kWidth, maximum<kWidth>(least, sums[p][v]));
        const F last = maximum<kWidth>(least, sums[p][V - 1]);
        if (is_half) {
            store_half<kWidth>(out + (V - 1) * kWidth, last);
        } else {
            store<kWidth>(out + (V - 1) * kWidth, last);
        }
        out += task.out_stride;
    }
}

template <class In, class Out, int V, int P>
inline int dense_tiles(const DenseTask& task, int pixel, int vector) {
    for (; pixel + P <= task.pixels; pixel += P) dense_tile<In, Out, P, V>(task, pixel, vector);
    return pixel;
}

// All pixels of V vectors, in tiles as large as fit.
template <class In, class Out, int V>
void dense_vectors(const DenseTask& task, int vector) {
    int pixel = 0;
    if constexpr (kManyRegisters) {
        if constexpr (V == 1) pixel = dense_tiles<In, Out, V, 28>(task, pixel, vector);
        if constexpr (V < 3) pixel = dense_tiles<In, Out, V, 14>(task, pixel, vector);
        pixel = dense_tiles<In, Out, V, 7>(task, pixel, vector);
    } else if constexpr (V < 3) {
        pixel = dense_tiles<In, Out, V, 6>(task, pixel, vector);
    }
    pixel = dense_tiles<In, Out, V, 4>(task, pixel, vector);
    pixel = dense_tiles<In, Out, V, 2>(task, pixel, vector);
    dense_tiles<In, Out, V, 1>(task, pixel, vector);
}

template <class In, class Out>
void dense_of(const DenseTask& task) {
    int vector = 0;
    while (vector < task.vectors) {
        const int rest = task.vectors - vector;
        if (rest == 1) {
            dense_vectors<In, Out, 1>(task, vector);
            vector += 1;
        } else if (rest == 3) {
            dense_vectors<In, Out, 3>(task, vector);
            vector += 3;
        } else {
            dense_vectors<In, Out, 2>(task, vector);
            vector += 2;
        }
    }
}

inline void dense(const DenseTask& task) {
    if (task.in == Type::f32) {
        task.out_type == Type::f32 ? dense_of<float, float>(task) : dense_of<float, BFloat16>(task);
    } else {
        task.out_type == Type::f32 ? dense_of<BFloat16, float>(task) : dense_of<BFloat16, BFloat16>(task);
    }
}

}  // namespace ghostnets::GHOSTNETS_ISA
