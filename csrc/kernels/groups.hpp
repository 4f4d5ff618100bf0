// Products of groups of 32 bits: one float32, two bfloat16 or four bytes of activations with as many weights,
// accumulated in one lane. With BF16 and VNNI, or BF16 and I8MM on aarch64, there is an instruction for each; otherwise
// the groups are unpacked.
#pragma once

#include "common/simd.hpp"
#include "kernels/storage.hpp"

namespace ghostnets::GHOSTNETS_ISA {

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
constexpr bool kGroupsBf16 = true;
#else
constexpr bool kGroupsBf16 = false;
#endif

// Whether bytes are multiplied as signed ones, 128 less than they are: without I8MM, aarch64 has no product of unsigned
// and signed bytes.
#if defined(__aarch64__) && !defined(__ARM_FEATURE_MATMUL_INT8)
constexpr bool kSignedBytes = true;
#else
constexpr bool kSignedBytes = false;
#endif

// Sum<N> is the accumulator of N lanes; add(sum, x, w) adds the products of N groups. If kSignedBytes, those of bytes
// lack 128 times the weights, which Product<Byte>::add_offset adds.
template <class T>
struct Product;

template <>
struct Product<float> {
    template <int N>
    using Sum = Floats<N>;
    template <int N>
    static Floats<N> add(Floats<N> sum, Words<N> x, Words<N> w) {
        return sum + as_floats<N>(x) * as_floats<N>(w);
    }
};

template <>
struct Product<BFloat16> {
    template <int N>
    using Sum = Floats<N>;
    template <int N>
    static Floats<N> add(Floats<N> sum, Words<N> x, Words<N> w) {
#if defined(__AVX512BF16__) && defined(__clang__) && __clang_major__ < 17
        if constexpr (N == 16 || N == 8) {  // the intrinsic's vectors of __bf16 crash clang 16
            asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
            return sum;
        }
#elif defined(__AVX512BF16__)
        if constexpr (N == 16) {
            return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
        } else if constexpr (N == 8) {
            return _mm256_dpbf16_ps(sum, reinterpret_cast<__m256bh>(x), reinterpret_cast<__m256bh>(w));
        }
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
        if constexpr (N == 4)
            return vbfdotq_f32(sum, reinterpret_cast<bfloat16x8_t>(x), reinterpret_cast<bfloat16x8_t>(w));
#endif
        return sum + as_floats<N>(x << 16) * as_floats<N>(w << 16) +
               as_floats<N>(x & 0xffff0000u) * as_floats<N>(w & 0xffff0000u);
    }
};

// Activations are unsigned, weights from -127 to 127.
template <>
struct Product<Byte> {
    template <int N>
    using Sum = Ints<N>;
    template <int N>
    static Ints<N> add(Ints<N> sum, Words<N> x, Words<N> w) {
#if defined(__AVX512VNNI__)
        if constexpr (N == 16) {
            return Ints<N>(_mm512_dpbusd_epi32(__m512i(sum), __m512i(x), __m512i(w)));
        } else if constexpr (N == 8) {
            return Ints<N>(_mm256_dpbusd_epi32(__m256i(sum), __m256i(x), __m256i(w)));
        }
#elif defined(__AVX512BW__)
        if constexpr (N == 16) {  // as pairs of 16 bits, which do not saturate
            const __m512i even = __m512i(x & 0x00ff00ffu), odd = __m512i((x >> 8) & 0x00ff00ffu);
            const __m512i w_even = _mm512_srai_epi16(_mm512_slli_epi16(__m512i(w), 8), 8);
            const __m512i w_odd = _mm512_srai_epi16(__m512i(w), 8);
            return sum + Ints<N>(_mm512_madd_epi16(even, w_even)) + Ints<N>(_mm512_madd_epi16(odd, w_odd));
        }
#elif defined(__AVXVNNI__)
        if constexpr (N == 8) return Ints<N>(_mm256_dpbusd_avx_epi32(__m256i(sum), __m256i(x), __m256i(w)));
#elif defined(__AVX2__)
        if constexpr (N == 8) {
            const __m256i even = __m256i(x & 0x00ff00ffu), odd = __m256i((x >> 8) & 0x00ff00ffu);
            const __m256i w_even = _mm256_srai_epi16(_mm256_slli_epi16(__m256i(w), 8), 8);
            const __m256i w_odd = _mm256_srai_epi16(__m256i(w), 8);
            return sum + Ints<N>(_mm256_madd_epi16(even, w_even)) + Ints<N>(_mm256_madd_epi16(odd, w_odd));
        }
#elif defined(__ARM_FEATURE_MATMUL_INT8)
        if constexpr (N == 4) return vusdotq_s32(sum, reinterpret_cast<uint8x16_t>(x), reinterpret_cast<int8x16_t>(w));
#elif defined(__aarch64__)
        if constexpr (N == 4) return add_signed(sum, reinterpret_cast<int8x16_t>(x ^ 0x80808080u), w);
#endif
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sum += Ints<N>((x >> (8 * i)) & 0xff) * (Ints<N>(w << (24 - 8 * i)) >> 24);
        return sum;
    }

#if defined(__aarch64__)
    static Ints<4> add_offset(Ints<4> sum, Words<4> w) {
        return add_signed(sum, vdupq_n_s8(-128), Words<4>(vnegq_s8(reinterpret_cast<int8x16_t>(w))));
    }

private:
    static Ints<4> add_signed(Ints<4> sum, int8x16_t x, Words<4> w) {
        const auto signed_w = reinterpret_cast<int8x16_t>(w);
#if defined(__ARM_FEATURE_DOTPROD)
        return vdotq_s32(sum, x, signed_w);
#else  // sums of two products fit 16 bits
        const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(signed_w)), high = vmull_high_s8(x, signed_w);
        return vpadalq_s16(sum, vpaddq_s16(low, high));
#endif
    }
#endif
};

