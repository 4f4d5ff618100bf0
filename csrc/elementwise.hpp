// What touches every value once: residual sums and gates, sums for means, average pooling, normalisation of bytes.
#pragma once

#include "activation.hpp"
#include "kernels.hpp"
#include "simd.hpp"

namespace ghostnets::GHOSTNETS_ISA {

constexpr int kBlock = kWidth < kChannelBlock ? kWidth : kChannelBlock;  // channels come in multiples of 8

// Calls visit(channel) for whole vectors, then for the half one that may be left.
template <template <int> class Visitor, class Task>
inline void over_channels(const Task& task) {
    int channel = 0;
    for (; channel + kWidth <= task.channels; channel += kWidth) Visitor<kWidth>::visit(task, channel);
    if (kWidth > kBlock && channel < task.channels) Visitor<kBlock>::visit(task, channel);
}

inline void combine(const CombineTask& task) {
    for (int p = 0; p < task.pixels; ++p) {
        const float* a = task.a + p * task.a_stride;
        const float* b = task.b + p * task.b_stride;
        float* out = task.out + p * task.out_stride;
        int c = 0;
        for (; c + kWidth <= task.channels; c += kWidth)
            store<kWidth>(out + c, combined<kWidth>(load<kWidth>(a + c), task.combine, b + c));
        for (; c < task.channels; c += kBlock)
            store<kBlock>(out + c, combined<kBlock>(load<kBlock>(a + c), task.combine, b + c));
    }
}

template <int N>
struct Average {
    static void visit(const AverageTask& task, int c) {
        const float scale = 1.0f / float(task.row_count * task.window_w);
        for (int x = 0; x < task.out_width; ++x) {
            Floats<N> sum{};
            for (int y = 0; y < task.row_count; ++y)
                for (int i = 0; i < task.window_w; ++i)
                    sum += load<N>(task.rows[y] + (x * task.window_w + i) * task.stride + c);
            store<N>(task.out + x * task.stride + c, sum * scale);
        }
    }
};

inline void average(const AverageTask& task) { over_channels<Average>(task); }

struct SumTask {
    const float* in;
    std::ptrdiff_t stride;
    int pixels, channels;
    float* out;
    bool accumulate;
};

template <int N>
struct Sum {
    static void visit(const SumTask& task, int c) {
        Floats<N> even{}, odd{};  // two chains: an addition takes several cycles
        int p = 0;
        for (; p + 2 <= task.pixels; p += 2) {
            even += load<N>(task.in + p * task.stride + c);
            odd += load<N>(task.in + (p + 1) * task.stride + c);
        }
        if (p < task.pixels) even += load<N>(task.in + p * task.stride + c);
        Floats<N> total = even + odd;
        if (task.accumulate) total += load<N>(task.out + c);
        store<N>(task.out + c, total);
    }
};

inline void sum(const float* in, std::ptrdiff_t stride, int pixels, int channels, float* out, bool accumulate) {
    over_channels<Sum>(SumTask{in, stride, pixels, channels, out, accumulate});
}

inline void normalize(const std::uint8_t* in, const float* scale, const float* shift, int count, float* out) {
    for (int i = 0; i < count; ++i) out[i] = float(in[i]) * scale[i] + shift[i];
}

}  // namespace ghostnets::GHOSTNETS_ISA
