// The Python module ghostnets.train.fused._training. Tensors are passed as addresses, so it is built without torch.
//
// The submodules f32 and f64 hold the same structs and functions for maps of either type.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include "training/kernels.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace ghostnets;
using namespace ghostnets::training;

using Address = std::uintptr_t;

const KernelTable* chosen = find_kernels("");

// The kernels of the chosen instruction set for T.
template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels() {
    return chosen->single;
}
template <>
const Kernels<double>& kernels() {
    return chosen->full;
}

template <class Op>
void run(void (*kernel)(const Op&), const Op& op) {
    const nb::gil_scoped_release release;
    kernel(op);
}

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

template <class Op, class T>
void set_inputs(Op& op, const std::vector<MapView<T>>& inputs) {
    if (inputs.size() > kMaxInputs) throw std::invalid_argument("a kernel takes at most two inputs");
    op.input_count = int(inputs.size());
    std::copy(inputs.begin(), inputs.end(), op.inputs);
}

template <class Op, class T>
void set_backward(Op& op, const Gradient<T>& gradient, const std::vector<Target<T>>& targets, Address weight_gradient) {
    if (int(targets.size()) != op.input_count) throw std::invalid_argument("each input needs one target");
    op.gradient = gradient;
    std::copy(targets.begin(), targets.end(), op.targets);
    op.weight_gradient = at<T>(weight_gradient);
}

template <class T>
void define_structs(nb::module_& module) {
    nb::class_<MapView<T>>(module, "MapView")
        .def(
            "__init__",
            [](MapView<T>* self, Address values, int channels, Address statistics, bool relu, Address gate,
               std::ptrdiff_t gate_stride) {
                new (self)
                    MapView<T>{at<T>(values), channels, at<T>(statistics), channels, relu, at<T>(gate), gate_stride};
            },
            nb::kw_only(), "values"_a, "channels"_a, "statistics"_a = 0, "relu"_a = false, "gate"_a = 0,
            "gate_stride"_a = 0);
    nb::class_<Norm<T>>(module, "Norm")
        .def(
            "__init__",
            [](Norm<T>* self, Address gamma, Address beta, Address running_mean, Address running_var, double momentum,
               double eps, Address statistics) {
                new (self) Norm<T>{at<T>(gamma), at<T>(beta), at<T>(running_mean), at<T>(running_var),
                                   momentum,     eps,         at<T>(statistics)};
            },
            nb::kw_only(), "gamma"_a, "beta"_a, "running_mean"_a, "running_var"_a, "momentum"_a, "eps"_a,
            "statistics"_a);
    nb::class_<NormGradient<T>>(module, "NormGradient")
        .def(
            "__init__",
            [](NormGradient<T>* self, int channels, Address gamma, Address gamma_gradient, Address beta_gradient,
               Address coefficients) {
                new (self) NormGradient<T>{at<T>(gamma), at<T>(gamma_gradient), at<T>(beta_gradient),
                                           at<T>(coefficients), channels};
            },
            nb::kw_only(), "channels"_a, "gamma"_a, "gamma_gradient"_a, "beta_gradient"_a, "coefficients"_a);
    nb::class_<Gradient<T>>(module, "Gradient")
        .def(
            "__init__",
            [](Gradient<T>* self, Address d, std::ptrdiff_t d_stride, const MapView<T>& map, Address offset,
               Address coefficients) {
                new (self) Gradient<T>{at<T>(d), d_stride, map, at<T>(offset), at<T>(coefficients), map.channels};
            },
            nb::kw_only(), "d"_a, "d_stride"_a, "map"_a, "offset"_a = 0, "coefficients"_a = 0);
    nb::class_<Target<T>>(module, "Target")
        .def(
            "__init__",
            [](Target<T>* self, Address out, Address add, std::ptrdiff_t add_stride, Address add_gate,
               Address add_offset, std::ptrdiff_t gate_stride, const std::optional<NormGradient<T>>& norm,
               Address image_sums) {
                new (self) Target<T>{at<T>(out),
                                     at<T>(add),
                                     add_stride,
                                     at<T>(add_gate),
                                     at<T>(add_offset),
                                     gate_stride,
                                     norm.value_or(NormGradient<T>{}),
                                     at<T>(image_sums)};
            },
            nb::kw_only(), "out"_a = 0, "add"_a = 0, "add_stride"_a = 0, "add_gate"_a = 0, "add_offset"_a = 0,
            "gate_stride"_a = 0, "norm"_a = nb::none(), "image_sums"_a = 0);
}

template <class T>
void define_pointwise(nb::module_& module) {
    module.def(
        "pointwise_forward",
        [](int threads, int pixels, int image_pixels, const std::vector<MapView<T>>& inputs, Address weight,
           int out_channels, Address out, const Norm<T>& norm) {
            Pointwise<T> op{threads, pixels, image_pixels};
            set_inputs(op, inputs);
            op.weight = at<T>(weight);
            op.out_channels = out_channels;
            op.out = at<T>(out);
            op.norm = norm;
            run(kernels<T>().pointwise_forward, op);
        },
        nb::kw_only(), "threads"_a, "pixels"_a, "image_pixels"_a, "inputs"_a, "weight"_a, "out_channels"_a, "out"_a,
        "norm"_a);
    module.def(
        "pointwise_backward",
        [](int threads, int pixels, int image_pixels, const std::vector<MapView<T>>& inputs, Address weight,
           const Gradient<T>& gradient, const std::vector<Target<T>>& targets, Address weight_gradient) {
            Pointwise<T> op{threads, pixels, image_pixels};
            set_inputs(op, inputs);
            op.weight = at<T>(weight);
            op.out_channels = gradient.map.channels;
            set_backward(op, gradient, targets, weight_gradient);
            run(kernels<T>().pointwise_backward, op);
        },
        nb::kw_only(), "threads"_a, "pixels"_a, "image_pixels"_a, "inputs"_a, "weight"_a, "gradient"_a, "targets"_a,
        "weight_gradient"_a);
}

