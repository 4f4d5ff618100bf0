// 1 x 1 convolutions, linear layers and the stem: a matrix product whose tile of outputs stays in registers.
//
// A tile is P pixels x V vectors of output channels. For each k, V vectors of weights are loaded and P activations are
// broadcast: P + V loads for P * V multiply-adds. Every map of GhostNet at 224 x 224 is a multiple of 7 wide, so tiles
// of 14 x 2 and 7 x 3 leave no remainder and fill 28 or 21 of 32 registers. With 16 registers tiles are 6 x 2 and 4
// x 3. For values narrower than 32 bits, a step takes a group of them (groups.hpp). If only 8 outputs are left for a
// vector of 16 floats, its lanes hold two terms of each (pair_tile).
#pragma once

#include "common/simd.hpp"
#include "kernels/activation.hpp"
#include "kernels/groups.hpp"
#include "kernels/kernels.hpp"
#include "kernels/storage.hpp"

namespace ghostnets::GHOSTNETS_ISA {

// Accumulators of a tile: float32, or int32 for bytes.
template <class In>
using TileSum = typename Product<In>::template Sum<kWidth>;

// Requantizes the accumulators of bytes, applies the activation and stores a tile.
template <class In, class Out, int P, int V>
[[gnu::always_inline]] inline void store_tile(const GemmTask& task, const TileSum<In> (&sums)[P][V], int pixel,
                                              int vector) {
    using F = Floats<kWidth>;
    constexpr bool kCounts = kType<In> == Type::u8;
    const float* bias = task.bias + vector * kWidth;
    const float* scale = kCounts ? task.scale + vector * kWidth : nullptr;
    Out* out = static_cast<Out*>(task.out) + pixel * task.out_stride + vector * kWidth;
    const std::ptrdiff_t out_stride = task.out_stride;
    const float clamp_min = task.clamp_min, slope = task.slope;
    const bool is_half = task.columns < (vector + V) * kWidth;
    F scales[V], biases[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
        if constexpr (kCounts) {
            scales[v] = load<kWidth>(scale + v * kWidth);
            biases[v] = load<kWidth>(bias + v * kWidth);
        }
    const auto store_all = [&]<Activation kind>() __attribute__((always_inline)) {
        const auto value = [&](int p, int v) __attribute__((always_inline)) {
            F sum;
            if constexpr (kCounts) sum = __builtin_convertvector(sums[p][v], F) * scales[v] + biases[v];
            else sum = sums[p][v];
            if constexpr (kType<Out> == Type::f32) after_stores<kWidth>(sum);
            return stored<kind, kWidth>(sum, clamp_min, slope);
        };
#pragma GCC unroll 28
        for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
            for (int v = 0; v + 1 < V; ++v) store<kWidth>(out + v * kWidth, value(p, v));
            if (is_half) {
                store_half<kWidth>(out + (V - 1) * kWidth, value(p, V - 1));
            } else {
                store<kWidth>(out + (V - 1) * kWidth, value(p, V - 1));
            }
            out += out_stride;
        }
    };
    if constexpr (kCounts || kType<Out> == Type::u8) store_all.template operator()<Activation::none>();
    else with_stored_activation(task.activation, store_all);
}

// The sums of V vectors before the first term.
template <class In, int V>
struct FirstSums {
    TileSum<In> sums[V];

    FirstSums(const GemmTask& task, int vector) {
        if constexpr (kType<In> == Type::u8) {
            for (int v = 0; v < V; ++v) sums[v] = TileSum<In>{};
            if constexpr (kSignedBytes) {
                const auto* weights = static_cast<const Words<kWidth>*>(task.weights) + vector * task.vector_stride;
                for (int v = 0; v < V; ++v)
                    for (int k = 0; k < task.segment_count * task.segment_groups; ++k)
                        sums[v] = Product<In>::add_offset(sums[v], weights[v * task.vector_stride + k]);
            }
        } else {
            for (int v = 0; v < V; ++v) sums[v] = load<kWidth>(task.bias + (vector + v) * kWidth);
        }
    }
};

template <class In, class Out, int P, int V>
void gemm_tile(const GemmTask& task, int pixel, int vector, const FirstSums<In, V>& first) {
    constexpr int kGroup = group_of(kType<In>);
    TileSum<In> sums[P][V];
    const auto* weights = static_cast<const Words<kWidth>*>(task.weights) + vector * task.vector_stride;
    const std::ptrdiff_t vector_stride = task.vector_stride, stride = task.pixel_stride;
    // During the last pixels, prefetch the weights of the next vectors.
    const std::ptrdiff_t ahead = pixel + 2 * P > task.pixels ? V * vector_stride : 0;
#pragma GCC unroll 28
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[p][v] = first.sums[v];

    for (int s = 0; s < task.segment_count; ++s) {
        // One base pointer for every four pixels: base + {0, 1, 2, 3} * stride needs few registers.
        const In* base[(P + 3) / 4];
#pragma GCC unroll 7
        for (int b = 0; b < (P + 3) / 4; ++b)
            base[b] = static_cast<const In*>(task.segments[s]) + (pixel + 4 * b) * stride;
        for (int k = 0; k < task.segment_groups; ++k) {
            Words<kWidth> w[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) w[v] = weights[v * vector_stride];
            if constexpr (P >= 7)
                for (int v = 0; v < V; ++v) __builtin_prefetch(weights + ahead + v * vector_stride);
            ++weights;
#pragma GCC unroll 28
            for (int p = 0; p < P; ++p) {
                std::uint32_t group;
                __builtin_memcpy(&group, base[p / 4] + (p % 4) * stride + k * kGroup, sizeof group);
                const Words<kWidth> x = Words<kWidth>{} + group;
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) sums[p][v] = Product<In>::template add<kWidth>(sums[p][v], x, w[v]);
            }
        }
    }

