// Activations of a vector in registers; which one is the same for a whole map, so the branch is always predicted.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace ghostnets::GHOSTNETS_ISA {

template <int N>
inline Floats<N> activate(Floats<N> x, Activation activation) {
    const Floats<N> zero{}, one = zero + 1.0f;
    switch (activation) {
        case Activation::none: return x;
        case Activation::relu: return maximum<N>(zero, x);
        case Activation::sigmoid: return one / (one + exponential<N>(-x));
        case Activation::hard_sigmoid: return minimum<N>(one, maximum<N>(zero, (x + 3.0f) * (1.0f / 6.0f)));
        case Activation::clamp: return minimum<N>(one, maximum<N>(zero, x));
    }
    return x;
}

template <int N>
inline Floats<N> combined(Floats<N> x, Combine combine, const float* other) {
    switch (combine) {
        case Combine::none: return x;
        case Combine::add: return x + load<N>(other);
        case Combine::multiply: return x * load<N>(other);
    }
    return x;
}

}  // namespace ghostnets::GHOSTNETS_ISA
