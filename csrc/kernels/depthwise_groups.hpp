// Depthwise convolutions of bfloat16 and bytes: neighbouring rows are stacked into groups of 32 bits, so that one
// instruction multiplies two or four taps of a kernel column.
//
// A tile is kTile pixels x N channels of one or two output rows. Two output rows use the same stacks of input rows
// with different weights: those of the second are shifted down by one row. If only 8 channels are left of a vector of
// 16, its other half is the second output row (it is `folded`). Pixels outside the map have the value `pad`.
#pragma once

#include "common/simd.hpp"
#include "kernels/activation.hpp"
#include "kernels/depthwise.hpp"
#include "kernels/groups.hpp"
#include "kernels/kernels.hpp"
#include "kernels/storage.hpp"

namespace ghostnets::GHOSTNETS_ISA {

// Constants of N channels in L lanes: once, or twice if L = 2 N.
template <int L, int N>
inline Floats<L> constants(const float* from) {
    if constexpr (L == N) return load<N>(from);
    else return joined<Floats<L>>(load<N>(from), load<N>(from));
}

// Converts sums to stored outputs, for one block of channels. L = 2 N lanes are two rows.
template <class T, int L, int N>
struct Finish {
    using Sum = typename Product<T>::template Sum<L>;
    using Half = decltype(raw<N>(static_cast<const T*>(nullptr)));
    using Narrow = decltype(narrowed<L>(Floats<L>{}, T{}));
    static constexpr bool kCounts = kType<T> == Type::u8;
    const DepthwiseTask& task;
    const int channel;
    Floats<L> bias, scale{}, other_scale{}, shift{};

    Finish(const DepthwiseTask& task, int channel)
        : task(task), channel(channel), bias(constants<L, N>(task.bias + channel)) {
        if (!kCounts) return;
        scale = constants<L, N>(task.scale + channel);
        if (task.binary == BinaryOp::none) return;
        other_scale = constants<L, N>(task.other_scale + channel);
        shift = constants<L, N>(task.shift + channel);
    }

    Sum first() const {
        if constexpr (kCounts) return Sum{};
        else return bias;
    }

    static Floats<L> operand(const T* const* from, std::ptrdiff_t at) {
        if constexpr (L == N) return widened<L>(raw<N>(from[0] + at));
        else return widened<L>(joined<Narrow>(raw<N>(from[0] + at), raw<N>(from[1] + at)));
    }

    static void store_narrow(T* const* to, std::ptrdiff_t at, Narrow values) {
        if constexpr (L == N) {
            __builtin_memcpy(to[0] + at, &values, sizeof values);
        } else {
            const auto first = lower_half<Half>(values), second = upper_half<Half>(values);
            __builtin_memcpy(to[0] + at, &first, sizeof first);
            __builtin_memcpy(to[1] + at, &second, sizeof second);
        }
    }

    template <BinaryOp kind, Activation activation = Activation::none>
    [[gnu::always_inline]] void store_all(const Sum* sums, int count, int row, int x) const {
        // Copies of fields of `task`: the compiler must assume that a store of bytes may alias them.
        const std::ptrdiff_t stride = task.out_stride, other_stride = task.other_stride;
        const auto start = [&](void* map, std::ptrdiff_t step) { return static_cast<T*>(map) + x * step + channel; };
        T* const out[2] = {start(task.out[row], stride), L == N ? nullptr : start(task.out[1], stride)};
        const T* other[2] = {};
        if constexpr (kind != BinaryOp::none)
            for (int i = 0; i < L / N; ++i) other[i] = start(const_cast<void*>(task.other[row + i]), other_stride);
        const float clamp_min = task.clamp_min, slope = task.slope;
#pragma GCC unroll 8
        for (int i = 0; i < kTile; ++i) {
            if (i >= count) return;
            Floats<L> value;
            if constexpr (kCounts) value = __builtin_convertvector(sums[i], Floats<L>) * scale + bias;
            else value = sums[i];
            value = stored<activation, L>(value, clamp_min, slope);
            if constexpr (kind == BinaryOp::add) {
                const Floats<L> more = operand(other, i * other_stride);
                value += kCounts ? more * other_scale + shift : more;
            } else if constexpr (kind == BinaryOp::multiply) {
                value *= operand(other, i * other_stride);
                if (kCounts) value = value * other_scale + shift;
            }
            store_narrow(out, i * stride, narrowed<L>(value, T{}));
        }
    }

    [[gnu::always_inline]] void store(const Sum* sums, int count, int row, int x) const {
        switch (task.binary) {
            case BinaryOp::none: break;
            case BinaryOp::add: return store_all<BinaryOp::add>(sums, count, row, x);
            case BinaryOp::multiply: return store_all<BinaryOp::multiply>(sums, count, row, x);
        }
        if constexpr (kCounts) {
            store_all<BinaryOp::none>(sums, count, row, x);
        } else {
            with_stored_activation(task.activation, [&]<Activation activation>() __attribute__((always_inline)) {
                store_all<BinaryOp::none, activation>(sums, count, row, x);
            });
        }
    }
};

// The rows of a stack from one column and channel on. Rows outside the map repeat the pixel `pad`, with a step of 0;
// inside the map all steps are equal.
template <class T, bool IsInside>
struct Stack {
    static constexpr int kRows = group_of(kType<T>);
    const T* rows[kRows];
    std::ptrdiff_t step, steps[kRows];

