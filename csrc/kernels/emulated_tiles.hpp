// The instructions of AMX in plain C++, after their description in the Intel 64 and IA-32 Architectures Software
// Developer's Manual, volume 2: for tests on processors without them. What a processor would reject ends the program.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/tiles.hpp"

namespace ghostnets::GHOSTNETS_ISA::tiles {

struct Registers {
    bool is_configured = false;
    Shapes shapes;
    alignas(64) unsigned char values[kRegisters][kRows][kRowBytes];
};

inline thread_local Registers registers;

inline void demand(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "a tile instruction is invalid: %s\n", what);
    std::abort();
}

inline void configure(const Shapes& shapes) {
    demand(!registers.is_configured, "the tiles were not released");  // a rule of this engine alone
    demand(shapes.palette == 1 && shapes.start_row == 0, "palette or start row");
    for (const std::uint8_t byte : shapes.reserved) demand(byte == 0, "a reserved byte is set");
    for (int tile = 0; tile < kRegisters; ++tile) {
        demand(shapes.rows[tile] <= kRows && shapes.row_bytes[tile] <= kRowBytes, "a tile is too large");
        demand((shapes.rows[tile] == 0) == (shapes.row_bytes[tile] == 0), "a tile has rows or columns alone");
    }
    for (int tile = kRegisters; tile < 16; ++tile)
        demand(shapes.rows[tile] == 0 && shapes.row_bytes[tile] == 0, "there are eight tiles");
    registers = {};
    registers.is_configured = true;
    registers.shapes = shapes;
}

inline void release() { registers = {}; }

inline void demand_shape(int tile) {
    demand(registers.is_configured && registers.shapes.rows[tile] > 0, "a tile has no shape");
}

template <int Tile>
inline void zero() {
    demand_shape(Tile);
    std::memset(registers.values[Tile], 0, sizeof registers.values[Tile]);
}

template <int Tile>
inline void load(const void* from, std::ptrdiff_t stride) {
    zero<Tile>();
    for (int row = 0; row < registers.shapes.rows[Tile]; ++row)
        std::memcpy(registers.values[Tile][row], static_cast<const char*>(from) + row * stride,
                    registers.shapes.row_bytes[Tile]);
}

template <int Tile>
inline void store(void* to, std::ptrdiff_t stride) {
    demand_shape(Tile);
    for (int row = 0; row < registers.shapes.rows[Tile]; ++row)
        std::memcpy(static_cast<char*>(to) + row * stride, registers.values[Tile][row],
                    registers.shapes.row_bytes[Tile]);
}

// Numbers below the smallest normal one are zeros, as operands and as results.
inline float flushed(float value) { return __builtin_fabsf(value) < 0x1p-126f ? __builtin_copysignf(0, value) : value; }

inline float widened_bf16(std::uint16_t value) {
    const std::uint32_t bits = std::uint32_t(value) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return flushed(wide);
}

// Adds to a row of sums the products of the groups of `x` with the rows of W, which have `columns` groups each.
inline void add_row(unsigned char* row, const unsigned char* x, const unsigned char (*w)[kRowBytes], int groups,
                    int columns, Byte) {
    std::uint32_t sums[kRows];
    std::memcpy(sums, row, sizeof sums);
    for (int k = 0; k < groups; ++k)
        for (int n = 0; n < columns; ++n)
            for (int i = 0; i < 4; ++i) sums[n] += std::uint32_t(int(x[4 * k + i]) * int(std::int8_t(w[k][4 * n + i])));
    std::memcpy(row, sums, sizeof sums);
}

// The first values of all groups and the second ones are summed apart, then both, then the tile's sum is added.
inline void add_row(unsigned char* row, const unsigned char* x, const unsigned char (*w)[kRowBytes], int groups,
                    int columns, BFloat16) {
    float sums[kRows], parts[kRows][2] = {};
    std::uint16_t pair[2], weights[2 * kRows];
    std::memcpy(sums, row, sizeof sums);
    for (int k = 0; k < groups; ++k) {
        std::memcpy(pair, x + 4 * k, sizeof pair);
        std::memcpy(weights, w[k], sizeof weights);
        for (int n = 0; n < columns; ++n)
            for (int i = 0; i < 2; ++i)
                parts[n][i] =
                    flushed(__builtin_fmaf(widened_bf16(pair[i]), widened_bf16(weights[2 * n + i]), parts[n][i]));
    }
    for (int n = 0; n < columns; ++n) sums[n] = flushed(flushed(sums[n]) + flushed(parts[n][0] + parts[n][1]));
    std::memcpy(row, sums, sizeof sums);
}

template <class In, int Sum, int X, int W>
inline void add_products() {
    static_assert(Sum != X && Sum != W && X != W);  // or the processor would reject it
    for (const int tile : {Sum, X, W}) demand_shape(tile);
    const Shapes& shapes = registers.shapes;
    demand(shapes.rows[Sum] == shapes.rows[X] && shapes.row_bytes[Sum] == shapes.row_bytes[W] &&
               shapes.row_bytes[X] == 4 * shapes.rows[W] && shapes.row_bytes[W] % 4 == 0,
           "the shapes of a product differ");
    for (int row = 0; row < shapes.rows[Sum]; ++row)
        add_row(registers.values[Sum][row], registers.values[X][row], registers.values[W], shapes.row_bytes[X] / 4,
                shapes.row_bytes[W] / 4, In{});
}

}  // namespace ghostnets::GHOSTNETS_ISA::tiles