// N channels of consecutive rows as groups: group c holds channel c of every row.
template <int N, class T>
inline Words<N> stacked(const T* const* rows) {
    const auto row = [&](int i) { return widened_bits<N>(raw<N>(rows[i])) << (8 * int(sizeof(T)) * i); };
    if constexpr (group_of(kType<T>) == 2) return row(0) | row(1);
    else return row(0) | row(1) | row(2) | row(3);
}

#if defined(__AVX512BW__)

inline __m512i repeated_16_bytes(const void* from) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}

inline __m512i repeated_8_bytes(const void* from) {
    return _mm512_broadcastq_epi64(_mm_loadl_epi64(static_cast<const __m128i*>(from)));
}

// stacked<8> in both halves of a vector of 16 groups.
inline Words<16> folded(const BFloat16* const* rows) {
    const __m512i a = repeated_16_bytes(rows[0]), b = repeated_16_bytes(rows[1]);
    return Words<16>(_mm512_mask_unpackhi_epi16(_mm512_unpacklo_epi16(a, b), 0xff00ff00u, a, b));
}

inline Words<16> folded(const Byte* const* rows) {
    const __m512i upper = _mm512_unpacklo_epi8(repeated_8_bytes(rows[0]), repeated_8_bytes(rows[1]));
    const __m512i lower = _mm512_unpacklo_epi8(repeated_8_bytes(rows[2]), repeated_8_bytes(rows[3]));
    return Words<16>(_mm512_mask_unpackhi_epi16(_mm512_unpacklo_epi16(upper, lower), 0xff00ff00u, upper, lower));
}

template <>
inline Words<8> stacked<8, BFloat16>(const BFloat16* const* rows) {
    return Words<8>(_mm512_castsi512_si256(__m512i(folded(rows))));
}

template <>
inline Words<8> stacked<8, Byte>(const Byte* const* rows) {
    return Words<8>(_mm512_castsi512_si256(__m512i(folded(rows))));
}

template <>
inline Words<16> stacked<16, BFloat16>(const BFloat16* const* rows) {
    constexpr VectorOf<32>::Short kOrder = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                            8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const auto row = [&](int i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[i])); };
    const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(row(0)), row(1), 1);
    return Words<16>(_mm512_permutexvar_epi16(__m512i(kOrder), both));
}

#endif

#if defined(__aarch64__)

template <>
inline Words<4> stacked<4, Byte>(const Byte* const* rows) {
    constexpr VectorOf<16>::Byte kOrder = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    Words<4> all;
    for (int i = 0; i < 4; ++i) {
        std::uint32_t row;
        __builtin_memcpy(&row, rows[i], sizeof row);
        all[i] = row;
    }
    return Words<4>(vqtbl1q_u8(reinterpret_cast<uint8x16_t>(all), kOrder));
}

#endif

#if defined(__AVX512VBMI__)

template <>
inline Words<16> stacked<16, Byte>(const Byte* const* rows) {
    constexpr VectorOf<64>::Byte kOrder = {0,  16, 32, 48, 1,  17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51,
                                           4,  20, 36, 52, 5,  21, 37, 53, 6,  22, 38, 54, 7,  23, 39, 55,
                                           8,  24, 40, 56, 9,  25, 41, 57, 10, 26, 42, 58, 11, 27, 43, 59,
                                           12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
    const auto row = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i])); };
    __m512i all = _mm512_castsi128_si512(row(0));
    all = _mm512_inserti32x4(all, row(1), 1);
    all = _mm512_inserti32x4(all, row(2), 2);
    all = _mm512_inserti32x4(all, row(3), 3);
    return Words<16>(_mm512_permutexvar_epi8(__m512i(kOrder), all));
}

#endif

}  // namespace ghostnets::GHOSTNETS_ISA
