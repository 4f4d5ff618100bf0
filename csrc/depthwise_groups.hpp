// Depthwise convolutions of bfloat16 and bytes: neighbouring rows are stacked into groups of 32 bits, so that one
// instruction multiplies two or four taps of a kernel column.
//
// A tile is kTile pixels x N channels of one or two output rows. Two output rows need the same stacks of input rows, and
// differ in their weights: those of the second are one row further down. Where but 8 channels are left of a vector of
// 16, its other half is the second output row (it is `folded`). Pixels that do not exist are `pad`.
#pragma once

#include "depthwise.hpp"
#include "groups.hpp"
#include "kernels.hpp"
#include "simd.hpp"
#include "storage.hpp"

namespace ghostnets::GHOSTNETS_ISA {

// L lanes of constants, of N channels.
template <int L, int N>
inline Floats<L> constants(const float* from) {
    Floats<L> values;
    for (int i = 0; i < L; i += N) __builtin_memcpy(reinterpret_cast<float*>(&values) + i, from, N * sizeof(float));
    return values;
}

// From sums to stored outputs, of one channel block.
template <class T, int L, int N>
struct Finish {
    const DepthwiseTask& task;
    const int channel;
    Floats<L> bias, scale{}, other_scale{}, shift{};

    Finish(const DepthwiseTask& task, int channel)
        : task(task), channel(channel), bias(constants<L, N>(task.bias + channel)) {
        if (kType<T> != Type::u8) return;
        scale = constants<L, N>(task.scale + channel);
        if (task.combine == Combine::none) return;
        other_scale = constants<L, N>(task.other_scale + channel);
        shift = constants<L, N>(task.shift + channel);
    }

    typename Product<T>::template Sum<L> first() const {
        if constexpr (kType<T> == Type::u8) return Ints<L>{};
        else return bias;
    }

    // L = 2 N lanes are two rows, `row` and the next one.
    void store_pixel(typename Product<T>::template Sum<L> sum, int row, int x) const {
        Floats<L> value;
        if constexpr (kType<T> == Type::u8) value = __builtin_convertvector(sum, Floats<L>) * scale + bias;
        else value = sum;
        value = maximum<L>(Floats<L>{} + task.least, value);
        if (task.combine != Combine::none) {
            decltype(raw<L>(static_cast<const T*>(nullptr))) narrow;
            for (int i = 0; i < L / N; ++i)
                __builtin_memcpy(reinterpret_cast<T*>(&narrow) + i * N,
                                 static_cast<const T*>(task.other[row + i]) + x * task.other_stride + channel, N * sizeof(T));
            Floats<L> other = widened<L>(narrow);
            if constexpr (kType<T> == Type::u8) {
                value = task.combine == Combine::add ? value + (other * other_scale + shift)
                                                     : value * other * other_scale + shift;
            } else {
                value = task.combine == Combine::add ? value + other : value * other;
            }
        }
        const auto narrow = narrowed<L>(value, T{});
        for (int i = 0; i < L / N; ++i)
            __builtin_memcpy(static_cast<T*>(task.out[row + i]) + x * task.out_stride + channel,
                             reinterpret_cast<const T*>(&narrow) + i * N, N * sizeof(T));
    }
};

// Where the rows of a stack begin, at one column and channel.
template <class T>
struct Stack {
    static constexpr int kRows = group_of(kType<T>);
    const T* rows[kRows];
    std::ptrdiff_t steps[kRows];  // 0 for rows that do not exist: their pixels are all the same

    Stack(const DepthwiseTask& task, int first_row, int row_count, int column, int channel) {
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) {
            const int y = first_row + i;
            const void* row = y < row_count ? task.rows[y] : nullptr;
            steps[i] = row ? task.in_stride : 0;
            rows[i] = static_cast<const T*>(row ? row : task.pad) + column * steps[i] + channel;
        }
    }

    template <int L, int N>
    Words<L> at(int column) const {
        const T* pixels[kRows];
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) pixels[i] = rows[i] + column * steps[i];
        if constexpr (L == N) return stacked<N, T>(pixels);
        else return folded(pixels);
    }
};

