// Activations of vectors.
#pragma once

#include "common/simd.hpp"
#include "kernels/kernels.hpp"

namespace ghostnets::GHOSTNETS_ISA {

template <int N>
inline Floats<N> activated(Floats<N> x, Activation activation, float slope) {
    const Floats<N> zero{}, one = zero + 1.0f;
    switch (activation) {
        case Activation::none: return x;
        case Activation::relu: return maximum<N>(zero, x);
        case Activation::sigmoid: return one / (one + exponential<N>(-x));
        case Activation::hard_sigmoid: return minimum<N>(one, maximum<N>(zero, (x + 3.0f) * (1.0f / 6.0f)));
        case Activation::clamp: return minimum<N>(one, maximum<N>(zero, x));
        case Activation::relu6: return minimum<N>(zero + 6.0f, maximum<N>(zero, x));
        case Activation::leaky_relu: return maximum<N>(x * slope, x);  // slopes are from 0 to 1
        case Activation::hard_swish: return x * minimum<N>(one, maximum<N>(zero, (x + 3.0f) * (1.0f / 6.0f)));
        case Activation::silu: return x / (one + exponential<N>(-x));
    }
    return x;
}

// Calls work<kind>() with the activation that a kernel computes as it stores; none stands for ReLU as well.
template <class Work>
[[gnu::always_inline]] inline void with_stored_activation(Activation kind, Work&& work) {
    if (kind == Activation::none) [[likely]]
        work.template operator()<Activation::none>();
    else if (kind == Activation::relu6) work.template operator()<Activation::relu6>();
    else if (kind == Activation::leaky_relu) work.template operator()<Activation::leaky_relu>();
    else work.template operator()<Activation::hard_swish>();
}

// What a kernel stores of a sum.
template <Activation kind, int N>
inline Floats<N> stored(Floats<N> sum, float clamp_min, float slope) {
    return kind == Activation::none ? maximum<N>(Floats<N>{} + clamp_min, sum) : activated<N>(sum, kind, slope);
}

}  // namespace ghostnets::GHOSTNETS_ISA
