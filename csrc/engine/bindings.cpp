// The Python module ghostnets.engine._native.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>  // of results: the conversions of arguments are noexcept
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <climits>
#include <stdexcept>

#include "engine/node_fields.hpp"
#include "engine/session.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace ghostnets;

using Array = nb::ndarray<const float, nb::numpy, nb::c_contig, nb::device::cpu>;

// nanobind's own conversions to containers are noexcept: there a failed allocation would end the process.
std::string text(nb::handle value) {
    Py_ssize_t size = 0;
    const char* data = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
    if (!data) nb::raise_python_error();
    return {data, std::size_t(size)};
}

template <class T>
std::vector<T> list_of(nb::handle values) {
    std::vector<T> found;
    for (nb::handle value : values) found.push_back(nb::cast<T>(value));
    return found;
}

// The fields of a node, for node_from.
template <class TensorNamed>
struct NodeFields {
    const nb::dict& fields;
    const TensorNamed& tensor_named;

    bool has(const char* name) const { return fields.contains(name); }
    int integer(const char* name) const { return nb::cast<int>(fields[name]); }
    float real(const char* name) const { return nb::cast<float>(fields[name]); }
    std::string text(const char* name) const { return ::text(fields[name]); }
    std::vector<int> integers(const char* name) const { return list_of<int>(fields[name]); }
    Tensor tensor(const char* name) const { return tensor_named(fields[name]); }
};

Plan plan_from(const nb::dict& plan, const nb::dict& tensors, std::vector<Array>& keep) {
    Plan source;
    source.in_channels = nb::cast<int>(plan["in_channels"]);
    source.precision = type_named(text(plan["precision"]));
    source.floats = list_of<int>(plan["floats"]);
    source.scale = list_of<float>(plan["scale"]);
    source.shift = list_of<float>(plan["shift"]);
    for (nb::handle order : plan["orders"]) source.orders.push_back(list_of<int>(order));
    for (nb::handle layout : plan["layouts"])
        source.layouts.push_back({nb::cast<int>(layout[0]), nb::cast<int>(layout[1])});
    const auto tensor_named = [&](nb::handle name) {
        Tensor found;
        keep.push_back(nb::cast<Array>(tensors[name]));
        for (std::size_t axis = 0; axis < keep.back().ndim(); ++axis)
            found.shape.push_back(int(std::min<std::size_t>(keep.back().shape(axis), INT_MAX)));
        found.data = keep.back().data();
        return found;
    };
    for (nb::handle name : plan["ranges"]) source.ranges.push_back(name.is_none() ? Tensor{} : tensor_named(name));
    for (nb::handle handle : plan["nodes"]) {
        const nb::dict fields = nb::cast<nb::dict>(handle);
        source.nodes.push_back(node_from(NodeFields<decltype(tensor_named)>{fields, tensor_named}));
    }
    return source;
}

using AnyImages = nb::ndarray<nb::numpy, nb::c_contig, nb::device::cpu, nb::ndim<4>, nb::ro>;
using OutputArray = nb::ndarray<float, nb::numpy, nb::c_contig, nb::device::cpu>;

// The arguments of a run.
struct Call {
    Images images;
    int count, height, width;
    Outputs outputs;

    Call(Session& session, const AnyImages& array, const nb::list& arrays)
        : images{array.data(), array.dtype() == nb::dtype<std::uint8_t>()} {
        const std::size_t first = images.bytes ? 1 : 2, channels = array.shape(images.bytes ? 3 : 1);
        if (!images.bytes && array.dtype() != nb::dtype<float>())
            throw std::invalid_argument("the images are neither uint8 nor float32");
        for (const std::size_t side : {array.shape(0), array.shape(first), array.shape(first + 1)})
            if (side < 1 || side > INT_MAX) throw std::invalid_argument("the images have an impossible shape");
        if (channels != std::size_t(session.network().in_channels))
            throw std::invalid_argument("the images have a different number of channels from the network");
        count = int(array.shape(0));
        height = int(array.shape(first));
        width = int(array.shape(first + 1));
        for (nb::handle each : arrays) {
            const auto output = nb::cast<OutputArray>(each);
            outputs.data.push_back(output.data());
            outputs.sizes.push_back(output.size());
        }
        session.adopt_after_fork();  // under the interpreter's lock
    }
};

nb::list profile(Session& session, const AnyImages& images, const nb::list& outputs) {
    const Call call(session, images, outputs);
    std::vector<NodeProfile> profile;
    {
        const nb::gil_scoped_release release;
        profile = session.profile(call.images, call.count, call.height, call.width, call.outputs);
    }
    nb::list rows;
    for (const NodeProfile& row : profile)
        rows.append(nb::make_tuple(row.name, row.kind, row.macs, row.weight_bytes, row.map_bytes, row.seconds));
    return rows;
}

// Arrays (pixels, segments * channels) of all maps.
nb::list observe(Session& session, const AnyImages& image) {
    const Call call(session, image, nb::list());
    nb::list maps;
    const auto all = session.observe(call.images, call.height, call.width);
    for (std::size_t map = 0; map < all.size(); ++map) {
        const Layout& layout = session.network().layouts[map];
        auto* values = new std::vector<float>(all[map]);
        const nb::capsule owner(values, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
        const std::size_t channels = layout.segments * layout.channels;
        maps.append(nb::cast(
            nb::ndarray<nb::numpy, float, nb::ndim<2>>(values->data(), {values->size() / channels, channels}, owner)));
    }
    return maps;
}

void init_session(Session* self, const nb::dict& plan, const nb::dict& tensors, int threads, const nb::str& isa) {
    const Kernels* kernels = find_kernels(text(isa));
    if (!kernels) throw std::invalid_argument("this processor does not support the instruction set " + text(isa));
    std::vector<Array> keep;
    new (self) Session(plan_from(plan, tensors, keep), *kernels, threads);
}

void run(Session& session, const AnyImages& images, const nb::list& outputs) {
    const Call call(session, images, outputs);
    const nb::gil_scoped_release release;
    session.run(call.images, call.count, call.height, call.width, call.outputs);
}

}  // namespace

NB_MODULE(_native, module) {
    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const Isa isa : supported_isas()) names.emplace_back(isa_name(isa));
        return names;
    });

    nb::class_<Session>(module, "Session")
        .def("__init__", &init_session, "plan"_a, "tensors"_a, "threads"_a, "isa"_a)
        .def(
            "share_weights", [](const Session& self, int threads) { return new Session(self, threads); }, "threads"_a,
            nb::rv_policy::take_ownership)
        .def("run", &run, "images"_a, "outputs"_a)
        .def("profile", &profile, "images"_a, "outputs"_a)
        .def(
            "output_sizes",
            [](Session& self, int count, int height, int width) {
                self.adopt_after_fork();
                const nb::gil_scoped_release release;
                return self.output_sizes(count, height, width);
            },
            "count"_a, "height"_a, "width"_a)
        .def_prop_ro("memory_bytes",
                     [](Session& self) {
                         self.adopt_after_fork();
                         const nb::gil_scoped_release release;
                         return self.memory_bytes();
                     })
        .def_prop_ro("gives_maps", [](const Session& self) { return self.network().gives_maps(); })
        .def("observe", &observe, "image"_a)
        .def_prop_ro("isa", [](const Session& self) { return std::string(isa_name(self.network().kernels.isa)); })
        .def_prop_ro("threads", &Session::threads);
}
