// Parallel depthwise convolutions of one map, each followed by its own batch normalisation (GhostNetV3's branches).
//
// The output of a branch, z_f = filter_f * x, is linear in x: once its statistics are known, all branches together are
// one filter. So z_f is computed twice, for its statistics and for their gradient, a row at a time, and never stored.
#pragma once

#include "training/depthwise.hpp"

namespace ghostnets::GHOSTNETS_ISA {

// The channels of one task, and its rows in scratch memory. Rings hold K rows; those of strided maps have S - 1 zeros
// between their pixels, and null for rows in between.
template <class T, int K, int S>
struct BranchRows {
    static constexpr int kPad = K / 2, kSize = K * K;
    const Branches<T>& op;
    int from, channels, stride;
    std::ptrdiff_t row;
    int out_height, out_width;

    BranchRows(const Branches<T>& op, int chunk)
        : op(op), from(chunk * kChunk), channels(smaller(kChunk, op.channels - from)),
          stride((channels + kLanes<T> - 1) / kLanes<T> * kLanes<T>), row(row_size(op)),
          out_height((op.height - 1) / S + 1), out_width((op.width - 1) / S + 1) {}

    static std::ptrdiff_t row_size(const Branches<T>& op) { return std::ptrdiff_t(op.width + 2 * kPad) * kChunk; }

    void load_weights(const T* weights, bool reversed, T* to) const {
        chunk_weights(weights + std::ptrdiff_t(from) * kSize, kSize, channels, stride, reversed, to);
    }

    // Row y of the input, or of a gradient of the output's size whose pixels are then S apart.
    void load_row(const T* map, int image, int y, int height, int width, int step, T* ring_row) const {
        const MapView<T> input{map, op.channels, nullptr, 0, false, nullptr, 0};
        read_map(input, (image * height + y) * width, width, height * width, from, channels, ring_row + kPad * stride,
                 std::ptrdiff_t(step) * stride);
    }

