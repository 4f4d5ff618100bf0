// How values lie in memory: maps as float32 or bfloat16, and the products of groups of 32 bits that follow from it.
//
// A bfloat16 is the upper half of a float32. Arithmetic is float32 throughout: values are widened as they are loaded and
// rounded (to nearest, ties to even) as they are stored. Where the processor multiplies pairs of bfloat16 and adds them
// to a float32 in one instruction, dense operations use that.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace ghostnets::GHOSTNETS_ISA {

struct BFloat16 {
    std::uint16_t bits;
};

template <class T>
constexpr Type kType = Type::f32;
template <>
constexpr Type kType<BFloat16> = Type::bf16;

template <int N>
struct WordsOf {
    typedef std::uint16_t Short __attribute__((vector_size(N * sizeof(std::uint16_t))));
    typedef std::uint32_t Word __attribute__((vector_size(N * sizeof(std::uint32_t))));
};

template <int N>
inline Floats<N> load(const BFloat16* from) {
    typename WordsOf<N>::Short narrow;
    __builtin_memcpy(&narrow, from, sizeof narrow);
    const auto bits = __builtin_convertvector(narrow, typename WordsOf<N>::Word) << 16;
    Floats<N> value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

template <int N>
inline typename WordsOf<N>::Short narrowed(Floats<N> value) {
    typename WordsOf<N>::Short narrow;
#if defined(__AVX512BF16__)
    if constexpr (N == 16) {
        const __m256bh rounded = _mm512_cvtneps_pbh(value);
        __builtin_memcpy(&narrow, &rounded, sizeof narrow);
        return narrow;
    } else if constexpr (N == 8) {
        const __m128bh rounded = _mm256_cvtneps_pbh(value);
        __builtin_memcpy(&narrow, &rounded, sizeof narrow);
        return narrow;
    }
#endif
    typename WordsOf<N>::Word bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const auto is_nan = value != value;  // rounding might carry into the exponent
    narrow = __builtin_convertvector(is_nan ? (bits >> 16) | 64 : rounded, typename WordsOf<N>::Short);
    return narrow;
}

template <int N>
inline void store(BFloat16* to, Floats<N> value) {
    const auto narrow = narrowed<N>(value);
    __builtin_memcpy(to, &narrow, sizeof narrow);
}

template <int N>
inline void store_half(BFloat16* to, Floats<N> value) {
    const auto narrow = narrowed<N>(value);
    __builtin_memcpy(to, &narrow, sizeof narrow / 2);
}

// What a dense operation adds up: `Group` holds the values of one pixel that 32 bits hold, `Groups` as many weights for
// each of kWidth outputs.
template <class T>
struct Product;

template <>
struct Product<float> {
    using Group = float;
    using Groups = Floats<kWidth>;
    static Floats<kWidth> add(Floats<kWidth> sum, float x, Groups w) { return sum + x * w; }
};

template <>
struct Product<BFloat16> {
    using Group = std::uint32_t;
    using Groups = typename WordsOf<kWidth>::Word;
    static Floats<kWidth> add(Floats<kWidth> sum, std::uint32_t x, Groups w) {
#if defined(__AVX512BF16__)
        const __m512i pair = _mm512_set1_epi32(int(x));
        __m512bh a, b;
        __builtin_memcpy(&a, &pair, sizeof a);
        __builtin_memcpy(&b, &w, sizeof b);
        return _mm512_dpbf16_ps(sum, a, b);
#else
        const Groups low = w << 16, high = w & 0xffff0000u;
        const std::uint32_t x_low = x << 16, x_high = x & 0xffff0000u;
        Floats<kWidth> w_low, w_high;
        float first, second;
        __builtin_memcpy(&w_low, &low, sizeof w_low);
        __builtin_memcpy(&w_high, &high, sizeof w_high);
        __builtin_memcpy(&first, &x_low, sizeof first);
        __builtin_memcpy(&second, &x_high, sizeof second);
        return sum + first * w_low + second * w_high;
#endif
    }
};

}  // namespace ghostnets::GHOSTNETS_ISA
