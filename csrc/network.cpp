#include "network.hpp"

#include "pack.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

namespace ghostnets {

Buffer::Buffer(std::size_t size) {
    const std::size_t bytes = (std::max<std::size_t>(size, 1) + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (!memory) throw std::bad_alloc();
    std::memset(memory, 0, bytes);
    data_.reset(static_cast<std::byte*>(memory));
}

void Buffer::Free::operator()(std::byte* data) const { std::free(data); }

int Network::out_size(const Op& op, int size, bool vertical) {
    switch (op.kind) {
        case OpKind::dense:
        case OpKind::depthwise: {
            const int kernel = vertical ? op.kernel_h : op.kernel_w;
            const int dilation = vertical ? op.dilation_h : op.dilation_w;
            const int pad = vertical ? op.pad_h() : op.pad_w();
            return (size + 2 * pad - dilation * (kernel - 1) - 1) / op.stride + 1;
        }
        case OpKind::pad: return vertical ? size : size + 2 * op.pad_w();
        case OpKind::maximum:
            return (size + op.pad + op.pad_end - op.dilation_h * (op.kernel_h - 1) - 1) / op.stride + 1;
        case OpKind::average: return std::max(1, size / 2);
        case OpKind::sum:
        case OpKind::mean: return 1;
        default: return size;
    }
}

DenseTask Network::dense_task(const Op& op, int first, int count) const {
    const Layout &in = layouts[op.in], &out = layouts[op.out];
    DenseTask task{};
    task.in = in.type;
    task.out_type = out.type;
    task.segment_count = op.kernel_h * op.kernel_w * op.segments;
    task.segment_groups = in.groups();
    task.pixel_stride = std::ptrdiff_t(op.stride) * in.stride();
    task.vector_stride = std::ptrdiff_t(op.depth);
    task.weights = op.weights.data() + std::size_t(first) * op.depth * kernels.width * 4;
    task.bias = op.bias.floats() + first * kernels.width;
    task.scale = op.scale.floats() + first * kernels.width;
    task.vectors = count;
    task.columns = op.channels - first * kernels.width;
    task.out_stride = out.stride();
    task.least = op.least();
    return task;
}

namespace {

void require(bool condition, const std::string& what) {
    if (!condition) throw std::invalid_argument("the plan is damaged: " + what);
}

class Lowering {
public:
    Lowering(Network& network, const PlanSource& source)
        : net_(network), source_(source), width_(network.kernels.width), written_(network.layouts.size()) {
        for (std::size_t map = 0; map < net_.layouts.size(); ++map) net_.quantizations.push_back(quantization(int(map)));
    }

    void lower(const Node& node) {
        require(node.stride >= 1 && node.dilation_h >= 1 && node.dilation_w >= 1, "a stride or dilation is below 1");
        for (int map : {node.input, node.residual, node.gate}) require(map < int(written_.size()), "a map is missing");
        const bool is_known = node.kind == "stem" || (node.input >= 0 && written_[node.input]);
        require(is_known && (node.residual < 0 || written_[node.residual]) && (node.gate < 0 || written_[node.gate]),
                "a node reads a map before it is written");
        require(node.output >= 0 && node.output < int(written_.size()) && !written_[node.output],
                "a map is written twice");
        written_[node.output] = true;
        for (int map : node.pooled) require(map >= 0 && map < int(written_.size()) && written_[map], "a map is missing");
        if (node.kind == "stem") {
            stem(node);
        } else if (node.kind == "ghost") {
            ghost(node);
        } else if (node.kind == "depthwise") {
            for (int s = 0; s < layout(node.output).segments; ++s)
                depthwise(node, node.input, s, node.output, s, node.weight, node.bias, s);
        } else if (node.kind == "conv") {
            conv(node, node.input, node.output, layout(node.output), node.dilation_h);
        } else if (node.kind == "add") {
            combine(node, node.input, node.residual, node.output, Combine::add);
            starts_part_ = true;
        } else if (node.kind == "average") {
            each_segment(node.input, node.output, OpKind::average);
        } else if (node.kind == "max_pool") {
            max_pool(node);
        } else if (node.kind == "squeeze_excite") {
            squeeze(node, {node.input}, node.activation, Combine::multiply, Activation::none);
        } else if (node.kind == "mix") {
            squeeze(node, node.pooled, Activation::none, Combine::add, node.activation);
        } else if (node.kind == "pool") {
            pool({node.input}, node.output);
            net_.features = layout(node.input).stride();
        } else if (node.kind == "linear") {
            net_.head.push_back(dense(node, node.input, node.output, layout(node.output), 0, node.weight, node.bias));
        } else if (node.kind == "output") {
            output(node);
        } else {
            require(false, "there is a node of unknown kind " + node.kind);
        }
    }

private:
    const Layout& layout(int map) const {
        require(map >= 0 && map < int(net_.layouts.size()), "it names a map that it does not have");
        return net_.layouts[map];
    }

    int new_map(Layout shape, Type type) {
        shape.type = type;
        net_.layouts.push_back(shape);
        net_.quantizations.push_back(quantization(int(net_.layouts.size()) - 1));
        return int(net_.layouts.size()) - 1;
    }
    int new_map(const Layout& shape) { return new_map(shape, shape.type); }

    // Squeeze-and-excitation is a small part of the work, and its gates touch whole maps: it is never in bytes.
    Type fine_type() const { return source_.precision == Type::u8 ? Type::bf16 : source_.precision; }

    Quantization quantization(int map) const {
        const Layout& shape = net_.layouts[map];
        if (shape.type != Type::u8 || map >= int(source_.ranges.size()) || !source_.ranges[map].data) return {};
        require(source_.ranges[map].shape == std::vector<int>{2, shape.segments * shape.channels}, "a range has another shape");
        return quantization_of(source_.ranges[map]);
    }

    Map map(int index) const {
        const Map found{layout(index), net_.quantizations[index]};
        require(found.layout.type != Type::u8 || !found.quantization.scales.empty(), "the range of a map is missing");
        return found;
    }

    // A convolution with one group: weights (outputs, terms) or (outputs, terms, kernel_h, kernel_w), over the segments of
    // the input from `first_segment` on that have so many channels.
    Op dense(const Node& node, int in, int out, const Layout& to, int first_segment, const Tensor& weight,
             const Tensor& bias) const {
        const Layout& from = layout(in);
        const int rows = to.segments * to.channels, rank = int(weight.shape.size());
        require((rank == 2 || rank == 4) && weight.size(0) == rows && bias.shape == std::vector<int>{rows} &&
                    weight.size(1) % from.channels == 0 && weight.size(1) <= (from.segments - first_segment) * from.channels,
                "a " + node.kind + " node has weights of another shape than its maps");
        Op op{.kind = OpKind::dense, .in = in, .out = out, .channels = to.stride()};
        op.activation = node.activation;
        op.first_segment = first_segment;
        op.segments = weight.size(1) / from.channels;
        op.kernel_h = rank == 4 ? weight.size(2) : 1;
        op.kernel_w = rank == 4 ? weight.size(3) : 1;
        require(op.kernel_h % 2 == 1 && op.kernel_w % 2 == 1, "a kernel has an even side");
        const int taps = op.kernel_h * op.kernel_w, channels = from.channels, segments = op.segments;
        Map target = map(out);
        target.layout.segments = to.segments;  // perhaps the first one alone
        pack_dense(op, map(in), target, taps * segments, channels, bias.data, width_, [&](int row, int k) {
            const int tap = k / (segments * channels), column = k % (segments * channels);
            return weight.data[(std::size_t(row) * segments * channels + column) * taps + tap];
        });
        op.macs = double(rows) * segments * channels * taps;
        op.weight_bytes = std::size_t(op.vectors) * op.depth * width_ * 4;
        return op;
    }

    // Any convolution, groups of channels being segments of the maps. What is beside the map is stored as zeros; what is
    // above and below it is left to the pointers to its rows.
    void conv(const Node& node, int in, int out, const Layout& to, int dilation) {
        const int kernel_w = node.weight.shape.size() == 4 ? node.weight.size(3) : 1;
        const bool pads = kernel_w > 1;
        if (pads) {
            const int padded = new_map(layout(in));
            Op op{.kind = OpKind::pad, .in = in, .out = padded, .channels = layout(in).stride()};
            op.kernel_w = kernel_w;
            op.dilation_w = dilation;
            op.starts_part = true;
            net_.ops.push_back(std::move(op));
            in = padded;
        }
        require(node.groups >= 1 && (node.groups == 1 || (node.groups == to.segments && node.groups == layout(in).segments)),
                "the groups of a convolution are not the segments of its maps");
        const Layout part = node.groups == 1 ? to : Layout{1, to.channels, to.type};
        const int rows = part.segments * part.channels;
        for (int g = 0; g < node.groups; ++g) {
            Op op = dense(node, in, out, part, g, rows_of(node.weight, g * rows, rows), rows_of(node.bias, g * rows, rows));
            op.stride = node.stride;
            op.dilation_h = op.dilation_w = dilation;
            op.is_padded = pads;
            op.out_offset = g * part.stride();
            net_.ops.push_back(std::move(op));
        }
    }

    static Tensor rows_of(const Tensor& tensor, int first, int count) {
        require(!tensor.shape.empty() && first + count <= tensor.size(0), "a convolution has too few weights");
        Tensor part = tensor;
        std::size_t row = 1;
        for (std::size_t axis = 1; axis < tensor.shape.size(); ++axis) row *= tensor.shape[axis];
        part.shape[0] = count;
        part.data += first * row;
        return part;
    }

    void combine(const Node& node, int in, int other, int out, Combine kind) {
        require(other >= 0 && layout(other).stride() == layout(out).stride() && layout(in).stride() == layout(out).stride(),
                "two maps that are to be added differ");
        Op op{.kind = OpKind::combine, .in = in, .out = out, .other = other};
        op.channels = layout(out).stride();
        op.activation = node.activation;
        op.combine = kind;
        net_.ops.push_back(std::move(op));
    }

    void max_pool(const Node& node) {
        require(node.kernel >= 1 && node.pad >= 0 && node.pad_end >= 0 && node.pad < node.dilation_h * node.kernel &&
                    layout(node.input).stride() == layout(node.output).stride(),
                "a pooling has an impossible shape");
        Op op{.kind = OpKind::maximum, .in = node.input, .out = node.output, .channels = layout(node.output).stride()};
        op.kernel_h = op.kernel_w = node.kernel;
        op.stride = node.stride;
        op.dilation_h = op.dilation_w = node.dilation_h;
        op.pad = node.pad;
        op.pad_end = node.pad_end;
        net_.ops.push_back(std::move(op));
    }

    void output(const Node& node) {
        Op op{.kind = OpKind::output, .in = node.input, .out = node.output, .channels = layout(node.input).stride()};
        op.output = int(net_.outputs.size());
        op.starts_part = starts_part_ = true;
        net_.ops.push_back(std::move(op));
        net_.outputs.push_back({node.input, {}});
    }

    void stem(const Node& node) {
        const Layout all = layout(node.output);
        const bool is_ghost = !node.second_weight.shape.empty();
        const Layout to = is_ghost ? Layout{1, all.channels, all.type} : all;
        const int rows = to.segments * to.channels, planes = net_.in_channels;
        require(net_.ops.empty() && node.weight.shape.size() == 4 && node.weight.size(0) == rows &&
                    node.weight.size(1) == planes && node.bias.shape == std::vector<int>{rows},
                "its stem has weights of another shape than its maps");
        const int kh = node.weight.size(2), kw = node.weight.size(3), depth = planes * kh * kw;
        Op input{.kind = OpKind::input, .out = node.input, .channels = planes};
        input.kernel_w = kw;
        input.starts_part = true;
        net_.ops.push_back(std::move(input));
        Op op{.kind = OpKind::dense, .in = node.input, .out = node.output, .channels = to.stride()};
        op.is_stem = true;
        op.macs = double(rows) * depth;
        op.kernel_h = kh;
        op.kernel_w = kw;
        op.stride = node.stride;
        op.activation = node.activation;
        const auto weight = [&](int row, int c, int y, int x) {
            return node.weight.data[((std::size_t(row) * planes + c) * kh + y) * kw + x];
        };
        const Map from = map(node.input), out = map(node.output);
        pack_dense(op, from, out, 1, depth, node.bias.data, width_, [&](int row, int k) {  // bytes: (y, x, c)
            return weight(row, k % planes, k / (kw * planes), k / planes % kw);
        });
        op.planar_weights = pack_floats(out, depth, width_, [&](int row, int k) {  // planes are apart: (y, c, x)
            return weight(row, k / kw % planes, k / (kw * planes), k % kw);
        });
        op.weight_bytes = std::size_t(op.vectors) * op.depth * width_ * 4;
        net_.ops.push_back(std::move(op));
        if (is_ghost) cheap(node, node.output, -1, Combine::none);
    }

    void depthwise(const Node& node, int in, int in_segment, int out, int out_segment, const Tensor& weight,
                   const Tensor& bias, int weight_segment, int other = -1, Combine combine = Combine::none) {
        const Layout from = layout(in), to = layout(out);
        require(weight.shape.size() == 4 && weight.size(0) > weight_segment && weight.size(1) == to.channels &&
                    bias.shape.size() == 2 && bias.size(0) == weight.size(0) && bias.size(1) == to.channels &&
                    from.channels == to.channels && weight.size(2) % 2 == 1 && weight.size(3) % 2 == 1,
                "a depthwise convolution has weights of another shape than its maps");
        Op op{.kind = OpKind::depthwise, .in = in, .out = out, .other = other};
        op.in_offset = in_segment * from.padded();
        op.out_offset = op.other_offset = out_segment * to.padded();
        op.channels = to.padded();
        op.kernel_h = weight.size(2);
        op.kernel_w = weight.size(3);
        op.stride = node.stride;
        op.dilation_h = node.dilation_h;
        op.dilation_w = node.dilation_w;
        op.activation = node.activation;
        op.combine = combine;
        op.macs = double(op.kernel_h) * op.kernel_w * to.channels;
        op.weight_bytes = std::size_t(op.kernel_h) * op.kernel_w * op.channels * size_of(to.type);
        if (to.type == Type::u8 && op.has_late_activation()) {  // all of these end at 1
            const int all = to.segments * to.channels;
            net_.quantizations[out] = {std::vector<float>(all, 1.0f / 255), std::vector<float>(all, 0.0f)};
        }
        const Map operand = other >= 0 ? map(other) : Map{};
        const std::size_t row = std::size_t(weight_segment) * to.channels;
        pack_depthwise(op, map(in), map(out), other >= 0 ? &operand : nullptr, in_segment, out_segment,
                       weight.data + row * op.kernel_h * op.kernel_w, bias.data + row, net_.kernels);
        net_.ops.push_back(std::move(op));
    }

    // The primary convolution writes the first segment, the cheap operations the others. Where something is added or
    // multiplied at the end, the cheap operations need the maps without it, so these go to a map of their own.
    void ghost(const Node& node) {
        const Layout to = layout(node.output);
        const Layout half{1, to.channels, to.type};
        Combine combine = Combine::none;
        int other = -1;
        if (node.gate >= 0) {
            require(node.residual < 0, "a Ghost module has a gate and a residual");
            combine = Combine::multiply;
            other = new_map(to);
            each_segment(node.gate, other, OpKind::enlarge, node.input);
        } else if (node.residual >= 0) {
            require(layout(node.residual).stride() == to.stride(), "a residual has another shape than its sum");
            combine = Combine::add;
            other = node.residual;
        }
        const int intrinsic = other >= 0 ? new_map(half) : node.output;
        conv(node, node.input, intrinsic, half, node.primary_dilation);
        if (other >= 0) {
            Op op{.kind = OpKind::combine, .in = intrinsic, .out = node.output, .other = other};
            op.channels = to.padded();
            op.combine = combine;
            const Map operand = map(other);
            pack_constants(op, map(intrinsic), map(node.output), &operand);
            net_.ops.push_back(std::move(op));
        }
        cheap(node, intrinsic, other, combine);
        starts_part_ = combine == Combine::add;
    }

    void cheap(const Node& node, int intrinsic, int other, Combine combine) {
        Node each = node;
        each.stride = 1;  // that of the node is the primary convolution's
        for (int s = 1; s < layout(node.output).segments; ++s)
            depthwise(each, intrinsic, 0, node.output, s, node.second_weight, node.second_bias, s - 1, other, combine);
    }

    void each_segment(int in, int out, OpKind kind, int like = -1, Combine combine = Combine::none,
                      Activation activation = Activation::none) {
        const Layout shape = layout(in);
        require(layout(out).stride() == shape.stride(), "two maps that must be alike differ");
        if (kind == OpKind::average || kind == OpKind::enlarge) net_.quantizations[out] = net_.quantizations[in];
        for (int s = 0; s < shape.segments; ++s) {
            Op op{.kind = kind, .in = in, .out = out, .other = like};
            op.in_offset = op.out_offset = op.other_offset = s * shape.padded();
            op.channels = shape.padded();
            if (kind == OpKind::average) op.stride = 2;
            op.combine = combine;
            op.activation = activation;
            if (kind == OpKind::scale) {
                const Map gates = map(like);
                pack_constants(op, map(in), map(out), &gates);
            }
            net_.ops.push_back(std::move(op));
        }
    }

    // The means of some maps over all pixels, one map after the other.
    void pool(const std::vector<int>& maps, int out) {
        std::vector<int> sums;
        for (int map : maps) {
            sums.push_back(new_map(layout(map), Type::f32));
            each_segment(map, sums.back(), OpKind::sum);
        }
        int offset = 0;
        for (std::size_t i = 0; i < maps.size(); ++i) {
            Op mean{.kind = OpKind::mean, .in = sums[i], .out = out, .channels = layout(maps[i]).stride()};
            mean.other = maps[i];
            mean.starts_part = i == 0;
            if (maps.size() == 1) pack_constants(mean, map(maps[i]), map(out), nullptr);
            mean.out_offset = offset;
            offset += mean.channels;
            net_.ops.push_back(std::move(mean));
        }
        require(offset == layout(out).stride(), "means have another shape than their maps");
    }

    // Two linear layers on the means of some maps, with ReLU between; `input` is multiplied by the result, or it is added.
    void squeeze(const Node& node, const std::vector<int>& pooled, Activation gate, Combine combine, Activation after) {
        const Layout shape = layout(node.input);
        require(!node.weight.shape.empty(), "a node has no weights");
        const Type fine = fine_type();
        Layout all = layout(pooled.at(0));
        if (pooled.size() > 1) {
            all = {1, 0};
            for (int map : pooled) all.channels += layout(map).stride();  // with the padding, whose weights are zero
        }
        const int means = new_map(all, fine), squeezed = new_map({1, node.weight.size(0)}, fine);
        const int gates = new_map(shape, fine);
        pool(pooled, means);
        Node layer = node;
        layer.activation = Activation::relu;
        net_.ops.push_back(dense(layer, means, squeezed, layout(squeezed), 0, node.weight, node.bias));
        layer.activation = gate;
        net_.ops.push_back(dense(layer, squeezed, gates, shape, 0, node.second_weight, node.second_bias));
        const std::size_t first = net_.ops.size();
        each_segment(node.input, node.output, OpKind::scale, gates, combine, after);
        net_.ops[first].starts_part = true;
    }

    Network& net_;
    const PlanSource& source_;
    const int width_;
    std::vector<bool> written_;  // maps of the plan

public:
    bool starts_part_ = false;  // whether the next node does
};

}  // namespace

Network::Network(const PlanSource& source, const Kernels& chosen)
    : kernels(chosen), layouts(source.layouts), in_channels(source.in_channels), scale(source.scale),
      shift(source.shift) {
    for (const Layout& layout : layouts) require(layout.segments > 0 && layout.channels > 0, "a map has no channels");
    require(int(scale.size()) == in_channels && int(shift.size()) == in_channels, "its normalisation has other channels");
    for (Layout& layout : layouts) layout.type = source.precision;
    for (const Node& node : source.nodes)  // images come as float32, and logits leave as that
        if (node.kind == "stem" && node.input >= 0 && node.input < int(layouts.size())) layouts[node.input].type = Type::f32;
    const int last = source.nodes.empty() ? -1 : source.nodes.back().output;
    if (last >= 0 && last < int(layouts.size())) layouts[last].type = Type::f32;
    Lowering lowering(*this, source);
    for (const Node& node : source.nodes) {
        const bool starts_part = lowering.starts_part_;
        lowering.starts_part_ = false;
        const std::size_t first = ops.size(), first_in_head = head.size();
        lowering.lower(node);
        if (starts_part && ops.size() > first) ops[first].starts_part = true;
        for (std::size_t i = first; i < ops.size(); ++i) ops[i].node = int(nodes.size());
        for (std::size_t i = first_in_head; i < head.size(); ++i) head[i].node = int(nodes.size());
        nodes.emplace_back(node.name, node.kind);
    }
    require(!ops.empty() && ops.front().kind == OpKind::input, "it does not begin with images");
    const bool pools = ops.back().kind == OpKind::mean;
    require(pools ? outputs.empty() : !outputs.empty() && ops.back().kind == OpKind::output && head.empty(),
            "it does not lead from images to their features");
    if (pools) outputs.push_back({head.empty() ? ops.back().out : head.back().out, {}});
    require(outputs.size() == source.orders.size(), "its outputs are not those that it lists");
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        const Layout& layout = layouts[outputs[i].map];
        for (int index : source.orders[i]) {
            require(index >= 0 && index < layout.segments * layout.channels, "an output has a channel that its map has not");
            outputs[i].positions.push_back(position(layout, index));
        }
    }
}

}  // namespace ghostnets
