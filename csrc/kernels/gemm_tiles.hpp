// The gemm of bytes and bfloat16 in the tile registers of AMX.
//
// The packed weights of one vector of outputs, 16 groups deep, are a tile as they are, and so are 16 groups of up to 16
// pixels. Two tiles of pixels and two of weights give four of sums. Pixels are divided evenly among tiles, the last of
// which may repeat some of the one before; what is left of a segment after its whole tiles is a tile with fewer groups,
// in registers of that shape.
#pragma once

#include "kernels/gemm.hpp"
#include "kernels/tiles.hpp"

namespace ghostnets::GHOSTNETS_ISA {

constexpr int kTileGroups = tiles::kRowBytes / 4;

// Registers: sums of tile of pixels b and vector v are 2 b + v.
enum TileRegister { kPixels = 4, kLastPixels, kWeights, kLastWeights };

// How the pixels of a task are divided among tiles.
struct PixelTiles {
    int count, rows, pixels;

    explicit PixelTiles(int all)
        : count((all + tiles::kRows - 1) / tiles::kRows), rows((all + count - 1) / count), pixels(all) {}

    // The first pixel of a tile.
    int first(int tile) const { return (tile + 1) * rows <= pixels ? tile * rows : pixels - rows; }
};

// Products of a segment.
inline int tiles_of_segment(const GemmTask& task) { return (task.segment_groups + kTileGroups - 1) / kTileGroups; }

// Whether tiles are expected to be faster than vectors. An estimate for Sapphire Rapids, to be replaced by
// measurements: a product of tiles takes 16 cycles (published); guessed are as many for storing sums and for loading
// them again, two products of vectors of bytes in a cycle, and one of bfloat16. Sums of bytes are exact. Those of
// bfloat16 are rounded differently in tiles, so that the choice must not depend on how pixels and outputs are split
// among threads, and full tiles are assumed.
inline bool gains_by_tiles(const GemmTask& task) {
    constexpr std::int64_t kProduct = 16, kStore = 32, kConfigure = 128;
    const std::int64_t groups = std::int64_t(task.segment_count) * task.segment_groups;
    const std::int64_t cycles = kProduct * task.segment_count * tiles_of_segment(task) + kStore;
    if (task.in == Type::bf16) return tiles::kRows * groups > cycles;
    const std::int64_t vectors = task.vectors;
    return task.pixels * vectors * groups / 2 > PixelTiles(task.pixels).count * vectors * cycles + kConfigure;
}

inline tiles::Shapes shapes_of(const GemmTask& task) {
    const int rows = PixelTiles(task.pixels).rows, rest = task.segment_groups % kTileGroups;
    tiles::Shapes shapes;
    for (int sum = 0; sum < kPixels; ++sum) shapes.set(sum, rows, tiles::kRowBytes);
    shapes.set(kPixels, rows, tiles::kRowBytes);
    shapes.set(kWeights, kTileGroups, tiles::kRowBytes);
    if (rest) {
        shapes.set(kLastPixels, rows, 4 * rest);
        shapes.set(kLastWeights, rest, tiles::kRowBytes);
    }
    return shapes;
}

// Adds the products of one tile, or two, of pixels with one vector, or two, of weights.
template <class In, int B, int V, int X, int W>
[[gnu::always_inline]] inline void add_tiles(const In* const (&x)[B], std::ptrdiff_t stride,
                                             const Words<kWidth>* weights, std::ptrdiff_t vector_stride) {
    const std::ptrdiff_t row = stride * std::ptrdiff_t(sizeof(In));
    tiles::load<X>(x[0], row);
    tiles::load<W>(weights, tiles::kRowBytes);
    tiles::add_products<In, 0, X, W>();
    if constexpr (V == 2) {
        tiles::load<W>(weights + vector_stride, tiles::kRowBytes);
        tiles::add_products<In, 1, X, W>();
    }
    if constexpr (B == 2) {
        tiles::load<X>(x[1], row);
        tiles::add_products<In, 1 + V, X, W>();
        if constexpr (V == 2) {
            tiles::load<W>(weights, tiles::kRowBytes);
            tiles::add_products<In, 2, X, W>();
        }
    }
}

// All terms of V vectors for the pixels of B tiles.
template <class In, class Out, int B, int V>
void gemm_in_registers(const GemmTask& task, const int (&pixels)[B], int rows, int vector,
                       const FirstSums<In, V>& first) {
    constexpr int kGroup = group_of(kType<In>);
    const auto* weights = static_cast<const Words<kWidth>*>(task.weights) + vector * task.vector_stride;
    tiles::zero<0>();
    if constexpr (V == 2) tiles::zero<1>();
    if constexpr (B == 2) tiles::zero<2>();
    if constexpr (B == 2 && V == 2) tiles::zero<3>();
    for (int s = 0; s < task.segment_count; ++s) {
        const In* x[B];
        for (int b = 0; b < B; ++b) x[b] = static_cast<const In*>(task.segments[s]) + pixels[b] * task.pixel_stride;
        int k = 0;
        for (; k + kTileGroups <= task.segment_groups; k += kTileGroups) {
            add_tiles<In, B, V, kPixels, kWeights>(x, task.pixel_stride, weights + k, task.vector_stride);
            for (int b = 0; b < B; ++b) x[b] += kTileGroups * kGroup;
        }
        if (k < task.segment_groups)
            add_tiles<In, B, V, kLastPixels, kLastWeights>(x, task.pixel_stride, weights + k, task.vector_stride);
        weights += task.segment_groups;
    }

    TileSum<In> sums[B][tiles::kRows][V];
    constexpr std::ptrdiff_t kStride = V * tiles::kRowBytes;
    tiles::store<0>(&sums[0][0][0], kStride);
    if constexpr (V == 2) tiles::store<1>(&sums[0][0][1], kStride);
    if constexpr (B == 2) tiles::store<2>(&sums[1][0][0], kStride);
    if constexpr (B == 2 && V == 2) tiles::store<3>(&sums[1][0][1], kStride);
    for (int b = 0; b < B; ++b)
        for (int row = 0; row < rows; ++row) {
            TileSum<In> pixel[1][V];
            for (int v = 0; v < V; ++v) pixel[0][v] = first.sums[v] + sums[b][row][v];
            store_tile<In, Out, 1, V>(task, pixel, pixels[b] + row, vector);
        }
}

template <class In, class Out, int V>
void gemm_tiles_of_vectors(const GemmTask& task, int vector) {
    const PixelTiles all(task.pixels);
    const FirstSums<In, V> first(task, vector);
    int tile = 0;
    for (; tile + 2 <= all.count; tile += 2)
        gemm_in_registers<In, Out, 2, V>(task, {all.first(tile), all.first(tile + 1)}, all.rows, vector, first);
    if (tile < all.count) gemm_in_registers<In, Out, 1, V>(task, {all.first(tile)}, all.rows, vector, first);
}

// A gemm in tiles, which are configured for the task and released after it: their state would slow down whatever runs
// next on the thread.
template <class In, class Out>
void gemm_in_tiles(const GemmTask& task) {
    tiles::configure(shapes_of(task));
    int vector = 0;
    for (; vector + 2 <= task.vectors; vector += 2) gemm_tiles_of_vectors<In, Out, 2>(task, vector);
    if (vector < task.vectors) gemm_tiles_of_vectors<In, Out, 1>(task, vector);
    tiles::release();
}

inline void gemm_in_tiles(const GemmTask& task) {
    if (task.in == Type::bf16) {
        if (task.out_type == Type::f32) gemm_in_tiles<BFloat16, float>(task);
        else gemm_in_tiles<BFloat16, BFloat16>(task);
    } else {
        if (task.out_type == Type::f32) gemm_in_tiles<Byte, float>(task);
        else gemm_in_tiles<Byte, Byte>(task);
    }
}

}  // namespace ghostnets::GHOSTNETS_ISA
