// The Python module ghostnets.layers._training. Tensors come as addresses; layers/fused knows their shapes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "training.hpp"

namespace nb = nanobind;

namespace {

using namespace ghostnets::training;

const InstructionSet* instruction_set(const std::string& name) {
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx512 && (name.empty() || name == kAvx512.name)) return &kAvx512;
    if (avx2 && (name.empty() || name == kAvx2.name)) return &kAvx2;
#endif
    return name.empty() || name == kBaseline.name ? &kBaseline : nullptr;
}

const InstructionSet* chosen = instruction_set("");

template <class T>
T* address(nb::handle value) {
    return reinterpret_cast<T*>(nb::cast<std::uintptr_t>(value));
}

template <class T>
Part<T> part(nb::handle v) {  // values, channels, statistics, row, relu, gate, gate_stride
    return {address<const T>(v[0]),         nb::cast<int>(v[1]),  address<const T>(v[2]),
            nb::cast<std::ptrdiff_t>(v[3]), nb::cast<bool>(v[4]), address<const T>(v[5]),
            nb::cast<std::ptrdiff_t>(v[6])};
}

template <class T>
Norm<T> norm(nb::handle v) {  // gamma, beta, running_mean, running_var, momentum, eps, statistics
    return {address<const T>(v[0]), address<const T>(v[1]), address<T>(v[2]), address<T>(v[3]),
            nb::cast<double>(v[4]), nb::cast<double>(v[5]), address<T>(v[6])};
}

template <class T>
NormGradient<T> norm_gradient(nb::handle v) {  // gamma, its gradient, that of beta, coefficients, row; or None
    if (v.is_none()) return {};
    return {address<const T>(v[0]), address<T>(v[1]), address<T>(v[2]), address<T>(v[3]),
            nb::cast<std::ptrdiff_t>(v[4])};
}

template <class T>
Gradient<T> gradient(nb::handle v) {  // d, d_stride, part, offset, coefficients, row
    return {address<const T>(v[0]), nb::cast<std::ptrdiff_t>(v[1]), part<T>(v[2]),
            address<const T>(v[3]), address<const T>(v[4]),         nb::cast<std::ptrdiff_t>(v[5])};
}

template <class T>
Target<T> target(nb::handle v) {  // out, add, add_stride, add_gate, add_offset, gate_stride, norm, image_sums
    return {address<T>(v[0]),       address<const T>(v[1]), nb::cast<std::ptrdiff_t>(v[2]),
            address<const T>(v[3]), address<const T>(v[4]), nb::cast<std::ptrdiff_t>(v[5]),
            norm_gradient<T>(v[6]), address<T>(v[7])};
}

template <class T>
Branches<T> branches(int threads, nb::tuple shape, std::uintptr_t x, std::uintptr_t weights) {
    int v[7];
    for (int i = 0; i < 7; ++i) v[i] = nb::cast<int>(shape[i]);
    return {threads,
            v[0],
            v[1],
            v[2],
            v[3],
            v[4],
            v[5],
            v[6],
            reinterpret_cast<const T*>(x),
            reinterpret_cast<const T*>(weights)};
}

template <class Op>
void set_parts(Op& op, nb::tuple parts) {
    for (nb::handle v : parts)
        op.parts[op.part_count++] = part<std::remove_const_t<std::remove_pointer_t<decltype(op.weight)>>>(v);
}

