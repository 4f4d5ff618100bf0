// Pixels of channels to planes, one for each channel, and back.
#pragma once

#include "common/simd.hpp"
#include "kernels/kernels.hpp"

namespace ghostnets::GHOSTNETS_ISA {

// Copies 8 channels of 8 pixels.
inline void copy_block(const float* in, std::ptrdiff_t stride, float* out, std::ptrdiff_t plane) {
#if defined(__AVX2__)
    __m256 pairs[8], fours[8];  // interleaved channels of two pixels, and of four, in each half
    for (int i = 0; i < 8; i += 2) {
        const __m256 even = _mm256_loadu_ps(in + i * stride), odd = _mm256_loadu_ps(in + (i + 1) * stride);
        pairs[i] = _mm256_unpacklo_ps(even, odd);
        pairs[i + 1] = _mm256_unpackhi_ps(even, odd);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; ++j) {
            fours[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + 2 + j], 0x44);
            fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + 2 + j], 0xee);
        }
    for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(out + i * plane, _mm256_permute2f128_ps(fours[i], fours[4 + i], 0x20));
        _mm256_storeu_ps(out + (4 + i) * plane, _mm256_permute2f128_ps(fours[i], fours[4 + i], 0x31));
    }
#else
    for (int c = 0; c < 8; ++c)
        for (int p = 0; p < 8; ++p) out[c * plane + p] = in[p * stride + c];
#endif
}

// The last blocks overlap the ones before.
inline void copy_planes(const PlanesTask& task) {
    const auto copy = [&](int channel, int pixel) {
        copy_block(task.in + pixel * task.in_stride + channel, task.in_stride, task.out + channel * task.plane + pixel,
                   task.plane);
    };
    if (task.channels < 8 || task.pixels < 8) {
        for (int c = 0; c < task.channels; ++c)
            for (int p = 0; p < task.pixels; ++p) task.out[c * task.plane + p] = task.in[p * task.in_stride + c];
        return;
    }
    for (int c = 0; c < task.channels; c += 8)
        for (int p = 0; p < task.pixels; p += 8)
            copy(c + 8 < task.channels ? c : task.channels - 8, p + 8 < task.pixels ? p : task.pixels - 8);
}

template <int Planes>
inline void interleave_of(const float* in, std::ptrdiff_t plane, int pixels, float* out) {
    for (int p = 0; p < pixels; ++p)
        for (int c = 0; c < Planes; ++c) out[p * Planes + c] = in[c * plane + p];
}

inline void interleave(const float* in, std::ptrdiff_t plane, int planes, int pixels, float* out) {
    if (planes == 1) return interleave_of<1>(in, plane, pixels, out);
    if (planes == 3) return interleave_of<3>(in, plane, pixels, out);
    for (int c = 0; c < planes; ++c)
        for (int p = 0; p < pixels; ++p) out[p * planes + c] = in[c * plane + p];
}

}  // namespace ghostnets::GHOSTNETS_ISA