    store_tile<In, Out, P, V>(task, sums, pixel, vector);
}

// 8 outputs: lanes 2 j and 2 j + 1 accumulate the even and the odd terms of output j, so a step takes two terms and no
// lane is idle. An odd number of terms is followed by one of weight zero, from the padding of the segment.
template <class Out, int P>
void pair_tile(const GemmTask& task, int pixel, int vector) {
    using Pairs = typename VectorOf<16>::Long;
    using F = Floats<16>;
    F sums[P];
    const auto* weights = static_cast<const F*>(task.weights) + vector * task.vector_stride;
    const std::ptrdiff_t stride = task.pixel_stride;
#pragma GCC unroll 14
    for (int p = 0; p < P; ++p) sums[p] = F{};
    for (int s = 0; s < task.segment_count; ++s) {
        const float* base[(P + 3) / 4];
#pragma GCC unroll 4
        for (int b = 0; b < (P + 3) / 4; ++b)
            base[b] = static_cast<const float*>(task.segments[s]) + (pixel + 4 * b) * stride;
        for (int k = 0; k < task.segment_groups; k += 2) {
            const F w = *weights++;
#pragma GCC unroll 14
            for (int p = 0; p < P; ++p) {
                std::uint64_t pair;
                __builtin_memcpy(&pair, base[p / 4] + (p % 4) * stride + k, sizeof pair);
                sums[p] += reinterpret_cast<F>(Pairs{} + pair) * w;
            }
        }
    }
    Out* out = static_cast<Out*>(task.out) + pixel * task.out_stride + vector * 16;
    const Floats<8> bias = load<8>(task.bias + vector * 16);
    const float clamp_min = task.clamp_min, slope = task.slope;
    with_stored_activation(task.activation, [&]<Activation kind>() __attribute__((always_inline)) {
#pragma GCC unroll 14
        for (int p = 0; p < P; p += 2) {
            const F second = sums[p + 1 < P ? p + 1 : p];
            const F both = neighbor_sums<16>(sums[p], second);
            store<8>(out + p * task.out_stride, stored<kind, 8>(lower_half<Floats<8>>(both) + bias, clamp_min, slope));
            if (p + 1 < P)
                store<8>(out + (p + 1) * task.out_stride,
                         stored<kind, 8>(upper_half<Floats<8>>(both) + bias, clamp_min, slope));
        }
    });
}

template <class Out>
void gemm_pairs(const GemmTask& task, int vector) {
    int pixel = 0;
    for (; pixel + 14 <= task.pixels; pixel += 14) pair_tile<Out, 14>(task, pixel, vector);
    for (; pixel + 7 <= task.pixels; pixel += 7) pair_tile<Out, 7>(task, pixel, vector);
    for (; pixel + 2 <= task.pixels; pixel += 2) pair_tile<Out, 2>(task, pixel, vector);
    if (pixel < task.pixels) pair_tile<Out, 1>(task, pixel, vector);
}

template <class In, class Out, int V, int P>
inline int gemm_tiles(const GemmTask& task, int pixel, int vector, const FirstSums<In, V>& first) {
    for (; pixel + P <= task.pixels; pixel += P) gemm_tile<In, Out, P, V>(task, pixel, vector, first);
    return pixel;
}

// All pixels of V vectors, in the largest tiles that fit.
template <class In, class Out, int V>
void gemm_vectors(const GemmTask& task, int vector) {
    const FirstSums<In, V> first(task, vector);
    int pixel = 0;
    if constexpr (kManyRegisters) {
        if constexpr (V == 1) pixel = gemm_tiles<In, Out, V, 28>(task, pixel, vector, first);
        if constexpr (V < 3) pixel = gemm_tiles<In, Out, V, 14>(task, pixel, vector, first);
        pixel = gemm_tiles<In, Out, V, 7>(task, pixel, vector, first);
    } else if constexpr (V < 3) {
        pixel = gemm_tiles<In, Out, V, 6>(task, pixel, vector, first);
    }
    pixel = gemm_tiles<In, Out, V, 4>(task, pixel, vector, first);
    pixel = gemm_tiles<In, Out, V, 2>(task, pixel, vector, first);
    gemm_tiles<In, Out, V, 1>(task, pixel, vector, first);
}

template <class In, class Out>
void gemm_of(const GemmTask& task) {
    int vector = 0;
    const bool has_pairs = task.pairs_terms && task.columns < task.vectors * kWidth;
    const int whole = has_pairs ? task.vectors - 1 : task.vectors;
    if (task.pixels == 1)  // linear layers: more streams of weights at once
        for (; vector + 4 <= whole; vector += 4)
            gemm_tile<In, Out, 1, 4>(task, 0, vector, FirstSums<In, 4>(task, vector));
    while (vector < whole) {
        const int rest = whole - vector;
        if (rest == 1) {
            gemm_vectors<In, Out, 1>(task, vector);
            vector += 1;
        } else if (rest == 3) {
            gemm_vectors<In, Out, 3>(task, vector);
            vector += 3;
        } else {
            gemm_vectors<In, Out, 2>(task, vector);
            vector += 2;
        }
    }
    if constexpr (kType<In> == Type::f32 && kWidth == 16)
        if (has_pairs) gemm_pairs<Out>(task, whole);
}

}  // namespace ghostnets::GHOSTNETS_ISA
