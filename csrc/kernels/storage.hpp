// Storage types of values: float32, bfloat16 and bytes.
//
// A bfloat16 is the upper half of a float32; a byte q represents scale * (q - zero), with constants held by the
// operations. Values are widened to float32 as they are loaded and rounded to nearest as they are stored.
// groups.hpp has the products that need no widening.
#pragma once

#include "common/simd.hpp"
#include "kernels/kernels.hpp"

namespace ghostnets::GHOSTNETS_ISA {

struct BFloat16 {
    std::uint16_t bits;
};
using Byte = std::uint8_t;

template <class T>
inline constexpr Type kType = Type::f32;
template <>
inline constexpr Type kType<BFloat16> = Type::bf16;
template <>
inline constexpr Type kType<Byte> = Type::u8;

// Calls work(T{}) with the type that `type` names.
template <class Work>
inline void with_type(Type type, Work&& work) {
    switch (type) {
        case Type::f32: return work(float{});
        case Type::bf16: return work(BFloat16{});
        case Type::u8: return work(Byte{});
    }
}

// N values as stored, and widened.
template <int N>
inline typename VectorOf<N>::Short raw(const BFloat16* from) {
    typename VectorOf<N>::Short values;
    __builtin_memcpy(&values, from, sizeof values);
    return values;
}

template <int N>
inline typename VectorOf<N>::Byte raw(const Byte* from) {
    typename VectorOf<N>::Byte values;
    __builtin_memcpy(&values, from, sizeof values);
    return values;
}

// Compilers split these conversions unnecessarily, so intrinsics are used where available.
template <int N>
inline Words<N> widened_bits(typename VectorOf<N>::Short values) {
#if defined(__AVX512F__)
    if constexpr (N == 16) return Words<N>(_mm512_cvtepu16_epi32(__m256i(values)));
#endif
#if defined(__AVX2__)
    if constexpr (N == 8) return Words<N>(_mm256_cvtepu16_epi32(__m128i(values)));
#endif
    return __builtin_convertvector(values, Words<N>);
}

template <int N>
inline Words<N> widened_bits(typename VectorOf<N>::Byte values) {
#if defined(__AVX512F__)
    if constexpr (N == 16) return Words<N>(_mm512_cvtepu8_epi32(__m128i(values)));
#endif
#if defined(__AVX2__)
    if constexpr (N == 8) return Words<N>(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)(values))));
#endif
    return __builtin_convertvector(values, Words<N>);
}

template <int N>
inline Floats<N> widened(typename VectorOf<N>::Short values) {
    return as_floats<N>(widened_bits<N>(values) << 16);
}

template <int N>
inline Floats<N> widened(typename VectorOf<N>::Byte values) {
    return __builtin_convertvector(Ints<N>(widened_bits<N>(values)), Floats<N>);
}

template <int N>
inline Floats<N> load(const BFloat16* from) {
    return widened<N>(raw<N>(from));
}

template <int N>
inline Floats<N> load(const Byte* from) {
    return widened<N>(raw<N>(from));
}

template <int N>
inline Floats<N> narrowed(Floats<N> value, float) {
    return value;
}

template <int N>
inline typename VectorOf<N>::Short narrowed(Floats<N> value, BFloat16) {
    typename VectorOf<N>::Short narrow;
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
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    if constexpr (N == 4) {
        const bfloat16x4_t rounded = vcvt_bf16_f32(value);
        __builtin_memcpy(&narrow, &rounded, sizeof narrow);
        return narrow;
    }
#endif
    const Words<N> bits = as_words<N>(value), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    narrow = __builtin_convertvector(value != value ? (bits >> 16) | 64 : rounded, typename VectorOf<N>::Short);
    return narrow;  // NaN is handled separately: rounding could carry it into infinity
}

template <int N>
inline typename VectorOf<N>::Byte narrowed(Floats<N> value, Byte) {
    typename VectorOf<N>::Byte narrow;
    const Floats<N> zero{};
#if defined(__AVX512F__)
    if constexpr (N == 16) {
        const __m128i rounded = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(maximum<N>(zero, value)));
        __builtin_memcpy(&narrow, &rounded, sizeof narrow);
        return narrow;
    }
#endif
#if defined(__AVX512VL__)
    if constexpr (N == 8) {
        const __m128i rounded = _mm256_cvtusepi32_epi8(_mm256_cvtps_epi32(maximum<N>(zero, value)));
        __builtin_memcpy(&narrow, &rounded, sizeof narrow);
        return narrow;
    }
#endif
    const Floats<N> inside = minimum<N>(maximum<N>(zero, value), zero + 255.0f);
    narrow = __builtin_convertvector(__builtin_convertvector(inside + 0.5f, Ints<N>), typename VectorOf<N>::Byte);
    return narrow;
}

template <int N, class T>
inline void store(T* to, Floats<N> value) {
    const auto narrow = narrowed<N>(value, T{});
    __builtin_memcpy(to, &narrow, sizeof narrow);
}

// Stores the first half of a vector, as the map's padding may end there.
template <int N, class T>
inline void store_half(T* to, Floats<N> value) {
    const auto narrow = narrowed<N>(value, T{});
    __builtin_memcpy(to, &narrow, sizeof narrow / 2);
}

}  // namespace ghostnets::GHOSTNETS_ISA