template <class T>
void define(nb::module_& module, const char* suffix, Kernels<T> InstructionSet::* kernels) {
    const auto name = [&](const char* verb) { return std::string(verb) + suffix; };
    const auto run = [kernels](auto member, const auto& op) {
        const nb::gil_scoped_release release;
        ((chosen->*kernels).*member)(op);
    };
    module.def(name("pointwise_forward").c_str(),
               [run](int threads, int pixels, int image_pixels, nb::tuple parts, std::uintptr_t weight,
                     int out_channels, std::uintptr_t out, nb::tuple normalization) {
                   Pointwise<T> op{threads, pixels, image_pixels};
                   op.weight = reinterpret_cast<const T*>(weight);
                   set_parts(op, parts);
                   op.out_channels = out_channels;
                   op.out = reinterpret_cast<T*>(out);
                   op.norm = norm<T>(normalization);
                   run(&Kernels<T>::pointwise_forward, op);
               });
    module.def(name("pointwise_backward").c_str(),
               [run](int threads, int pixels, int image_pixels, nb::tuple parts, std::uintptr_t weight, nb::tuple given,
                     nb::tuple targets, std::uintptr_t weight_gradient) {
                   Pointwise<T> op{threads, pixels, image_pixels};
                   op.weight = reinterpret_cast<const T*>(weight);
                   set_parts(op, parts);
                   op.gradient = gradient<T>(given);
                   op.out_channels = op.gradient.part.channels;
                   for (int i = 0; i < op.part_count; ++i) op.targets[i] = target<T>(targets[i]);
                   op.weight_gradient = reinterpret_cast<T*>(weight_gradient);
                   run(&Kernels<T>::pointwise_backward, op);
               });
    module.def(name("depthwise_forward").c_str(),
               [run](int threads, int images, int height, int width, nb::tuple parts, std::uintptr_t weight, int kernel,
                     int stride, std::uintptr_t out, nb::tuple normalization) {
                   Depthwise<T> op{threads, images, height, width, kernel, stride};
                   op.weight = reinterpret_cast<const T*>(weight);
                   set_parts(op, parts);
                   op.out = reinterpret_cast<T*>(out);
                   op.norm = norm<T>(normalization);
                   run(&Kernels<T>::depthwise_forward, op);
               });
    module.def(name("depthwise_backward").c_str(),
               [run](int threads, int images, int height, int width, nb::tuple parts, std::uintptr_t weight, int kernel,
                     int stride, nb::tuple given, nb::tuple targets, std::uintptr_t weight_gradient) {
                   Depthwise<T> op{threads, images, height, width, kernel, stride};
                   op.weight = reinterpret_cast<const T*>(weight);
                   set_parts(op, parts);
                   op.gradient = gradient<T>(given);
                   for (int i = 0; i < op.part_count; ++i) op.targets[i] = target<T>(targets[i]);
                   op.weight_gradient = reinterpret_cast<T*>(weight_gradient);
                   run(&Kernels<T>::depthwise_backward, op);
               });
    // shape: images, height, width, channels, kernel, stride, filters; moments in double
    module.def(name("branch_moments").c_str(),
               [run](int threads, nb::tuple shape, std::uintptr_t x, std::uintptr_t weights, std::uintptr_t moments) {
                   Branches<T> op = branches<T>(threads, shape, x, weights);
                   op.moments = reinterpret_cast<double*>(moments);
                   run(&Kernels<T>::branch_moments, op);
               });
    module.def(name("branch_gradient").c_str(),
               [run](int threads, nb::tuple shape, std::uintptr_t x, std::uintptr_t weights, std::uintptr_t d,
                     std::uintptr_t merged, std::uintptr_t slopes, std::uintptr_t offsets, std::uintptr_t out,
                     std::uintptr_t weight_gradients) {
                   Branches<T> op = branches<T>(threads, shape, x, weights);
                   op.d = reinterpret_cast<const T*>(d), op.merged = reinterpret_cast<const T*>(merged);
                   op.slopes = reinterpret_cast<const T*>(slopes), op.offsets = reinterpret_cast<const T*>(offsets);
                   op.out = reinterpret_cast<T*>(out), op.weight_gradients = reinterpret_cast<T*>(weight_gradients);
                   run(&Kernels<T>::branch_gradient, op);
               });
    module.def(name("join").c_str(),
               [run](int threads, int pixels, nb::tuple parts, nb::object residual, std::uintptr_t out) {
                   Join<T> op{threads, pixels, pixels};
                   for (nb::handle v : parts) op.parts[op.part_count++] = part<T>(v);
                   if (!residual.is_none()) op.residual = part<T>(residual);
                   op.out = reinterpret_cast<T*>(out);
                   run(&Kernels<T>::join, op);
               });
    module.def(name("sums").c_str(), [run](int threads, int pixels, nb::tuple given, nb::tuple normalization) {
        run(&Kernels<T>::sums, Sums<T>{threads, pixels, pixels, gradient<T>(given), norm_gradient<T>(normalization)});
    });
    module.def(name("image_sums").c_str(),
               [run](int threads, int pixels, int image_pixels, nb::tuple of, std::uintptr_t out) {
                   run(&Kernels<T>::image_sums,
                       ImageSums<T>{threads, pixels, image_pixels, part<T>(of), reinterpret_cast<T*>(out)});
               });
    // sums: [2][channels] in double; only the arithmetic of a few numbers
    module.def(name("finish_gradient").c_str(),
               [](nb::tuple of, std::uintptr_t sums, double count, nb::tuple normalization) {
                   const Part<T> p = part<T>(of);
                   finish_gradient(norm_gradient<T>(normalization), p.statistics, p.row,
                                   reinterpret_cast<const double*>(sums), p.channels, count);
               });
}

}  // namespace

NB_MODULE(_training, module) {
    define<float>(module, "_f32", &InstructionSet::single);
    define<double>(module, "_f64", &InstructionSet::full);
    module.def("instruction_set", [] { return std::string(chosen->name); });
    module.def("choose_instruction_set", [](const std::string& name) {
        const InstructionSet* found = instruction_set(name);
        if (found) chosen = found;
        return found != nullptr;
    });
}
