// The instructions of AMX: eight tile registers of up to 16 rows of 64 bytes, and their products.
//
// They are written as assembly, since the intrinsics of g++ do not say which memory they read (12.2: its configuration
// may be stored too late). With GHOSTNETS_EMULATED_TILES they are plain C++ (emulated_tiles.hpp), for processors
// without AMX.
#pragma once

#include "common/simd.hpp"
#include "kernels/storage.hpp"

namespace ghostnets::GHOSTNETS_ISA::tiles {

constexpr int kRegisters = 8, kRows = 16, kRowBytes = 64;

// The shapes of the registers, in the processor's layout.
struct alignas(64) Shapes {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};

    void set(int tile, int tile_rows, int tile_row_bytes) {
        rows[tile] = std::uint8_t(tile_rows);
        row_bytes[tile] = std::uint16_t(tile_row_bytes);
    }
};
static_assert(sizeof(Shapes) == 64);

}  // namespace ghostnets::GHOSTNETS_ISA::tiles

#if defined(GHOSTNETS_EMULATED_TILES)
#include "kernels/emulated_tiles.hpp"
#else

namespace ghostnets::GHOSTNETS_ISA::tiles {

// Gives all registers their shapes, and zeros.
inline void configure(const Shapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }

// Returns the registers to the state in which the system need not save them.
inline void release() { asm volatile("tilerelease"); }

template <int Tile>
inline void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
}

template <int Tile>
inline void load(const void* from, std::ptrdiff_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
inline void store(void* to, std::ptrdiff_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(Tile) : "memory");
}

// Adds to each value (row i, column j) of Sum the products of the groups in row i of X with those in column j of W.
template <class In, int Sum, int X, int W>
inline void add_products() {
    if constexpr (kType<In> == Type::u8)  // X unsigned, W signed
        asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(X), "i"(W));
    else asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(X), "i"(W));
}

}  // namespace ghostnets::GHOSTNETS_ISA::tiles

#endif
