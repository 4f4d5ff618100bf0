// 1 x 1 convolutions in training: three matrix products over blocks of pixels that stay in the caches.
#pragma once

#include "training/sums.hpp"

namespace ghostnets::GHOSTNETS_ISA {

constexpr int kRows = kManyRegisters ? 14 : 6;  // rows of a register tile of 2 vectors

// out[r][v] (+)= sum over k of a[r * a_row + k * a_k] * b[k * b_k + v]
template <class T, int R, int V>
void product_tile(const T* a, std::ptrdiff_t a_row, std::ptrdiff_t a_k, const T* b, std::ptrdiff_t b_k, int terms,
                  T* out, std::ptrdiff_t out_row, bool accumulate) {
    constexpr int W = kLanes<T>;
    Vector<T> sums[R][V];
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sums[r][v] = accumulate ? get(out + r * out_row + v * W) : Vector<T>{};
    for (int k = 0; k < terms; ++k) {
        Vector<T> values[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) values[v] = get(b + k * b_k + v * W);
        const T* at = a + k * a_k;
#pragma GCC unroll 14
        for (int r = 0; r < R; ++r) {
            const T x = at[r * a_row];
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) sums[r][v] += x * values[v];
        }
    }
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) put(out + r * out_row + v * W, sums[r][v]);
}

template <class T, int V, int R>
inline void product_rest(int rows, const T* a, std::ptrdiff_t a_row, std::ptrdiff_t a_k, const T* b, std::ptrdiff_t b_k,
                         int terms, T* out, std::ptrdiff_t out_row, bool accumulate) {
    if (rows == R) return product_tile<T, R, V>(a, a_row, a_k, b, b_k, terms, out, out_row, accumulate);
    if constexpr (R > 1) product_rest<T, V, R - 1>(rows, a, a_row, a_k, b, b_k, terms, out, out_row, accumulate);
}

template <class T, int V>
inline void product_rows(int rows, const T* a, std::ptrdiff_t a_row, std::ptrdiff_t a_k, const T* b, std::ptrdiff_t b_k,
                         int terms, T* out, std::ptrdiff_t out_row, bool accumulate) {
    int r = 0;
    for (; r + kRows <= rows; r += kRows)
        product_tile<T, kRows, V>(a + r * a_row, a_row, a_k, b, b_k, terms, out + r * out_row, out_row, accumulate);
    if (r < rows)
        product_rest<T, V, kRows - 1>(rows - r, a + r * a_row, a_row, a_k, b, b_k, terms, out + r * out_row, out_row,
                                      accumulate);
}

// The product for all columns; b is cut into panels of two vectors, `panel` apart.
template <class T>
void product(int rows, int columns, int terms, const T* a, std::ptrdiff_t a_row, std::ptrdiff_t a_k, const T* b,
             std::ptrdiff_t b_k, std::ptrdiff_t panel, T* out, std::ptrdiff_t out_row, bool accumulate) {
    constexpr int W = kLanes<T>;
    for (int c = 0; c < columns; c += 2 * W, b += panel) {
        if (columns - c > W) {
            product_rows<T, 2>(rows, a, a_row, a_k, b, b_k, terms, out + c, out_row, accumulate);
        } else {
            product_rows<T, 1>(rows, a, a_row, a_k, b, b_k, terms, out + c, out_row, accumulate);
        }
    }
}

template <class T>
constexpr int kPanel = 2 * kLanes<T>;

template <class T>
constexpr int panels(int columns) {
    return (columns + kPanel<T> - 1) / kPanel<T>;
}

// Packs weights into panels [panel][term][kPanel] at `to`; `row` and `column` are the strides of a term and of a column
// in `weight`.
template <class T>
const T* packed(int threads, const T* weight, int terms, int columns, std::ptrdiff_t row, std::ptrdiff_t column,
                T* to) {
    const int count = panels<T>(columns);
    parallel(threads, [&](int share) {
        for (int p = share_begin(count, threads, share); p < share_begin(count, threads, share + 1); ++p) {
            const int width = smaller(kPanel<T>, columns - p * kPanel<T>);
            T* at = to + std::ptrdiff_t(p) * terms * kPanel<T>;
            for (int k = 0; k < terms; ++k, at += kPanel<T>) {
                const T* from = weight + k * row + std::ptrdiff_t(p) * kPanel<T> * column;
                int i = 0;
                for (; i < width; ++i) at[i] = from[i * column];
                for (; i < kPanel<T>; ++i) at[i] = 0;
            }
        }
    });
    return to;
}

