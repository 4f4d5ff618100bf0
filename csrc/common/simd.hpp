// Vectors of floats, written with the compiler's vector extensions: one source for every instruction set.
//
// Each instruction set has its own namespace, and no standard template is used here: the linker merges identical
// inline functions and must not choose an AVX-512 one for a processor without it.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)  // g++ 12.2 warns of its own _mm512_undefined_ps (GCC bug 105593)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define GHOSTNETS_ISA avx512_amx
#elif defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
#define GHOSTNETS_ISA avx512_bf16
#elif defined(__AVX512VNNI__)
#define GHOSTNETS_ISA avx512_vnni
#elif defined(__AVX512F__)
#define GHOSTNETS_ISA avx512
#elif defined(__AVXVNNI__)
#define GHOSTNETS_ISA avx2_vnni
#elif defined(__AVX2__)
#define GHOSTNETS_ISA avx2
#elif defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define GHOSTNETS_ISA neon_bf16
#elif defined(__ARM_FEATURE_DOTPROD)
#define GHOSTNETS_ISA neon_dot
#else
#define GHOSTNETS_ISA baseline
#endif

namespace ghostnets::GHOSTNETS_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

// Whether there are 32 vector registers rather than 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr bool kManyRegisters = true;
#else
constexpr bool kManyRegisters = false;
#endif

template <int N>
struct VectorOf {
    typedef float Float __attribute__((vector_size(N * sizeof(float))));
    typedef std::int32_t Int __attribute__((vector_size(N * sizeof(float))));
    typedef std::uint32_t Word __attribute__((vector_size(N * sizeof(float))));
    typedef std::uint64_t Long __attribute__((vector_size(N * sizeof(float))));
    typedef std::uint16_t Short __attribute__((vector_size(N * sizeof(std::uint16_t))));
    typedef std::uint8_t Byte __attribute__((vector_size(N)));
};
template <int N>
using Floats = typename VectorOf<N>::Float;
template <int N>
using Ints = typename VectorOf<N>::Int;
template <int N>
using Words = typename VectorOf<N>::Word;

template <int N>
inline Floats<N> as_floats(Words<N> bits) {
    return reinterpret_cast<Floats<N>>(bits);
}

template <int N>
inline Words<N> as_words(Floats<N> value) {
    return reinterpret_cast<Words<N>>(value);
}

// Two vectors of 8 as one of 16, and its halves. g++ 11 lacks the built-in function, and copies through memory.
template <class V16, class V8>
inline V16 joined(V8 a, V8 b) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    const V8 parts[] = {a, b};
    V16 both;
    __builtin_memcpy(&both, parts, sizeof both);
    return both;
#endif
}
template <class V8, class V16>
inline V8 lower_half(V16 both) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(both, both, 0, 1, 2, 3, 4, 5, 6, 7);
#else
    V8 half;
    __builtin_memcpy(&half, &both, sizeof half);
    return half;
#endif
}
template <class V8, class V16>
inline V8 upper_half(V16 both) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(both, both, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    V8 halves[2];
    __builtin_memcpy(halves, &both, sizeof halves);
    return halves[1];
#endif
}

template <int N>
inline Floats<N> load(const float* from) {
    Floats<N> value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

// Returns `b` if either is NaN. g++ compiles the comparison to two instructions, so intrinsics are used.
template <int N>
inline Floats<N> maximum(Floats<N> a, Floats<N> b) {
#if defined(__AVX512F__)
    if constexpr (N == 16) return _mm512_max_ps(a, b);
#endif
#if defined(__AVX2__)
    if constexpr (N == 8) return _mm256_max_ps(a, b);
#endif
    return a > b ? a : b;
}

template <int N>
inline Floats<N> minimum(Floats<N> a, Floats<N> b) {
#if defined(__AVX512F__)
    if constexpr (N == 16) return _mm512_min_ps(a, b);
#endif
#if defined(__AVX2__)
    if constexpr (N == 8) return _mm256_min_ps(a, b);
#endif
    return a < b ? a : b;
}

// Makes the compiler compute what follows from `value` after all stores before this. Zen 4 loses one to two cycles of
// multiply-adds of 512 bits with each store of a burst, into which compilers collect the stores of a tile.
template <int N>
inline void after_stores([[maybe_unused]] Floats<N>& value) {
#if defined(__AVX512F__)
    asm volatile("" : "+v"(value) : : "memory");
#endif
}

// Sums of lanes 2 j and 2 j + 1, those of `a` first. clang has no shuffle by a vector of indices.
template <int N>
inline Floats<N> neighbor_sums(Floats<N> a, Floats<N> b) {
#if defined(__AVX512F__)
    if constexpr (N == 16) {
        const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        return _mm512_permutex2var_ps(a, even, b) + _mm512_permutex2var_ps(a, odd, b);
    }
#endif
    Floats<N> sums{};
    for (int i = 0; i < N / 2; ++i) {
        sums[i] = a[2 * i] + a[2 * i + 1];
        sums[N / 2 + i] = b[2 * i] + b[2 * i + 1];
    }
    return sums;
}

// Lane i of the result is lane lanes[i] of `x`.
template <int N>
inline Floats<N> permuted(Floats<N> x, Ints<N> lanes) {
#if defined(__AVX512F__)
    if constexpr (N == 16) return _mm512_permutexvar_ps(__m512i(lanes), x);
#endif
#if defined(__AVX2__)
    if constexpr (N == 8) return _mm256_permutevar8x32_ps(x, __m256i(lanes));
#endif
    Floats<N> result{};
    for (int i = 0; i < N; ++i) result[i] = x[lanes[i]];
    return result;
}

// e^x to about 2 units in the last place: 2^n through the exponent bits, the remaining factor by a polynomial (Cephes'
// expf).
template <int N>
inline Floats<N> exponential(Floats<N> x) {
    const Floats<N> zero{};
    x = minimum<N>(maximum<N>(x, zero - 87.0f), zero + 88.0f);
    const Floats<N> scaled = x * 1.44269504f;
    const Ints<N> n = __builtin_convertvector(scaled + (scaled < zero ? zero - 0.5f : zero + 0.5f), Ints<N>);
    const Floats<N> rounded = __builtin_convertvector(n, Floats<N>);
    const Floats<N> r = (x - rounded * 0.693359375f) + rounded * 2.12194440e-4f;
    Floats<N> p = zero + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const Floats<N> mantissa = p * r * r + r + 1.0f;
    const Ints<N> bits = (n + 127) << 23;
    return mantissa * as_floats<N>(Words<N>(bits));
}

}  // namespace ghostnets::GHOSTNETS_ISA
