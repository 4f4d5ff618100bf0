// Elementwise operations and reductions: residual sums, gates, pooling, upsampling, activations, sums and means.
#pragma once

#include "common/simd.hpp"
#include "kernels/activation.hpp"
#include "kernels/kernels.hpp"
#include "kernels/storage.hpp"

namespace ghostnets::GHOSTNETS_ISA {

constexpr int kBlock = kWidth < kChannelBlock ? kWidth : kChannelBlock;  // channels come in multiples of 8

// Calls visit(channel) for whole vectors, then for the half one that may be left.
template <template <class, int> class Visitor, class T, class Task>
inline void over_channels_of(const Task& task) {
    int channel = 0;
    for (; channel + kWidth <= task.channels; channel += kWidth) Visitor<T, kWidth>::visit(task, channel);
    if (kWidth > kBlock && channel < task.channels) Visitor<T, kBlock>::visit(task, channel);
}

template <template <class, int> class Visitor, class Task>
inline void over_channels(const Task& task) {
    with_type(task.type, [&](auto value) { over_channels_of<Visitor, decltype(value)>(task); });
}

template <class T, int N>
struct BinaryVector {
    // Channels are the outer loop: there are often only one or two vectors of them.
    template <class B, BinaryOp kind>
    static void pixels(const BinaryTask& task, int c) {
        constexpr bool kScales = kType<T> == Type::u8;
        const T* a = static_cast<const T*>(task.a) + c;
        const B* b = static_cast<const B*>(task.b) + c;
        T* out = static_cast<T*>(task.out) + c;
        Floats<N> a_scale{}, b_scale{}, shift{}, b_shift{};
        if constexpr (kScales) {
            a_scale = load<N>(task.a_scale + c);
            b_scale = load<N>(task.b_scale + c);
            shift = load<N>(task.shift + c);
            if (kind == BinaryOp::multiply && kType<B> == Type::u8) b_shift = load<N>(task.b_shift + c);
        }
        const Floats<N> clamp_min = Floats<N>{} + task.clamp_min;
#pragma GCC unroll 4
        for (int p = 0; p < task.pixels; ++p) {
            const Floats<N> x = load<N>(a + p * task.a_stride), y = load<N>(b + p * task.b_stride);
            Floats<N> value;
            if constexpr (kScales)
                value = kind == BinaryOp::add ? x * a_scale + (y * b_scale + shift)
                                              : (x * a_scale + shift) * (y + b_shift) + b_scale;
            else value = kind == BinaryOp::add ? x + y : x * y;
            store<N>(out + p * task.out_stride, maximum<N>(clamp_min, value));
        }
    }

    static void visit(const BinaryTask& task, int c) {
        if constexpr (kType<T> == Type::u8)
            if (task.b_type == Type::bf16)
                return task.binary == BinaryOp::add ? pixels<BFloat16, BinaryOp::add>(task, c)
                                                    : pixels<BFloat16, BinaryOp::multiply>(task, c);
        task.binary == BinaryOp::add ? pixels<T, BinaryOp::add>(task, c) : pixels<T, BinaryOp::multiply>(task, c);
    }
};

inline void binary(const BinaryTask& task) { over_channels<BinaryVector>(task); }

template <class In, int N>
struct Convert {
    template <class Out>
    static void pixels(const ConvertTask& task, int c) {
        const In* in = static_cast<const In*>(task.in) + c;
        Out* out = static_cast<Out*>(task.out) + c;
        Floats<N> scale = Floats<N>{} + 1.0f, shift{};
        if (task.scale) {
            scale = load<N>(task.scale + c);
            shift = load<N>(task.shift + c);
        }
        for (int p = 0; p < task.pixels; ++p)
            store<N>(out + p * task.out_stride, load<N>(in + p * task.in_stride) * scale + shift);
    }

