// Vectors of float or double for training, and reading maps with them. See simd.hpp about namespaces.
#pragma once

#include "common/simd.hpp"
#include "training/kernels.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace ghostnets::GHOSTNETS_ISA {

using namespace ghostnets::training;

template <class T>
struct VectorFor {
    typedef T Type __attribute__((vector_size(kWidth * sizeof(float))));
};
template <class T>
using Vector = typename VectorFor<T>::Type;
template <class T>
constexpr int kLanes = kWidth * int(sizeof(float)) / int(sizeof(T));

struct Whole {};  // all lanes of a vector

template <class T>
inline Vector<T> get(const T* from, Whole = {}) {
    Vector<T> value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

template <class T>
inline void put(T* to, Vector<T> value, Whole = {}) {
    __builtin_memcpy(to, &value, sizeof value);
}

// The first `count` lanes; the others are 0, or unchanged.
#if defined(__AVX512F__)
inline Vector<float> get(const float* from, int count) {
    return (Vector<float>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from);
}
inline Vector<double> get(const double* from, int count) {
    return (Vector<double>)_mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), from);
}
inline void put(float* to, Vector<float> value, int count) {
    _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), (__m512)value);
}
inline void put(double* to, Vector<double> value, int count) {
    _mm512_mask_storeu_pd(to, __mmask8((1u << count) - 1), (__m512d)value);
}
#else
template <class T>
inline Vector<T> get(const T* from, int count) {
    T lanes[kLanes<T>] = {};
    for (int i = 0; i < count; ++i) lanes[i] = from[i];
    return get(lanes);
}
template <class T>
inline void put(T* to, Vector<T> value, int count) {
    T lanes[kLanes<T>];
    put(lanes, value);
    for (int i = 0; i < count; ++i) to[i] = lanes[i];
}
#endif

// Calls visit(channel, lanes) for each whole vector, then for the remaining channels if there are any.
template <class T, class Visit>
inline void over_vectors(int channels, const Visit& visit) {
    int c = 0;
    for (; c + kLanes<T> <= channels; c += kLanes<T>) visit(c, Whole{});
    if (c < channels) visit(c, channels - c);
}

// Propagates NaN, as torch's does.
template <class T>
inline Vector<T> relu(Vector<T> x) {
    return Vector<T>{} > x ? Vector<T>{} : x;
}

// Distance between pixels in scratch memory, in values: whole vectors, but not a multiple of 1 KiB, to avoid cache
// conflicts.
template <class T>
constexpr int scratch_stride(int channels) {
    int stride = (channels + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    return stride * int(sizeof(T)) % 1024 ? stride : stride + kLanes<T>;
}

inline int smaller(int a, int b) { return a < b ? a : b; }
inline int larger(int a, int b) { return a > b ? a : b; }

// The first item of a share. Items are split into equal shares, always in the same way, so results are repeatable.
inline int share_begin(int items, int shares, int share) { return int((long long)items * share / shares); }

template <class Work>
void parallel(int shares, const Work& work) {
    run_shares(
        shares, [](void* context, int share) { (*static_cast<const Work*>(context))(share); },
        const_cast<Work*>(&work));
}

// One vector of an activated map; `at` points to z.
template <class T, class Lanes>
inline Vector<T> activated(const MapView<T>& map, const T* z, const T* gate, int c, Lanes lanes) {
    Vector<T> value = get(z + c, lanes);
    if (map.statistics) {
        value = value * get(map.statistics + 2 * map.row + c, lanes) + get(map.statistics + 3 * map.row + c, lanes);
        if (map.relu) value = relu<T>(value);
    }
    return gate ? value * get(gate + c, lanes) : value;
}

// Channels [from, from + channels) of `count` pixels -> out, whose pixels lie `stride` apart; whole vectors are
// written, so up to one vector beyond a pixel's channels.
template <class T>
void read_map(const MapView<T>& map, int first, int count, int image_pixels, int from, int channels, T* out,
              std::ptrdiff_t stride) {
    for (int p = 0; p < count; ++p) {
        const T* z = map.values + std::ptrdiff_t(first + p) * map.channels;
        const T* gate = map.gate ? map.gate + (first + p) / image_pixels * map.gate_stride : nullptr;
        T* to = out + p * stride;
        over_vectors<T>(channels, [&](int c, auto lanes) { put(to + c, activated(map, z, gate, from + c, lanes)); });
    }
}

// mask * (gate * d + offset) of one vector.
template <class T, class Lanes>
inline Vector<T> masked(const Gradient<T>& g, const T* d, Vector<T> z, const T* gate, const T* offset, int c,
                        Lanes lanes) {
    Vector<T> value = get(d + c, lanes);
    if (gate) value = value * get(gate + c, lanes);
    if (offset) value += get(offset + c, lanes);
    if (g.map.relu) {
        const T* statistics = g.map.statistics + c;
        const Vector<T> y = z * get(statistics + 2 * g.map.row, lanes) + get(statistics + 3 * g.map.row, lanes);
        value = y <= Vector<T>{} ? Vector<T>{} : value;
    }
    return value;
}

// dz of channels [from, from + channels) of `count` pixels -> out, whose pixels lie `stride` apart.
template <class T>
void read_gradient(const Gradient<T>& g, int first, int count, int image_pixels, int from, int channels, T* out,
                   std::ptrdiff_t stride) {
    const T *a = g.coefficients + from, *b = a + g.row, *k = b + g.row;
    for (int p = 0; p < count; ++p) {
        const std::ptrdiff_t pixel = first + p, image = g.map.gate || g.offset ? pixel / image_pixels : 0;
        const T* z = g.map.values + pixel * g.map.channels;
        const T* d = g.d + pixel * g.d_stride;
        const T* gate = g.map.gate ? g.map.gate + image * g.map.gate_stride : nullptr;
        const T* offset = g.offset ? g.offset + image * g.map.gate_stride : nullptr;
        T* to = out + p * stride;
        over_vectors<T>(channels, [&](int c, auto lanes) {
            const Vector<T> raw = get(z + from + c, lanes);
            const Vector<T> value = masked(g, d, raw, gate, offset, from + c, lanes);
            put(to + c, get(a + c, lanes) * value + get(b + c, lanes) * raw + get(k + c, lanes));
        });
    }
}

}  // namespace ghostnets::GHOSTNETS_ISA
