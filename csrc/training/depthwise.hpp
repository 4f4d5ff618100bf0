// Depthwise convolutions in training. Rows of the input and of the gradient are read once, activated, into rings of a
// few rows with zero padding: no product needs bounds checks.
#pragma once

#include "training/sums.hpp"

namespace ghostnets::GHOSTNETS_ISA {

constexpr int kChunk = 64;  // channels at a time

// P pixels of an output row of one vector of channels; rows[dy] is null outside of the map. Add: accumulate into `out`.
template <class T, int K, int S, int P, bool Add>
inline void filter_tile(const T* const* rows, const T* weights, int stride, T* out) {
    Vector<T> sums[P] = {};
    if (Add)
#pragma GCC unroll 7
        for (int p = 0; p < P; ++p) sums[p] = get(out + p * stride);
#pragma GCC unroll 5
    for (int dy = 0; dy < K; ++dy) {
        if (!rows[dy]) continue;
#pragma GCC unroll 5
        for (int dx = 0; dx < K; ++dx) {
            const Vector<T> w = get(weights + (dy * K + dx) * stride);
#pragma GCC unroll 7
            for (int p = 0; p < P; ++p) sums[p] += w * get(rows[dy] + (p * S + dx) * stride);
        }
    }
#pragma GCC unroll 7
    for (int p = 0; p < P; ++p) put(out + p * stride, sums[p]);
}

template <class T, int K, int S, int P, bool Add>
inline int filter_tiles(const T* const* rows, const T* weights, int stride, T* out, int x, int width) {
    for (; x + P <= width; x += P) {
        const T* at[K];
        for (int dy = 0; dy < K; ++dy) at[dy] = rows[dy] ? rows[dy] + std::ptrdiff_t(x) * S * stride : nullptr;
        filter_tile<T, K, S, P, Add>(at, weights, stride, out + std::ptrdiff_t(x) * stride);
    }
    return x;
}

// A row of outputs of `stride` channels (whole vectors).
template <class T, int K, int S, bool Add = false>
void filter_row(const T* const* rows, const T* weights, int stride, T* out, int width) {
    for (int c = 0; c < stride; c += kLanes<T>) {
        const T* at[K];
        for (int dy = 0; dy < K; ++dy) at[dy] = rows[dy] ? rows[dy] + c : nullptr;
        int x = filter_tiles<T, K, S, 7, Add>(at, weights + c, stride, out + c, 0, width);
        x = filter_tiles<T, K, S, 4, Add>(at, weights + c, stride, out + c, x, width);
        x = filter_tiles<T, K, S, 2, Add>(at, weights + c, stride, out + c, x, width);
        filter_tiles<T, K, S, 1, Add>(at, weights + c, stride, out + c, x, width);
    }
}

// sums[dy][dx] += sum over the row of d[x] * rows[dy][x * S + dx]; d has S - 1 zeros between its pixels.
template <class T, int K, int S>
void weight_row(const T* const* rows, const T* d, int stride, T* sums, int width) {
    for (int c = 0; c < stride; c += kLanes<T>) {
        Vector<T> total[K * K];
#pragma GCC unroll 25
        for (int i = 0; i < K * K; ++i) total[i] = get(sums + i * stride + c);
        for (int x = 0; x < width; ++x) {
            const std::ptrdiff_t at = std::ptrdiff_t(x) * S * stride + c;
            const Vector<T> value = get(d + at);
#pragma GCC unroll 5
            for (int dy = 0; dy < K; ++dy)
#pragma GCC unroll 5
                for (int dx = 0; dx < K; ++dx) total[dy * K + dx] += value * get(rows[dy] + at + dx * stride);
        }
#pragma GCC unroll 25
        for (int i = 0; i < K * K; ++i) put(sums + i * stride + c, total[i]);
    }
}

// A chunk of channels; the work is split by chunks, then by images.
template <class T>
struct Chunk {
    int input, from, channels, stride;  // within the input; stride: whole vectors in scratch memory
    int at;  // first channel among all inputs
};

template <class T>
int chunk_count(const Depthwise<T>& op) {
    int count = 0;
    for (int i = 0; i < op.input_count; ++i) count += (op.inputs[i].channels + kChunk - 1) / kChunk;
    return count;
}

template <class T>
Chunk<T> find_chunk(const Depthwise<T>& op, int number) {
    int input = 0, at = 0;
    for (;; at += op.inputs[input++].channels) {
        const int count = (op.inputs[input].channels + kChunk - 1) / kChunk;
        if (number < count) break;
        number -= count;
    }
    const int from = number * kChunk, channels = smaller(kChunk, op.inputs[input].channels - from);
    return {input, from, channels, (channels + kLanes<T> - 1) / kLanes<T> * kLanes<T>, at + from};
}

// Weights [size][stride] of a chunk of channels, in their order or reversed; `weights` points to the first channel.
template <class T>
void chunk_weights(const T* weights, int size, int channels, int stride, bool reversed, T* to) {
    for (int i = 0; i < size; ++i)
        for (int c = 0; c < stride; ++c)
            to[i * stride + c] =
                c < channels ? weights[std::ptrdiff_t(c) * size + (reversed ? size - 1 - i : i)] : T(0);
}

// Calls run.template operator()<K, S>() for this kernel and stride.
template <class Run>
void for_shape(int kernel, int stride, const Run& run) {
    if (kernel == 3 && stride == 1) run.template operator()<3, 1>();
    if (kernel == 3 && stride == 2) run.template operator()<3, 2>();
    if (kernel == 5 && stride == 1) run.template operator()<5, 1>();
    if (kernel == 5 && stride == 2) run.template operator()<5, 2>();
}

// Sums the shares' partial gradients, always in the same order.
template <class T>
void add_partials(const T* partials, std::ptrdiff_t size, int shares, T* out) {
    for (std::ptrdiff_t i = 0; i < size; ++i) {
        T sum = 0;
        for (int share = 0; share < shares; ++share) sum += partials[size * share + i];
        out[i] = sum;
    }
}

template <class T>
inline void clear(T* values, std::ptrdiff_t count) {
    for (std::ptrdiff_t i = 0; i < count; ++i) values[i] = 0;
}

template <class T, int K, int S>
void depthwise_forward_as(const Depthwise<T>& op, int channels, double* sums) {
    constexpr int kPad = K / 2;
    const int height = (op.height - 1) / S + 1, width = (op.width - 1) / S + 1;
    const int tasks = chunk_count(op) * op.images;
    parallel(op.threads, [&](int share) {
        double* own = sums + 2 * channels * share;
        clear(own, 2 * channels);
        const std::ptrdiff_t row = std::ptrdiff_t(op.width + 2 * kPad) * kChunk;
        T* ring =
            static_cast<T*>(workspace(1, sizeof(T) * (K * row + std::ptrdiff_t(width) * kChunk + K * K * kChunk)));
        T* out = ring + K * row;
        T* weights = out + std::ptrdiff_t(width) * kChunk;
        Chunk<T> chunk{};
        int current = -1;
        for (int task = share_begin(tasks, op.threads, share); task < share_begin(tasks, op.threads, share + 1);
             ++task) {
            const int image = task % op.images;
            if (current != task / op.images) {
                chunk = find_chunk(op, current = task / op.images);
                chunk_weights(op.weight + std::ptrdiff_t(chunk.at) * K * K, K * K, chunk.channels, chunk.stride, false,
                              weights);
                clear(ring, K * row);
            }
            const MapView<T>& input = op.inputs[chunk.input];
            int loaded = 0;
            for (int y = 0; y < height; ++y) {
                const T* rows[K];
                for (; loaded < smaller(op.height, y * S - kPad + K); ++loaded)
                    read_map(input, (image * op.height + loaded) * op.width, op.width, op.height * op.width, chunk.from,
                             chunk.channels, ring + loaded % K * row + kPad * chunk.stride, chunk.stride);
                for (int dy = 0; dy < K; ++dy) {
                    const int from = y * S - kPad + dy;
                    rows[dy] = from >= 0 && from < op.height ? ring + from % K * row : nullptr;
                }
                filter_row<T, K, S>(rows, weights, chunk.stride, out, width);
                add_statistics(out, width, chunk.channels, chunk.stride, own + chunk.at, own + channels + chunk.at);
                T* to = op.out + std::ptrdiff_t(image * height + y) * width * channels + chunk.at;
                for (int x = 0; x < width; ++x, to += channels)
                    over_vectors<T>(chunk.channels,
                                    [&](int c, auto lanes) { put(to + c, get(out + x * chunk.stride + c), lanes); });
            }
        }
    });
}

// Writes a row of the input's gradient, the filtered row plus the addend, and accumulates its sums.
template <class T>
void deliver_row(const Depthwise<T>& op, const Chunk<T>& chunk, int image, int y, const T* filtered, double* own) {
    const MapView<T>& input = op.inputs[chunk.input];
    const Target<T>& target = op.targets[chunk.input];
    const int first = (image * op.height + y) * op.width;
    const T* gate = target.add_gate ? target.add_gate + image * target.gate_stride + chunk.from : nullptr;
    const T* offset = target.add_offset ? target.add_offset + image * target.gate_stride + chunk.from : nullptr;
    for (int x = 0; x < op.width; ++x) {
        const T* from = filtered + x * chunk.stride;
        const T* add = target.add ? target.add + (first + x) * target.add_stride + chunk.from : nullptr;
        T* to = target.out + std::ptrdiff_t(first + x) * input.channels + chunk.from;
        over_vectors<T>(chunk.channels, [&](int c, auto lanes) {
            Vector<T> value = get(from + c);
            if (add) {
                Vector<T> other = get(add + c, lanes);
                if (gate) other = other * get(gate + c, lanes);
                if (offset) other += get(offset + c, lanes);
                value += other;
            }
            put(to + c, value, lanes);
        });
    }
    if (!target.norm.gamma) return;
    Gradient<T> plain{target.out, input.channels, input, nullptr, nullptr, 0};
    plain.map.gate = nullptr;
    add_sums(plain, first, op.width, 1, chunk.from, chunk.channels, own, own + input.channels);
}

// Loads row y of the input into its ring, and the row of the gradient at the same place, if there is one.
template <class T, int K, int S>
void load_rows(const Depthwise<T>& op, const Chunk<T>& chunk, int image, int y, T* inputs, T* outputs) {
    const int height = (op.height - 1) / S + 1, width = (op.width - 1) / S + 1, pad = K / 2 * chunk.stride;
    const std::ptrdiff_t offset = y % K * std::ptrdiff_t(op.width + 2 * (K / 2)) * kChunk + pad;
    read_map(op.inputs[chunk.input], (image * op.height + y) * op.width, op.width, op.height * op.width, chunk.from,
             chunk.channels, inputs + offset, chunk.stride);
    if (y % S == 0)
        read_gradient(op.gradient, (image * height + y / S) * width, width, height * width, chunk.at, chunk.channels,
                      outputs + offset, S * chunk.stride);
}

// Steps go down the input's rows. A strided gradient has zeros between its rows and pixels, so the gradient of the
// input is always a filter of stride 1.
template <class T, int K, int S>
void depthwise_backward_as(const Depthwise<T>& op, int channels, double* sums, T* partials) {
    constexpr int kPad = K / 2, kSize = K * K;
    const int width = (op.width - 1) / S + 1, tasks = chunk_count(op) * op.images;
    parallel(op.threads, [&](int share) {
        double* own = sums + 2 * channels * share;
        clear(own, 2 * channels);
        T* gradient = partials + std::ptrdiff_t(kSize) * channels * share;
        clear(gradient, std::ptrdiff_t(kSize) * channels);
        const std::ptrdiff_t row = std::ptrdiff_t(op.width + 2 * kPad) * kChunk;
        T* inputs = static_cast<T*>(workspace(1, sizeof(T) * ((2 * K + 2) * row + 2 * kSize * kChunk)));
        T *outputs = inputs + K * row, *zeros = outputs + K * row, *filtered = zeros + row;
        T *weights = filtered + row, *weight_sums = weights + kSize * kChunk;
        Chunk<T> chunk{};
        int current = -1;
        const auto flush = [&] {
            for (int i = 0; current >= 0 && i < kSize; ++i)
                for (int c = 0; c < chunk.channels; ++c)
                    gradient[(chunk.at + c) * kSize + i] += weight_sums[i * chunk.stride + c];
        };
        for (int task = share_begin(tasks, op.threads, share); task < share_begin(tasks, op.threads, share + 1);
             ++task) {
            const int image = task % op.images;
            if (current != task / op.images) {
                flush();
                chunk = find_chunk(op, current = task / op.images);
                if (op.targets[chunk.input].out)
                    chunk_weights(op.weight + std::ptrdiff_t(chunk.at) * kSize, kSize, chunk.channels, chunk.stride,
                                  true, weights);
                clear(weight_sums, kSize * kChunk);
                clear(inputs, (2 * K + 1) * row);
            }
            const int first = chunk.at - chunk.from;  // first channel of the input
            for (int step = 0; step < op.height + kPad; ++step) {
                if (step < op.height) load_rows<T, K, S>(op, chunk, image, step, inputs, outputs);
                const int y = step - kPad;
                if (y < 0) continue;
                const T *input_rows[K], *output_rows[K];
                for (int dy = 0; dy < K; ++dy) {
                    const int at = y - kPad + dy;
                    const bool exists = at >= 0 && at < op.height;
                    input_rows[dy] = exists ? inputs + at % K * row : zeros;
                    output_rows[dy] = exists && at % S == 0 ? outputs + at % K * row : nullptr;
                }
                if (output_rows[kPad])
                    weight_row<T, K, S>(input_rows, output_rows[kPad] + kPad * chunk.stride, chunk.stride, weight_sums,
                                        width);
                if (!op.targets[chunk.input].out) continue;
                filter_row<T, K, 1>(output_rows, weights, chunk.stride, filtered, op.width);
                deliver_row(op, chunk, image, y, filtered, own + 2 * first + chunk.from);
            }
        }
        flush();
    });
}

template <class T>
int channels_of(const Depthwise<T>& op) {
    int channels = 0;
    for (int i = 0; i < op.input_count; ++i) channels += op.inputs[i].channels;
    return channels;
}

template <class T>
void depthwise_forward(const Depthwise<T>& op) {
    const int channels = channels_of(op), height = (op.height - 1) / op.stride + 1,
              width = (op.width - 1) / op.stride + 1;
    double* sums = static_cast<double*>(workspace(0, sizeof(double) * 2 * channels * op.threads));
    for_shape(op.kernel, op.stride, [&]<int K, int S>() { depthwise_forward_as<T, K, S>(op, channels, sums); });
    add_shares(sums, 2 * channels, op.threads);
    finish_statistics(op.norm, channels, sums, channels, double(op.images) * height * width);
}

template <class T>
void depthwise_backward(const Depthwise<T>& op) {
    const int channels = channels_of(op), size = channels * op.kernel * op.kernel;
    double* sums = static_cast<double*>(
        workspace(0, sizeof(double) * 2 * channels * op.threads + sizeof(T) * std::size_t(size) * op.threads));
    T* partials = reinterpret_cast<T*>(sums + 2 * channels * op.threads);
    for_shape(op.kernel, op.stride,
              [&]<int K, int S>() { depthwise_backward_as<T, K, S>(op, channels, sums, partials); });
    add_partials(partials, size, op.threads, op.weight_gradient);
    add_shares(sums, 2 * channels, op.threads);
    for (int i = 0, c = 0; i < op.input_count; c += op.inputs[i++].channels)
        if (op.targets[i].norm.gamma)
            finish_gradient(op.targets[i].norm, op.inputs[i].statistics, op.inputs[i].row, sums + 2 * c,
                            op.inputs[i].channels, double(op.images) * op.height * op.width);
}

}  // namespace ghostnets::GHOSTNETS_ISA
