// Sums over pixels: statistics of a map, and the sums that the gradient of batch normalisation needs.
#pragma once

#include "training/vectors.hpp"

namespace ghostnets::GHOSTNETS_ISA {

template <class T, class S>
inline void add_lanes(S* to, Vector<T> values, int count) {
    T lanes[kLanes<T>];
    put(lanes, values);
    for (int i = 0; i < count; ++i) to[i] += S(lanes[i]);
}

// Adds the sums of values and of their squares. The squares are summed around the mean of these pixels, then shifted
// to 0 in double, so that the variance stays precise for large means.
template <class T>
void add_statistics(const T* values, int count, int channels, std::ptrdiff_t stride, double* sums, double* squares) {
    over_vectors<T>(channels, [&](int c, auto) {
        Vector<T> even{}, odd{};
        int p = 0;
        for (; p + 2 <= count; p += 2) {
            even += get(values + p * stride + c);
            odd += get(values + (p + 1) * stride + c);
        }
        if (p < count) even += get(values + p * stride + c);
        const Vector<T> mean = (even + odd) * (T(1) / T(count));
        even = odd = Vector<T>{};
        for (p = 0; p + 2 <= count; p += 2) {
            const Vector<T> x = get(values + p * stride + c) - mean, y = get(values + (p + 1) * stride + c) - mean;
            even += x * x;
            odd += y * y;
        }
        if (p < count) {
            const Vector<T> x = get(values + p * stride + c) - mean;
            even += x * x;
        }
        T means[kLanes<T>], rests[kLanes<T>];
        put(means, mean);
        put(rests, even + odd);
        const int used = smaller(kLanes<T>, channels - c);
        for (int i = 0; i < used; ++i) {
            sums[c + i] += double(means[i]) * count;
            squares[c + i] += double(rests[i]) + double(means[i]) * double(means[i]) * count;
        }
    });
}

// Adds the sums of d' and d' * (z - mean) over pixels, for channels [from, from + channels); d' is the masked gradient.
template <class T, class S>
void add_sums(const Gradient<T>& g, int first, int count, int image_pixels, int from, int channels, S* sums,
              S* products) {
    over_vectors<T>(channels, [&](int c, auto lanes) {
        const int at = from + c;
        const Vector<T> mean = get(g.map.statistics + at, lanes);
        Vector<T> sum{}, product{};
        for (int p = 0; p < count; ++p) {
            const std::ptrdiff_t pixel = first + p, image = g.map.gate || g.offset ? pixel / image_pixels : 0;
            const Vector<T> z = get(g.map.values + pixel * g.map.channels + at, lanes);
            const Vector<T> d =
                masked(g, g.d + pixel * g.d_stride, z, g.map.gate ? g.map.gate + image * g.map.gate_stride : nullptr,
                       g.offset ? g.offset + image * g.map.gate_stride : nullptr, at, lanes);
            sum += d;
            product += d * (z - mean);
        }
        add_lanes<T>(sums + c, sum, smaller(kLanes<T>, channels - c));
        add_lanes<T>(products + c, product, smaller(kLanes<T>, channels - c));
    });
}

// The first share's sums become those of all shares, always in the same order.
inline void add_shares(double* sums, int count, int shares) {
    for (int share = 1; share < shares; ++share)
        for (int i = 0; i < count; ++i) sums[i] += sums[share * count + i];
}

}  // namespace ghostnets::GHOSTNETS_ISA
