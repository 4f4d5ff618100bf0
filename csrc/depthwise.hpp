// Depthwise convolutions: the cheap operation of the Ghost module, and the convolutions between modules and in shortcuts.
//
// A tile is kTile neighbouring pixels of one output row x one vector of channels. Each input pixel is loaded once for a
// kernel row and used by every output that it touches. Tiles inside the map check nothing; those at its left and right
// border load zeros for the pixels that are not there.
#pragma once

#include "activation.hpp"
#include "kernels.hpp"
#include "simd.hpp"

namespace ghostnets::GHOSTNETS_ISA {

constexpr int kTile = 7;

template <int N, int KH, int KW, int S, bool kInside>
inline void depthwise_tile(const DepthwiseTask& task, int x, int channel) {
    using F = Floats<N>;
    constexpr int kInputs = (kTile - 1) * S + KW;
    const int first = x * S - task.pad_w;
    F sums[kTile];
#pragma GCC unroll 8
    for (int i = 0; i < kTile; ++i) sums[i] = load<N>(task.bias + channel);
#pragma GCC unroll 5
    for (int dy = 0; dy < KH; ++dy) {
        if (!task.rows[dy]) continue;
        const float* in = task.rows[dy] + first * task.in_stride + channel;
        F pixels[kInputs];
#pragma GCC unroll 20
        for (int j = 0; j < kInputs; ++j) {
            const bool exists = kInside || (first + j >= 0 && first + j < task.in_width);
            pixels[j] = exists ? load<N>(in + j * task.in_stride) : F{};
        }
#pragma GCC unroll 5
        for (int dx = 0; dx < KW; ++dx) {
            const F w = load<N>(task.weights + (dy * KW + dx) * task.weight_stride + channel);
#pragma GCC unroll 8
            for (int i = 0; i < kTile; ++i) sums[i] += w * pixels[i * S + dx];
        }
    }
    float* out = task.out + x * task.out_stride + channel;
    const float* other = task.other ? task.other + x * task.other_stride + channel : nullptr;
#pragma GCC unroll 8
    for (int i = 0; i < kTile; ++i) {
        if (!kInside && x + i >= task.out_width) break;
        const F value = activate<N>(sums[i], task.activation);
        store<N>(out + i * task.out_stride, combined<N>(value, task.combine, other + i * task.other_stride));
    }
}

template <int N, int KH, int KW, int S>
inline void depthwise_channels(const DepthwiseTask& task, int channel) {
    for (int x = 0; x < task.out_width; x += kTile) {
        const int first = x * S - task.pad_w, last = (x + kTile - 1) * S - task.pad_w + KW - 1;
        if (first >= 0 && last < task.in_width && x + kTile <= task.out_width) {
            depthwise_tile<N, KH, KW, S, true>(task, x, channel);
        } else {
            depthwise_tile<N, KH, KW, S, false>(task, x, channel);
        }
    }
}

// Any kernel, stride and dilation, one pixel at a time.
template <int N>
inline void depthwise_general(const DepthwiseTask& task, int channel) {
    for (int x = 0; x < task.out_width; ++x) {
        Floats<N> sum = load<N>(task.bias + channel);
        for (int dy = 0; dy < task.kernel_h; ++dy) {
            if (!task.rows[dy]) continue;
            for (int dx = 0; dx < task.kernel_w; ++dx) {
                const int column = x * task.stride - task.pad_w + dx * task.dilation;
                if (column < 0 || column >= task.in_width) continue;
                sum += load<N>(task.weights + (dy * task.kernel_w + dx) * task.weight_stride + channel) *
                       load<N>(task.rows[dy] + column * task.in_stride + channel);
            }
        }
        const float* other = task.other ? task.other + x * task.other_stride + channel : nullptr;
        const Floats<N> value = combined<N>(activate<N>(sum, task.activation), task.combine, other);
        store<N>(task.out + x * task.out_stride + channel, value);
    }
}

template <int N>
inline void depthwise_vector(const DepthwiseTask& task, int channel) {
    const int h = task.kernel_h, w = task.kernel_w, s = task.stride;
    if (task.dilation != 1) return depthwise_general<N>(task, channel);
    if (h == 3 && w == 3 && s == 1) return depthwise_channels<N, 3, 3, 1>(task, channel);
    if (h == 3 && w == 3 && s == 2) return depthwise_channels<N, 3, 3, 2>(task, channel);
    if (h == 5 && w == 5 && s == 1) return depthwise_channels<N, 5, 5, 1>(task, channel);
    if (h == 5 && w == 5 && s == 2) return depthwise_channels<N, 5, 5, 2>(task, channel);
    if (h == 1 && w == 5 && s == 1) return depthwise_channels<N, 1, 5, 1>(task, channel);
    if (h == 5 && w == 1 && s == 1) return depthwise_channels<N, 5, 1, 1>(task, channel);
    return depthwise_general<N>(task, channel);
}

inline void depthwise(const DepthwiseTask& task) {
    int channel = 0;
    for (; channel + kWidth <= task.channels; channel += kWidth) depthwise_vector<kWidth>(task, channel);
    if constexpr (kWidth > kChannelBlock) {
        if (channel < task.channels) depthwise_vector<kChannelBlock>(task, channel);
    }
}

}  // namespace ghostnets::GHOSTNETS_ISA