template <class T>
void define_depthwise(nb::module_& module) {
    module.def(
        "depthwise_forward",
        [](int threads, int images, int height, int width, int kernel, int stride,
           const std::vector<MapView<T>>& inputs, Address weight, Address out, const Norm<T>& norm) {
            Depthwise<T> op{threads, images, height, width, kernel, stride};
            set_inputs(op, inputs);
            op.weight = at<T>(weight);
            op.out = at<T>(out);
            op.norm = norm;
            run(kernels<T>().depthwise_forward, op);
        },
        nb::kw_only(), "threads"_a, "images"_a, "height"_a, "width"_a, "kernel"_a, "stride"_a, "inputs"_a, "weight"_a,
        "out"_a, "norm"_a);
    module.def(
        "depthwise_backward",
        [](int threads, int images, int height, int width, int kernel, int stride,
           const std::vector<MapView<T>>& inputs, Address weight, const Gradient<T>& gradient,
           const std::vector<Target<T>>& targets, Address weight_gradient) {
            Depthwise<T> op{threads, images, height, width, kernel, stride};
            set_inputs(op, inputs);
            op.weight = at<T>(weight);
            set_backward(op, gradient, targets, weight_gradient);
            run(kernels<T>().depthwise_backward, op);
        },
        nb::kw_only(), "threads"_a, "images"_a, "height"_a, "width"_a, "kernel"_a, "stride"_a, "inputs"_a, "weight"_a,
        "gradient"_a, "targets"_a, "weight_gradient"_a);
}

template <class T>
void define_branches(nb::module_& module) {
    module.def(
        "branch_moments",
        [](int threads, int images, int height, int width, int channels, int kernel, int stride, int filters, Address x,
           Address weights, Address moments) {
            Branches<T> op{threads, images, height, width, channels, kernel, stride, filters, at<T>(x), at<T>(weights)};
            op.moments = at<double>(moments);
            run(kernels<T>().branch_moments, op);
        },
        nb::kw_only(), "threads"_a, "images"_a, "height"_a, "width"_a, "channels"_a, "kernel"_a, "stride"_a,
        "filters"_a, "x"_a, "weights"_a, "moments"_a);
    module.def(
        "branch_gradient",
        [](int threads, int images, int height, int width, int channels, int kernel, int stride, int filters, Address x,
           Address weights, Address d, Address merged, Address slopes, Address offsets, Address out,
           Address weight_gradients) {
            Branches<T> op{threads, images, height, width, channels, kernel, stride, filters, at<T>(x), at<T>(weights)};
            op.d = at<T>(d);
            op.merged = at<T>(merged);
            op.slopes = at<T>(slopes);
            op.offsets = at<T>(offsets);
            op.out = at<T>(out);
            op.weight_gradients = at<T>(weight_gradients);
            run(kernels<T>().branch_gradient, op);
        },
        nb::kw_only(), "threads"_a, "images"_a, "height"_a, "width"_a, "channels"_a, "kernel"_a, "stride"_a,
        "filters"_a, "x"_a, "weights"_a, "d"_a, "merged"_a, "slopes"_a, "offsets"_a, "out"_a, "weight_gradients"_a);
}

template <class T>
void define_elementwise(nb::module_& module) {
    module.def(
        "join",
        [](int threads, int pixels, const std::vector<MapView<T>>& inputs, const std::optional<MapView<T>>& residual,
           Address out) {
            Join<T> op{threads, pixels, pixels};
            set_inputs(op, inputs);
            if (residual) op.residual = *residual;
            op.out = at<T>(out);
            run(kernels<T>().join, op);
        },
        nb::kw_only(), "threads"_a, "pixels"_a, "inputs"_a, "residual"_a.none(), "out"_a);
    module.def(
        "sums",
        [](int threads, int pixels, const Gradient<T>& gradient, const NormGradient<T>& norm) {
            run(kernels<T>().sums, Sums<T>{threads, pixels, pixels, gradient, norm});
        },
        nb::kw_only(), "threads"_a, "pixels"_a, "gradient"_a, "norm"_a);
    module.def(
        "image_sums",
        [](int threads, int pixels, int image_pixels, const MapView<T>& map, Address out) {
            run(kernels<T>().image_sums, ImageSums<T>{threads, pixels, image_pixels, map, at<T>(out)});
        },
        nb::kw_only(), "threads"_a, "pixels"_a, "image_pixels"_a, "map"_a, "out"_a);
    // sums: [2][channels] in double
    module.def(
        "finish_gradient",
        [](const MapView<T>& map, Address sums, double count, const NormGradient<T>& norm) {
            finish_gradient(norm, map.statistics, map.row, at<const double>(sums), map.channels, count);
        },
        nb::kw_only(), "map"_a, "sums"_a, "count"_a, "norm"_a);
}

template <class T>
void define(nb::module_ module) {
    define_structs<T>(module);
    define_pointwise<T>(module);
    define_depthwise<T>(module);
    define_branches<T>(module);
    define_elementwise<T>(module);
}

}  // namespace

NB_MODULE(_training, module) {
    define<float>(module.def_submodule("f32"));
    define<double>(module.def_submodule("f64"));
    module.def("isa", [] { return std::string(isa_name(chosen->isa)); });
    // Selects the kernels of an instruction set; False if this processor has none of that name.
    module.def(
        "set_isa",
        [](const std::string& name) {
            const KernelTable* found = find_kernels(name);
            if (found) chosen = found;
            return found != nullptr;
        },
        "name"_a);
}