// Pixels are split into blocks of whole tiles, about 128 KiB of scratch memory each, and blocks into shares.
template <class T>
struct Blocks {
    int pixels, block, threads;

    Blocks(const Pointwise<T>& op, int floats) : pixels(op.pixels), threads(op.threads) {
        block = larger(56, smaller(448, int(131072 / sizeof(T)) / floats / 56 * 56));
    }
    // First pixel of a share; at an image boundary if sums of whole images are needed.
    int begin(int share, int image_pixels) const {
        if (image_pixels) return share_begin(pixels / image_pixels, threads, share) * image_pixels;
        return smaller(pixels, share_begin((pixels + 55) / 56, threads, share) * 56);
    }
};

template <class T>
int in_channels(const Pointwise<T>& op) {
    int channels = 0;
    for (int i = 0; i < op.input_count; ++i) channels += op.inputs[i].channels;
    return channels;
}

template <class T>
void read_inputs(const Pointwise<T>& op, int first, int count, T* out, int stride) {
    for (int i = 0, c = 0; i < op.input_count; c += op.inputs[i++].channels) {
        if (i == 0 && op.input_count == 1) {
            read_map(op.inputs[i], first, count, op.image_pixels, 0, op.inputs[i].channels, out, stride);
            continue;
        }
        // One pixel at a time: values that the first input writes beyond its channels are overwritten by the second.
        for (int p = 0; i == 0 && p < count; ++p) {
            read_map(op.inputs[0], first + p, 1, op.image_pixels, 0, op.inputs[0].channels, out + p * stride, stride);
            read_map(op.inputs[1], first + p, 1, op.image_pixels, 0, op.inputs[1].channels,
                     out + p * stride + op.inputs[0].channels, stride);
        }
    }
}

template <class T>
void pointwise_forward(const Pointwise<T>& op) {
    const int in = in_channels(op), out = op.out_channels;
    const int in_stride = scratch_stride<T>(in), out_stride = scratch_stride<T>(out);
    const Blocks<T> blocks(op, in_stride + out_stride);
    const std::size_t weights = std::size_t(panels<T>(out)) * in * kPanel<T>;
    double* sums = static_cast<double*>(workspace(0, sizeof(double) * 2 * out * op.threads + sizeof(T) * weights));
    const T* weight = packed(op.threads, op.weight, in, out, 1, in, reinterpret_cast<T*>(sums + 2 * out * op.threads));
    parallel(op.threads, [&](int share) {
        double* own = sums + 2 * out * share;
        for (int i = 0; i < 2 * out; ++i) own[i] = 0;
        T* x = static_cast<T*>(workspace(1, sizeof(T) * (blocks.block * (in_stride + out_stride) + 2 * kPanel<T>)));
        T* z = x + blocks.block * in_stride + kPanel<T>;
        const int end = blocks.begin(share + 1, 0);
        for (int first = blocks.begin(share, 0); first < end; first += blocks.block) {
            const int count = smaller(blocks.block, end - first);
            read_inputs(op, first, count, x, in_stride);
            product(count, out, in, x, in_stride, std::ptrdiff_t(1), weight, std::ptrdiff_t(kPanel<T>),
                    std::ptrdiff_t(in) * kPanel<T>, z, out_stride, false);
            add_statistics(z, count, out, out_stride, own, own + out);
            for (int p = 0; p < count; ++p) {
                const T* from = z + p * out_stride;
                T* to = op.out + std::ptrdiff_t(first + p) * out;
                over_vectors<T>(out, [&](int c, auto lanes) { put(to + c, get(from + c), lanes); });
            }
        }
    });
    add_shares(sums, 2 * out, op.threads);
    finish_statistics(op.norm, out, sums, out, double(op.pixels));
}