    static void visit(const ConvertTask& task, int c) {
        with_type(task.out_type, [&](auto value) { pixels<decltype(value)>(task, c); });
    }
};

inline void convert(const ConvertTask& task) {
    with_type(task.in_type, [&](auto value) { over_channels_of<Convert, decltype(value)>(task); });
}

template <class T, int N>
struct AveragePool {
    static void visit(const AveragePoolTask& task, int c) {
        const float scale = 1.0f / float(task.row_count * task.window_w);
        for (int x = 0; x < task.out_width; ++x) {
            Floats<N> sum{};
            for (int y = 0; y < task.row_count; ++y)
                for (int i = 0; i < task.window_w; ++i)
                    sum += load<N>(static_cast<const T*>(task.rows[y]) + (x * task.window_w + i) * task.stride + c);
            store<N>(static_cast<T*>(task.out) + x * task.stride + c, sum * scale);
        }
    }
};

inline void average_pool(const AveragePoolTask& task) { over_channels<AveragePool>(task); }

template <class T, int N>
struct WindowAverage {
    static void visit(const WindowAverageTask& task, int c) {
        int rows = 0;
        for (int y = 0; y < task.row_count; ++y) rows += task.rows[y] != nullptr;
        for (int x = 0; x < task.out_width; ++x) {
            const int begin = task.columns[2 * x], end = task.columns[2 * x + 1];
            Floats<N> sum{};
            for (int y = 0; y < task.row_count; ++y) {
                if (!task.rows[y]) continue;
                Floats<N> row{};  // sums of sums: a map has many pixels
                for (int i = begin; i < end; ++i)
                    row += load<N>(static_cast<const T*>(task.rows[y]) + i * task.stride + c);
                sum += row;
            }
            const int pixels = rows * (end - begin);
            const int divisor = task.divisor ? task.divisor : pixels > 0 ? pixels : 1;
            const Floats<N> mean = (sum - task.zero * float(pixels)) / (Floats<N>{} + float(divisor));
            store<N>(static_cast<T*>(task.out) + x * task.stride + c, mean * task.scale + task.shift);
        }
    }
};

inline void window_average(const WindowAverageTask& task) { over_channels<WindowAverage>(task); }

template <class T, int N>
struct Bilinear {
    static void visit(const BilinearTask& task, int c) {
        const Floats<N> lower = Floats<N>{} + task.row_weight, upper = 1.0f - lower;
        const auto* first = static_cast<const T*>(task.rows[0]) + c;
        const auto* second = static_cast<const T*>(task.rows[1]) + c;
        for (int x = 0; x < task.out_width; ++x) {
            const std::ptrdiff_t left = task.columns[2 * x] * task.stride,
                                 right = task.columns[2 * x + 1] * task.stride;
            const Floats<N> later = Floats<N>{} + task.column_weights[x], earlier = 1.0f - later;
            const Floats<N> above = load<N>(first + left) * earlier + load<N>(first + right) * later;
            const Floats<N> below = load<N>(second + left) * earlier + load<N>(second + right) * later;
            store<N>(static_cast<T*>(task.out) + x * task.stride + c, above * upper + below * lower);
        }
    }
};

inline void bilinear(const BilinearTask& task) { over_channels<Bilinear>(task); }

template <class T, int N>
struct MaxPool {
    static void visit(const MaxPoolTask& task, int c) {
        for (int x = 0; x < task.out_width; ++x) {
            Floats<N> best = Floats<N>{} - __builtin_inff();
            for (int y = 0; y < task.kernel_h; ++y) {
                if (!task.rows[y]) continue;
                for (int dx = 0; dx < task.kernel_w; ++dx) {
                    const int column = x * task.stride - task.pad_w + dx * task.dilation;
                    if (column < 0 || column >= task.in_width) continue;
                    const T* pixel = static_cast<const T*>(task.rows[y]) + column * task.pixel_stride + c;
                    best = maximum<N>(load<N>(pixel), best);
                }
            }
            store<N>(static_cast<T*>(task.out) + x * task.pixel_stride + c, best);
        }
    }
};

inline void max_pool(const MaxPoolTask& task) { over_channels<MaxPool>(task); }

template <class T, int N>
struct Activate {
    static void visit(const ActivateTask& task, int c) {
        for (int p = 0; p < task.pixels; ++p) {
            T* value = static_cast<T*>(task.values) + p * task.stride + c;
            if constexpr (kType<T> == Type::u8)
                for (int i = 0; i < N; ++i) value[i] = task.table[value[i]];
            else store<N>(value, activated<N>(load<N>(value), task.activation, task.slope));
        }
    }
};

inline void activate(const ActivateTask& task) { over_channels<Activate>(task); }

template <class T, int N>
struct UpsampleNearest {
    static void visit(const UpsampleTask& task, int c) {
        for (int p = 0; p < task.pixels; ++p)
            store<N>(static_cast<T*>(task.out) + p * task.out_stride + c,
                     load<N>(static_cast<const T*>(task.in) + task.columns[p] * task.in_stride + c));
    }
};

inline void upsample_nearest(const UpsampleTask& task) { over_channels<UpsampleNearest>(task); }

template <class T, int N>
inline void move_channels(const ArrangeTask& task, const ArrangeMove& move) {
    const T* in = static_cast<const T*>(task.in) + move.from;
    T* out = static_cast<T*>(task.out) + move.to;
    Ints<N> sources, mask;
    __builtin_memcpy(&sources, move.sources, sizeof sources);
    __builtin_memcpy(&mask, move.mask, sizeof mask);
    for (int p = 0; p < task.pixels; ++p, in += task.in_stride, out += task.out_stride)
        store<N>(out, mask ? permuted<N>(load<N>(in), sources) : load<N>(out));
}

inline void arrange(const ArrangeTask& task) {
    with_type(task.type, [&](auto value) {
        using T = decltype(value);
        for (int i = 0; i < task.move_count; ++i) {
            const ArrangeMove& move = task.moves[i];
            move.lanes == kWidth ? move_channels<T, kWidth>(task, move) : move_channels<T, kBlock>(task, move);
        }
    });
}

template <class T, int N>
struct Sum {
    static void visit(const SumTask& task, int c) {
        Floats<N> even{}, odd{};  // two chains: an addition takes several cycles
        const T* in = static_cast<const T*>(task.in) + c;
        int p = 0;
        for (; p + 2 <= task.pixels; p += 2) {
            even += load<N>(in + p * task.stride);
            odd += load<N>(in + (p + 1) * task.stride);
        }
        if (p < task.pixels) even += load<N>(in + p * task.stride);
        Floats<N> total = even + odd;
        if (task.accumulate) total += load<N>(task.out + c);
        store<N>(task.out + c, total);
    }
};

inline void sum(const SumTask& task) { over_channels<Sum>(task); }

template <class T, int N>
struct Mean {
    static void visit(const MeanTask& task, int c) {
        Floats<N> total{};
        for (int slot = 0; slot < task.slots; ++slot) total += load<N>(task.in + slot * task.stride + c);
        total *= task.scale;
        if (task.channel_scale) total = total * load<N>(task.channel_scale + c) + load<N>(task.shift + c);
        store<N>(static_cast<T*>(task.out) + c, total);
    }
};

inline void mean(const MeanTask& task) { over_channels<Mean>(task); }

inline void normalize(const std::uint8_t* in, const float* scale, const float* shift, int count, float* out) {
    for (int i = 0; i < count; ++i) out[i] = float(in[i]) * scale[i] + shift[i];
}

}  // namespace ghostnets::GHOSTNETS_ISA
