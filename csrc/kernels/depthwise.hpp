// Depthwise convolutions: the Ghost module's cheap operation, and those between modules and in shortcuts.
//
// A tile is kTile neighbouring pixels of one output row x one vector of channels. Each input pixel is loaded once for a
// kernel row and used by every output that it contributes to. Pixels beyond the border of the map are skipped: for
// whole tiles at compile time (Left and Right are their numbers), otherwise by a check of each pixel.
#pragma once

#include "common/simd.hpp"
#include "kernels/activation.hpp"
#include "kernels/kernels.hpp"
#include "kernels/storage.hpp"

namespace ghostnets::GHOSTNETS_ISA {

constexpr int kTile = 7;

// Inlined, as all that reads sums must be: otherwise they would not stay in registers.
template <class T, int N>
[[gnu::always_inline]] inline void finish(const DepthwiseTask& task, const Floats<N>* sums, int count, int row, int x,
                                          int channel) {
    T* out = static_cast<T*>(task.out[row]) + x * task.out_stride + channel;
    const float clamp_min = task.clamp_min, slope = task.slope;
    const auto in_turn = [](Floats<N> sum) __attribute__((always_inline)) {
        if constexpr (kType<T> == Type::f32) after_stores<N>(sum);
        return sum;
    };
    if (task.binary == BinaryOp::none) {
        return with_stored_activation(task.activation, [&]<Activation kind>() __attribute__((always_inline)) {
#pragma GCC unroll 8
            for (int i = 0; i < count; ++i)
                store<N>(out + i * task.out_stride, stored<kind, N>(in_turn(sums[i]), clamp_min, slope));
        });
    }
    const T* other = static_cast<const T*>(task.other[row]) + x * task.other_stride + channel;
    const bool adds = task.binary == BinaryOp::add;
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i) {
        const Floats<N> value = maximum<N>(Floats<N>{} + clamp_min, in_turn(sums[i])),
                        operand = load<N>(other + i * task.other_stride);
        store<N>(out + i * task.out_stride, adds ? value + operand : value * operand);
    }
}

constexpr int kChecked = -1;

template <class T, int N, int Rows, int KH, int KW, int S, int Left, int Right>
void depthwise_tile(const DepthwiseTask& task, int x, int channel) {
    using F = Floats<N>;
    constexpr int kInputs = (kTile - 1) * S + KW;
    const int first = x * S - task.pad_w;
    const auto exists = [&](int j) {
        if (Left == kChecked) return first + j >= 0 && first + j < task.in_width;
        return j >= Left && j < kInputs - Right;
    };
    const auto* weights = static_cast<const float*>(task.weights);
    F sums[Rows][kTile];
#pragma GCC unroll 2
    for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
        for (int i = 0; i < kTile; ++i) sums[row][i] = load<N>(task.bias + channel);
#pragma GCC unroll 5
    for (int y = 0; y < KH + (Rows - 1) * S; ++y) {
        if (!task.rows[y]) continue;
        const T* in = static_cast<const T*>(task.rows[y]) + first * task.in_stride + channel;
        F pixels[kInputs];
#pragma GCC unroll 20
        for (int j = 0; j < kInputs; ++j) pixels[j] = exists(j) ? load<N>(in + j * task.in_stride) : F{};
#pragma GCC unroll 2
        for (int row = 0; row < Rows; ++row) {
            const int dy = y - row * S;
            if (dy < 0 || dy >= KH) continue;
#pragma GCC unroll 5
            for (int dx = 0; dx < KW; ++dx) {
                const F w = load<N>(weights + (dy * KW + dx) * task.weight_stride + channel);
#pragma GCC unroll 8
                for (int i = 0; i < kTile; ++i)
                    if (Left == kChecked || exists(i * S + dx)) sums[row][i] += w * pixels[i * S + dx];
            }
        }
    }
    const int count = Left == kChecked && x + kTile > task.out_width ? task.out_width - x : kTile;
#pragma GCC unroll 2
    for (int row = 0; row < Rows; ++row) finish<T, N>(task, sums[row], count, row, x, channel);
}