    // The rows around y; `missing` outside of the map, and null between the rows of a strided one.
    void around(int y, T* ring, int step, const T* missing, const T** rows) const {
        for (int dy = 0; dy < K; ++dy) {
            const int at = y - kPad + dy;
            const bool exists = at >= 0 && at < op.height && at % step == 0;
            rows[dy] = exists ? ring + at % K * row : missing;
        }
    }
};

// Sums and sums of squares of all z_f, then of the pixels under the centre of the filter: [2][filters + 1][channels].
template <class T, int K, int S>
void branch_moments_as(const Branches<T>& op, double* sums) {
    constexpr int kPad = K / 2, kSize = K * K;
    const int chunks = (op.channels + kChunk - 1) / kChunk, tasks = chunks * op.images;
    const std::ptrdiff_t values = std::ptrdiff_t(op.filters + 1) * op.channels;
    parallel(op.threads, [&](int share) {
        double* own = sums + 2 * values * share;
        clear(own, 2 * values);
        const std::ptrdiff_t row = BranchRows<T, K, S>::row_size(op);
        T* ring =
            static_cast<T*>(workspace(1, sizeof(T) * ((K + 1) * row + std::ptrdiff_t(op.filters) * kSize * kChunk)));
        T *out = ring + K * row, *weights = out + row;
        int current = -1;
        for (int task = share_begin(tasks, op.threads, share); task < share_begin(tasks, op.threads, share + 1);
             ++task) {
            const int image = task % op.images;
            const BranchRows<T, K, S> at(op, task / op.images);
            if (current != task / op.images) {
                current = task / op.images;
                for (int f = 0; f < op.filters; ++f)
                    at.load_weights(op.weights + std::ptrdiff_t(f) * op.channels * kSize, false,
                                    weights + f * kSize * kChunk);
                clear(ring, K * row);
            }
            int loaded = 0;
            for (int y = 0; y < at.out_height; ++y) {
                for (; loaded < smaller(op.height, y * S - kPad + K); ++loaded)
                    at.load_row(op.x, image, loaded, op.height, op.width, 1, ring + loaded % K * row);
                const T* rows[K];
                at.around(y * S, ring, 1, nullptr, rows);
                for (int f = 0; f <= op.filters; ++f) {
                    double* to = own + std::ptrdiff_t(f) * op.channels + at.from;
                    const bool is_centre = f == op.filters;
                    if (!is_centre)
                        filter_row<T, K, S>(rows, weights + f * kSize * kChunk, at.stride, out, at.out_width);
                    add_statistics(is_centre ? rows[kPad] + kPad * at.stride : out, at.out_width, at.channels,
                                   std::ptrdiff_t(is_centre ? S : 1) * at.stride, to, to + values);
                }
            }
        }
    });
    add_shares(sums, int(2 * values), op.threads);
}

// dx = merged^T * d + sum over f of filter_f^T * u_f, with u_f = slope_f z_f + offset_f, + u of the centre pixel; and
// the sums of u_f x for the gradient of filter_f. z_f follows the input by kPad rows, and dx follows z_f by kPad.
template <class T, int K, int S>
void branch_gradient_as(const Branches<T>& op, T* partials) {
    constexpr int kPad = K / 2, kSize = K * K;
    const int chunks = (op.channels + kChunk - 1) / kChunk, tasks = chunks * op.images, filters = op.filters;
    const std::ptrdiff_t size = std::ptrdiff_t(filters) * op.channels * kSize;
    parallel(op.threads, [&](int share) {
        T* gradient = partials + size * share;
        clear(gradient, size);
        const std::ptrdiff_t row = BranchRows<T, K, S>::row_size(op), ring = K * row, block = kSize * kChunk;
        T* inputs =
            static_cast<T*>(workspace(1, sizeof(T) * ((2 + filters) * ring + 3 * row + (3 * filters + 1) * block)));
        T *outputs = inputs + ring, *zeros = outputs + (1 + filters) * ring, *z = zeros + row, *dx = z + row;
        T *weights = dx + row, *reversed = weights + filters * block, *weight_sums = reversed + (1 + filters) * block;
        int current = -1;
        const auto flush = [&] {
            if (current < 0) return;
            const BranchRows<T, K, S> at(op, current);
            for (int f = 0; f < filters; ++f)
                for (int i = 0; i < kSize; ++i)
                    for (int c = 0; c < at.channels; ++c)
                        gradient[(std::ptrdiff_t(f) * op.channels + at.from + c) * kSize + i] +=
                            weight_sums[f * block + i * at.stride + c];
        };
        for (int task = share_begin(tasks, op.threads, share); task < share_begin(tasks, op.threads, share + 1);
             ++task) {
            const int image = task % op.images;
            const BranchRows<T, K, S> at(op, task / op.images);
            if (current != task / op.images) {
                flush();
                current = task / op.images;
                for (int f = 0; f < filters; ++f) {
                    const T* from = op.weights + std::ptrdiff_t(f) * op.channels * kSize;
                    at.load_weights(from, false, weights + f * block);
                    at.load_weights(from, true, reversed + (1 + f) * block);
                }
                at.load_weights(op.merged, true, reversed);
                clear(weight_sums, filters * block);
                clear(inputs, (2 + filters) * ring + row);
            }
            for (int step = 0; step < op.height + 2 * kPad; ++step) {
                if (step < op.height) at.load_row(op.x, image, step, op.height, op.width, 1, inputs + step % K * row);
                const int now = step - kPad;  // row of z and d
                if (now >= 0 && now < op.height && now % S == 0) {
                    at.load_row(op.d, image, now / S, at.out_height, at.out_width, S, outputs + now % K * row);
                    const T* rows[K];
                    at.around(now, inputs, 1, zeros, rows);
                    for (int f = 0; f < filters; ++f) {
                        T* u = outputs + (1 + f) * ring + now % K * row + kPad * at.stride;
                        filter_row<T, K, S>(rows, weights + f * block, at.stride, z, at.out_width);
                        const T* slope = op.slopes + std::ptrdiff_t(f) * op.channels + at.from;
                        const T* offset = op.offsets + std::ptrdiff_t(f) * op.channels + at.from;
                        for (int x = 0; x < at.out_width; ++x)
                            over_vectors<T>(at.channels, [&](int c, auto lanes) {
                                put(u + std::ptrdiff_t(x) * S * at.stride + c,
                                    get(z + x * at.stride + c) * get(slope + c, lanes) + get(offset + c, lanes));
                            });
                        weight_row<T, K, S>(rows, u, at.stride, weight_sums + f * block, at.out_width);
                    }
                }
                const int y = step - 2 * kPad;
                if (y < 0) continue;
                for (int f = 0; f <= filters; ++f) {
                    const T* rows[K];
                    at.around(y, outputs + f * ring, S, nullptr, rows);
                    if (f == 0) filter_row<T, K, 1>(rows, reversed, at.stride, dx, op.width);
                    else filter_row<T, K, 1, true>(rows, reversed + f * block, at.stride, dx, op.width);
                }
                const T* slope = op.slopes + std::ptrdiff_t(filters) * op.channels + at.from;
                const T* offset = op.offsets + std::ptrdiff_t(filters) * op.channels + at.from;
                const T* centre = inputs + y % K * row + kPad * at.stride;
                T* to = op.out + (std::ptrdiff_t(image) * op.height + y) * op.width * op.channels + at.from;
                for (int x = 0; x < op.width; ++x, to += op.channels)
                    over_vectors<T>(at.channels, [&](int c, auto lanes) {
                        Vector<T> value = get(dx + x * at.stride + c);
                        if (y % S == 0 && x % S == 0)
                            value += get(centre + x * at.stride + c) * get(slope + c, lanes) + get(offset + c, lanes);
                        put(to + c, value, lanes);
                    });
            }
        }
        flush();
    });
    add_partials(partials, size, op.threads, op.weight_gradients);
}

template <class T>
void branch_moments(const Branches<T>& op) {
    const std::ptrdiff_t values = std::ptrdiff_t(2) * (op.filters + 1) * op.channels;
    double* sums = static_cast<double*>(workspace(0, sizeof(double) * values * op.threads));
    for_shape(op.kernel, op.stride, [&]<int K, int S>() { branch_moments_as<T, K, S>(op, sums); });
    for (std::ptrdiff_t i = 0; i < values; ++i) op.moments[i] = sums[i];
}

template <class T>
void branch_gradient(const Branches<T>& op) {
    const std::ptrdiff_t size = std::ptrdiff_t(op.filters) * op.channels * op.kernel * op.kernel;
    T* partials = static_cast<T*>(workspace(0, sizeof(T) * size * op.threads));
    for_shape(op.kernel, op.stride, [&]<int K, int S>() { branch_gradient_as<T, K, S>(op, partials); });
}

}  // namespace ghostnets::GHOSTNETS_ISA