template <class T, int N, bool Folds, int Rows, int KH, int KW, int S, bool IsInside>
void group_tile(const DepthwiseTask& task, int x, int channel) {
    constexpr int L = Folds ? 2 * N : N, kSums = Folds ? 1 : Rows;
    constexpr int kInputs = (kTile - 1) * S + KW, kRows = KH + (Rows - 1) * S;
    constexpr int kStep = pairs_rows(KH, KW, S, 1) ? 2 : 1;
    constexpr int kStacks = stacks_of(kType<T>, KH, kStep);
    const int first = x * S - task.pad_w;
    const Finish<T, L, N> finish(task, channel);
    const auto* weights = static_cast<const std::uint32_t*>(task.weights) + channel * (kStacks * KW * kStep);
    const Words<L> pad = Stack<T>(task, 0, 0, 0, channel).template at<L, N>(0);

    typename Product<T>::template Sum<L> sums[kSums][kTile];
#pragma GCC unroll 2
    for (int row = 0; row < kSums; ++row)
#pragma GCC unroll 8
        for (int i = 0; i < kTile; ++i) sums[row][i] = finish.first();
#pragma GCC unroll 3
    for (int q = 0; q < kStacks; ++q) {
        const Stack<T> stack(task, q * Stack<T>::kRows, kRows, first, channel);
        Words<L> pixels[kInputs];
#pragma GCC unroll 20
        for (int j = 0; j < kInputs; ++j)
            pixels[j] = IsInside || (first + j >= 0 && first + j < task.in_width) ? stack.template at<L, N>(j) : pad;
#pragma GCC unroll 5
        for (int dx = 0; dx < KW; ++dx)
#pragma GCC unroll 2
            for (int row = 0; row < kSums; ++row) {
                Words<L> w;
                __builtin_memcpy(&w, weights + ((q * KW + dx) * kStep + row) * N, sizeof w);
#pragma GCC unroll 8
                for (int i = 0; i < kTile; ++i)
                    sums[row][i] = Product<T>::template add<L>(sums[row][i], pixels[i * S + dx], w);
            }
    }
    const int count = IsInside || x + kTile <= task.out_width ? kTile : task.out_width - x;
#pragma GCC unroll 2
    for (int row = 0; row < kSums; ++row)
#pragma GCC unroll 8
        for (int i = 0; i < kTile; ++i)
            if (IsInside || i < count) finish.store_pixel(sums[row][i], row, x + i);
}

template <class T, int N, int Rows, int KH, int KW, int S>
inline void group_channels(const DepthwiseTask& task, int channel) {
    constexpr bool kFolds = N == 8 && kWidth == 16 && Rows == 2;
    for (int x = 0; x < task.out_width; x += kTile) {
        const int first = x * S - KW / 2, end = first + (kTile - 1) * S + KW;
        const bool is_inside = first >= 0 && end <= task.in_width && x + kTile <= task.out_width;
        is_inside ? group_tile<T, N, kFolds, Rows, KH, KW, S, true>(task, x, channel)
                  : group_tile<T, N, kFolds, Rows, KH, KW, S, false>(task, x, channel);
    }
}

// Any kernel, stride and dilation, one pixel at a time.
template <class T, int N>
inline void group_general(const DepthwiseTask& task, int channel) {
    const int step = pairs_rows(task.kernel_h, task.kernel_w, task.stride, task.dilation) ? 2 : 1;
    const int stacks = stacks_of(kType<T>, task.kernel_h, step);
    const Finish<T, N, N> finish(task, channel);
    const auto* weights = static_cast<const std::uint32_t*>(task.weights) + channel * (stacks * task.kernel_w * step);
    for (int x = 0; x < task.out_width; ++x) {
        auto sum = finish.first();
        for (int q = 0; q < stacks; ++q)
            for (int dx = 0; dx < task.kernel_w; ++dx) {
                const int column = x * task.stride - task.pad_w + dx * task.dilation;
                const bool exists = column >= 0 && column < task.in_width;
                const Stack<T> stack(task, q * Stack<T>::kRows, exists ? task.kernel_h : 0, column, channel);
                Words<N> w;
                __builtin_memcpy(&w, weights + (q * task.kernel_w + dx) * step * N, sizeof w);
                sum = Product<T>::template add<N>(sum, stack.template at<N, N>(0), w);
            }
        finish.store_pixel(sum, 0, x);
    }
}

template <class T, int N>
inline void group_vector(const DepthwiseTask& task, int channel) {
    const int h = task.kernel_h, w = task.kernel_w, s = task.stride;
    if (task.dilation != 1) return group_general<T, N>(task, channel);
    if (task.out_rows == 2) return group_channels<T, N, 2, 3, 3, 1>(task, channel);
    if (h == 3 && w == 3 && s == 1) return group_channels<T, N, 1, 3, 3, 1>(task, channel);
    if (h == 3 && w == 3 && s == 2) return group_channels<T, N, 1, 3, 3, 2>(task, channel);
    if (h == 5 && w == 5 && s == 1) return group_channels<T, N, 1, 5, 5, 1>(task, channel);
    if (h == 5 && w == 5 && s == 2) return group_channels<T, N, 1, 5, 5, 2>(task, channel);
    if (h == 1 && w == 5 && s == 1) return group_channels<T, N, 1, 1, 5, 1>(task, channel);
    if (h == 5 && w == 1 && s == 1) return group_channels<T, N, 1, 5, 1, 1>(task, channel);
    return group_general<T, N>(task, channel);
}

template <class T>
inline void depthwise_by_groups(const DepthwiseTask& task) {
    int channel = 0;
    for (; channel + kWidth <= task.channels; channel += kWidth) group_vector<T, kWidth>(task, channel);
    if constexpr (kWidth > kChannelBlock) {
        if (channel < task.channels) group_vector<T, kChannelBlock>(task, channel);
    }
}

}  // namespace ghostnets::GHOSTNETS_ISA