    Stack(const DepthwiseTask& task, int first_row, int row_count, int column, int channel) : step(task.in_stride) {
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) {
            if constexpr (IsInside) {  // weights beyond the last row are 0
                const int y = first_row + i < row_count ? first_row + i : row_count - 1;
                rows[i] = static_cast<const T*>(task.rows[y]) + column * step + channel;
            } else {
                const void* row = first_row + i < row_count ? task.rows[first_row + i] : nullptr;
                steps[i] = row ? step : 0;
                rows[i] = static_cast<const T*>(row ? row : task.pad) + column * steps[i] + channel;
            }
        }
    }

    template <int L, int N>
    Words<L> at(int column) const {
        const T* pixels[kRows];
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) pixels[i] = rows[i] + column * (IsInside ? step : steps[i]);
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
    const Words<L> pad = IsInside ? Words<L>{} : Stack<T, false>(task, 0, 0, 0, channel).template at<L, N>(0);

    const auto weights_of = [&](int q, int dx, int row) {
        Words<L> w;
        __builtin_memcpy(&w, weights + ((q * KW + dx) * kStep + row) * N, sizeof w);
        return w;
    };
    typename Product<T>::template Sum<L> sums[kSums][kTile];
#pragma GCC unroll 2
    for (int row = 0; row < kSums; ++row) {
        auto first = finish.first();
        if constexpr (kType<T> == Type::u8 && kSignedBytes)
            for (int q = 0; q < kStacks; ++q)
                for (int dx = 0; dx < KW; ++dx) first = Product<T>::add_offset(first, weights_of(q, dx, row));
#pragma GCC unroll 8
        for (int i = 0; i < kTile; ++i) sums[row][i] = first;
    }
#pragma GCC unroll 3
    for (int q = 0; q < kStacks; ++q) {
        const Stack<T, IsInside> stack(task, q * group_of(kType<T>), kRows, first, channel);
        Words<L> pixels[kInputs];
#pragma GCC unroll 20
        for (int j = 0; j < kInputs; ++j)
            pixels[j] = IsInside || (first + j >= 0 && first + j < task.in_width) ? stack.template at<L, N>(j) : pad;
#pragma GCC unroll 5
        for (int dx = 0; dx < KW; ++dx)
#pragma GCC unroll 2
            for (int row = 0; row < kSums; ++row) {
                const Words<L> w = weights_of(q, dx, row);
#pragma GCC unroll 8
                for (int i = 0; i < kTile; ++i)
                    sums[row][i] = Product<T>::template add<L>(sums[row][i], pixels[i * S + dx], w);
            }
    }
    const int count = IsInside || x + kTile <= task.out_width ? kTile : task.out_width - x;
#pragma GCC unroll 2
    for (int row = 0; row < kSums; ++row) finish.store(sums[row], count, row, x);
}

template <class T, int N, int Rows, int KH, int KW, int S>
inline void group_channels(const DepthwiseTask& task, int channel) {
    constexpr bool kFolds = N == 8 && kWidth == 16 && Rows == 2;
    bool has_rows = true;
    for (int y = 0; y < KH + (Rows - 1) * S; ++y) has_rows &= task.rows[y] != nullptr;
    for (int x = 0; x < task.out_width; x += kTile) {
        const int first = x * S - task.pad_w, end = first + (kTile - 1) * S + KW;
        const bool is_inside = has_rows && first >= 0 && end <= task.in_width && x + kTile <= task.out_width;
        is_inside ? group_tile<T, N, kFolds, Rows, KH, KW, S, true>(task, x, channel)
                  : group_tile<T, N, kFolds, Rows, KH, KW, S, false>(task, x, channel);
    }
}

// Any kernel, stride and dilation, one pixel at a time.
template <class T, int N>
inline void group_general(const DepthwiseTask& task, int channel) {
    const int dilation = task.dilation_h > task.dilation_w ? task.dilation_h : task.dilation_w;
    const int step = pairs_rows(task.kernel_h, task.kernel_w, task.stride, dilation) ? 2 : 1;
    const int stacks = stacks_of(kType<T>, task.kernel_h, step);
    const Finish<T, N, N> finish(task, channel);
    const auto* weights = static_cast<const std::uint32_t*>(task.weights) + channel * (stacks * task.kernel_w * step);
    for (int x = 0; x < task.out_width; ++x) {
        auto sum = finish.first();
        for (int q = 0; q < stacks; ++q)
            for (int dx = 0; dx < task.kernel_w; ++dx) {
                const int column = x * task.stride - task.pad_w + dx * task.dilation_w;
                const bool exists = column >= 0 && column < task.in_width;
                const Stack<T, false> stack(task, q * group_of(kType<T>), exists ? task.kernel_h : 0, column, channel);
                Words<N> w;
                __builtin_memcpy(&w, weights + (q * task.kernel_w + dx) * step * N, sizeof w);
                sum = Product<T>::template add<N>(sum, stack.template at<N, N>(0), w);
                if constexpr (kType<T> == Type::u8 && kSignedBytes) sum = Product<T>::add_offset(sum, w);
            }
        finish.store(&sum, 1, 0, x);
    }
}

template <class T>
struct DepthwiseGroupKernel {
    template <int N, int Rows, int KH, int KW, int S>
    static void fixed(const DepthwiseTask& task, int channel) {
        group_channels<T, N, Rows, KH, KW, S>(task, channel);
    }
    template <int N>
    static void general(const DepthwiseTask& task, int channel) {
        group_general<T, N>(task, channel);
    }
};

template <class T>
inline void depthwise_by_groups(const DepthwiseTask& task) {
    run_depthwise<DepthwiseGroupKernel<T>>(task);
}

}  // namespace ghostnets::GHOSTNETS_ISA