// Writes the gradient of an input plus its addend, and accumulates its sums.
template <class T>
void deliver(const Pointwise<T>& op, int input, int first, int count, const T* d, int stride, double* sums) {
    const MapView<T>& x = op.inputs[input];
    const Target<T>& target = op.targets[input];
    for (int p = 0; p < count; ++p) {
        const T* from = d + p * stride;
        const T* add = target.add ? target.add + (first + p) * target.add_stride : nullptr;
        T* to = target.out + std::ptrdiff_t(first + p) * x.channels;
        over_vectors<T>(x.channels, [&](int c, auto lanes) {
            put(to + c, add ? get(from + c, lanes) + get(add + c, lanes) : get(from + c, lanes), lanes);
        });
    }
    Gradient<T> plain{target.out, x.channels, x, nullptr, nullptr, 0};
    plain.map.gate = nullptr;
    if (target.norm.gamma) add_sums(plain, first, count, 1, 0, x.channels, sums, sums + x.channels);
    if (!target.image_sums) return;
    for (int p = first; p < first + count;) {
        const int image = p / op.image_pixels, next = smaller(first + count, (image + 1) * op.image_pixels);
        T* to = target.image_sums + std::ptrdiff_t(image) * x.channels;
        add_sums(plain, p, next - p, 1, 0, x.channels, to,
                 to + std::ptrdiff_t(op.pixels / op.image_pixels) * x.channels);
        p = next;
    }
}

template <class T>
void pointwise_backward(const Pointwise<T>& op) {
    const int in = in_channels(op), out = op.out_channels;
    const int in_stride = scratch_stride<T>(in), out_stride = scratch_stride<T>(out);
    const Blocks<T> blocks(op, 2 * in_stride + out_stride);
    const std::size_t weights = std::size_t(panels<T>(in)) * out * kPanel<T>;
    const std::ptrdiff_t partial = std::ptrdiff_t(out) * in_stride + kPanel<T>;
    bool wants_input = false, by_image = false;
    for (int i = 0; i < op.input_count; ++i) {
        wants_input |= op.targets[i].out != nullptr;
        by_image |= op.targets[i].image_sums != nullptr;
    }
    double* sums = static_cast<double*>(
        workspace(0, sizeof(double) * 2 * in * op.threads + sizeof(T) * (weights + partial * op.threads)));
    T* partials = reinterpret_cast<T*>(sums + 2 * in * op.threads);
    const T* weight = nullptr;
    if (wants_input) weight = packed(op.threads, op.weight, out, in, in, 1, partials + partial * op.threads);
    parallel(op.threads, [&](int share) {
        double* own = sums + 2 * in * share;
        for (int i = 0; i < 2 * in; ++i) own[i] = 0;
        T* x = static_cast<T*>(workspace(1, sizeof(T) * (blocks.block * (2 * in_stride + out_stride) + 3 * kPanel<T>)));
        T* d = x + blocks.block * in_stride + kPanel<T>;
        T* dz = d + blocks.block * in_stride + kPanel<T>;
        T* gradient = partials + partial * share;
        const int begin = blocks.begin(share, by_image ? op.image_pixels : 0);
        const int end = blocks.begin(share + 1, by_image ? op.image_pixels : 0);
        if (begin == end)
            for (std::ptrdiff_t i = 0; i < partial; ++i) gradient[i] = 0;
        for (int first = begin; first < end; first += blocks.block) {
            const int count = smaller(blocks.block, end - first);
            read_inputs(op, first, count, x, in_stride);
            read_gradient(op.gradient, first, count, op.image_pixels, 0, out, dz, out_stride);
            product(out, in, count, dz, std::ptrdiff_t(1), std::ptrdiff_t(out_stride), x, std::ptrdiff_t(in_stride),
                    std::ptrdiff_t(kPanel<T>), gradient, std::ptrdiff_t(in_stride), first > begin);
            if (!wants_input) continue;
            product(count, in, out, dz, std::ptrdiff_t(out_stride), std::ptrdiff_t(1), weight,
                    std::ptrdiff_t(kPanel<T>), std::ptrdiff_t(out) * kPanel<T>, d, std::ptrdiff_t(in_stride), false);
            for (int i = 0, c = 0; i < op.input_count; c += op.inputs[i++].channels)
                deliver(op, i, first, count, d + c, in_stride, own + 2 * c);
        }
    });
    for (int n = 0; n < out; ++n) {
        T* to = op.weight_gradient + std::ptrdiff_t(n) * in;
        for (int k = 0; k < in; ++k) {
            T sum = 0;
            for (int share = 0; share < op.threads; ++share) sum += partials[partial * share + n * in_stride + k];
            to[k] = sum;
        }
    }
    add_shares(sums, 2 * in, op.threads);
    for (int i = 0, c = 0; i < op.input_count; c += op.inputs[i++].channels)
        if (op.targets[i].norm.gamma)
            finish_gradient(op.targets[i].norm, op.inputs[i].statistics, op.inputs[i].row, sums + 2 * c,
                            op.inputs[i].channels, double(op.pixels));
}

}  // namespace ghostnets::GHOSTNETS_ISA