template <class T, int N, int Rows, int KH, int KW, int S>
inline void depthwise_channels(const DepthwiseTask& task, int channel) {
    constexpr int kPad = KW / 2;
    for (int x = 0; x < task.out_width; x += kTile) {
        const int first = x * S - kPad, last = (x + kTile - 1) * S - kPad + KW - 1;
        const int left = first < 0 ? -first : 0, right = last < task.in_width ? 0 : last - task.in_width + 1;
        if (task.pad_w != kPad || x + kTile > task.out_width || (left != 0 && left != kPad) || right > kPad) {
            depthwise_tile<T, N, Rows, KH, KW, S, kChecked, kChecked>(task, x, channel);
        } else if (right == 0) {
            left ? depthwise_tile<T, N, Rows, KH, KW, S, kPad, 0>(task, x, channel)
                 : depthwise_tile<T, N, Rows, KH, KW, S, 0, 0>(task, x, channel);
        } else if (right == kPad) {
            left ? depthwise_tile<T, N, Rows, KH, KW, S, kPad, kPad>(task, x, channel)
                 : depthwise_tile<T, N, Rows, KH, KW, S, 0, kPad>(task, x, channel);
        } else {
            left ? depthwise_tile<T, N, Rows, KH, KW, S, kPad, 1>(task, x, channel)
                 : depthwise_tile<T, N, Rows, KH, KW, S, 0, 1>(task, x, channel);
        }
    }
}

// Any kernel, stride and dilation, one pixel at a time.
template <class T, int N>
inline void depthwise_general(const DepthwiseTask& task, int channel) {
    const auto* weights = static_cast<const float*>(task.weights);
    for (int x = 0; x < task.out_width; ++x) {
        Floats<N> sum = load<N>(task.bias + channel);
        for (int dy = 0; dy < task.kernel_h; ++dy) {
            if (!task.rows[dy]) continue;
            for (int dx = 0; dx < task.kernel_w; ++dx) {
                const int column = x * task.stride - task.pad_w + dx * task.dilation_w;
                if (column < 0 || column >= task.in_width) continue;
                sum += load<N>(weights + (dy * task.kernel_w + dx) * task.weight_stride + channel) *
                       load<N>(static_cast<const T*>(task.rows[dy]) + column * task.in_stride + channel);
            }
        }
        finish<T, N>(task, &sum, 1, 0, x, channel);
    }
}

// Selects a specialised kernel for the sizes of the supported networks, and a general one for all others.
// `Kernel::fixed<N, Rows, KH, KW, S>` and `Kernel::general<N>` compute N channels from `channel` on.
template <class Kernel, int N>
inline void dispatch_depthwise(const DepthwiseTask& task, int channel) {
    const int h = task.kernel_h, w = task.kernel_w, s = task.stride;
    if (task.dilation_h != 1 || task.dilation_w != 1) return Kernel::template general<N>(task, channel);
    if (task.out_rows == 2) return Kernel::template fixed<N, 2, 3, 3, 1>(task, channel);
    if (h == 3 && w == 3 && s == 1) return Kernel::template fixed<N, 1, 3, 3, 1>(task, channel);
    if (h == 3 && w == 3 && s == 2) return Kernel::template fixed<N, 1, 3, 3, 2>(task, channel);
    if (h == 5 && w == 5 && s == 1) return Kernel::template fixed<N, 1, 5, 5, 1>(task, channel);
    if (h == 5 && w == 5 && s == 2) return Kernel::template fixed<N, 1, 5, 5, 2>(task, channel);
    if (h == 1 && w == 5 && s == 1) return Kernel::template fixed<N, 1, 1, 5, 1>(task, channel);
    if (h == 5 && w == 1 && s == 1) return Kernel::template fixed<N, 1, 5, 1, 1>(task, channel);
    return Kernel::template general<N>(task, channel);
}

// Runs a kernel over all channels: whole vectors, then a half vector if one remains.
template <class Kernel>
inline void run_depthwise(const DepthwiseTask& task) {
    int channel = 0;
    for (; channel + kWidth <= task.channels; channel += kWidth) dispatch_depthwise<Kernel, kWidth>(task, channel);
    if constexpr (kWidth > kChannelBlock) {
        if (channel < task.channels) dispatch_depthwise<Kernel, kChannelBlock>(task, channel);
    }
}

template <class T>
struct DepthwiseKernel {
    template <int N, int Rows, int KH, int KW, int S>
    static void fixed(const DepthwiseTask& task, int channel) {
        depthwise_channels<T, N, Rows, KH, KW, S>(task, channel);
    }
    template <int N>
    static void general(const DepthwiseTask& task, int channel) {
        depthwise_general<T, N>(task, channel);
    }
};

template <class T>
inline void depthwise_of(const DepthwiseTask& task) {
    run_depthwise<DepthwiseKernel<T>>(task);
}

}  // namespace ghostnets::GHOSTNETS_ISA
