// Single layers: convolutions of every kind.
#include "engine/lowering.hpp"

#include <algorithm>

namespace ghostnets {

void Lowering::lower(const Node& node) {
    switch (node.kind) {
        case NodeKind::stem: return stem(node);
        case NodeKind::ghost: return ghost(node);
        case NodeKind::depthwise:
            for (int s = 0; s < layout(node.output).segments; ++s)
                depthwise(node, {node.input, s, node.output, s}, node.weight, node.bias, s);
            return;
        case NodeKind::conv:
            return conv(node, node.input, node.output, layout(node.output), node.dilation_h, node.dilation_w);
        case NodeKind::add: return binary(node, OpKind::binary, BinaryOp::add);
        case NodeKind::multiply: return binary(node, OpKind::binary, BinaryOp::multiply);
        case NodeKind::scale: return binary(node, OpKind::scale, BinaryOp::multiply);
        case NodeKind::arrange: return arrange(node);
        case NodeKind::average_pool:
        case NodeKind::adaptive_pool: return average(node);
        case NodeKind::resize: return resize(node);
        case NodeKind::average:
            return each_segment({.kind = OpKind::average_pool, .in = node.input, .out = node.output});
        case NodeKind::max_pool: return max_pool(node);
        case NodeKind::squeeze_excite:
            return squeeze(node, {node.input}, node.activation, BinaryOp::multiply, Activation::none);
        case NodeKind::mix: return squeeze(node, node.pooled, Activation::none, BinaryOp::add, node.activation);
        case NodeKind::pool:
            pool({node.input}, node.output);
            net_.features = layout(node.input).stride();
            return;
        case NodeKind::linear:
            net_.head.push_back(
                with_activation(gemm(node, node.input, node.output, layout(node.output), 0, node.weight, node.bias)));
            return;
        case NodeKind::output: return output(node);
        case NodeKind::convert: return convert(node);
    }
}

Op Lowering::with_activation(Op&& op) const {
    const bool is_byte = layout(op.out).type == Type::u8 || (op.in >= 0 && layout(op.in).type == Type::u8);
    if ((op.is_gemm() || op.kind == OpKind::depthwise) && op.binary == BinaryOp::none && !is_byte)
        op.stores_activated = op.activation == Activation::relu6 || op.activation == Activation::leaky_relu ||
                              op.activation == Activation::hard_swish;
    if (op.activation != Activation::relu || layout(op.out).type != Type::u8) return std::move(op);
    if (op.kind == OpKind::depthwise && op.binary != BinaryOp::none) return std::move(op);  // clamps before it adds
    const Map out = map(op.out);
    const std::vector<float>& zeros = out.quantization.zeros;
    const auto first = std::find_if(zeros.begin(), zeros.end(), [](float zero) { return zero != 0; });
    if (first == zeros.end()) return std::move(op);
    require(std::all_of(zeros.begin(), zeros.end(), [&](float zero) { return zero == *first; }),
            "the results of a ReLU have zero points that differ by channel");
    op.zero = int(*first);
    return std::move(op);
}

const Layout& Lowering::layout(int map) const {
    require(map >= 0 && map < int(net_.layouts.size()), "it names a map that it does not have");
    return net_.layouts[map];
}

int Lowering::new_map(Layout shape, Type type) {
    shape.type = type;
    net_.layouts.push_back(shape);
    net_.quantizations.push_back(quantization(int(net_.layouts.size()) - 1));
    return int(net_.layouts.size()) - 1;
}

Quantization Lowering::quantization(int map) const {
    const Layout& shape = net_.layouts[map];
    if (shape.type != Type::u8 || map >= int(plan_.ranges.size()) || !plan_.ranges[map].data) return {};
    require(plan_.ranges[map].shape == std::vector<int>{2, shape.segments * shape.channels},
            "a range has a different shape from its map");
    return quantization_of(plan_.ranges[map]);
}

Map Lowering::map(int index) const {
    const Map found{layout(index), net_.quantizations[index]};
    require(found.layout.type != Type::u8 || !found.quantization.scales.empty(), "the range of a map is missing");
    return found;
}

Op Lowering::gemm(const Node& node, int in, int out, const Layout& to, int first_segment, const Tensor& weight,
                  const Tensor& bias) const {
    const Layout& from = layout(in);
    const int rows = to.segments * to.channels, rank = int(weight.shape.size());
    require((rank == 2 || rank == 4) && weight.size(0) == rows && bias.shape == std::vector<int>{rows} &&
                weight.size(1) % from.channels == 0 &&
                weight.size(1) <= (from.segments - first_segment) * from.channels,
            std::string("a ") + node_kind_name(node.kind) + " node has weights of a different shape from its maps");
    Op op{.kind = OpKind::gemm, .in = in, .out = out, .channels = to.stride(), .activation = node.activation};
    op.slope = node.slope;
    op.gemm.first_segment = first_segment;
    op.gemm.segments = weight.size(1) / from.channels;
    op.window = Window::same(rank == 4 ? weight.size(2) : 1, rank == 4 ? weight.size(3) : 1, 1, 1, 1);
    const int taps = op.window.kernel_h * op.window.kernel_w, channels = from.channels, segments = op.gemm.segments;
    Map target = before_activation(op, map(out));
    target.layout.segments = to.segments;  // perhaps the first one alone
    pack_gemm(op, map(in), target, taps * segments, channels, bias.data, width_, [&](int row, int k) {
        const int tap = k / (segments * channels), column = k % (segments * channels);
        return weight.data[(std::size_t(row) * segments * channels + column) * taps + tap];
    });
    op.macs = double(rows) * segments * channels * taps;
    op.weight_bytes = std::size_t(op.gemm.vectors) * op.gemm.depth * width_ * 4;
    return op;
}

Window Lowering::window_of(const Node& node, int kernel_h, int kernel_w, int dilation_h, int dilation_w) const {
    Window window = Window::same(kernel_h, kernel_w, node.stride, dilation_h, dilation_w);
    if (!node.pads.empty()) window.pad(node.pads);
    return window;
}

void Lowering::conv(const Node& node, int in, int out, Layout to, int dilation_h, int dilation_w) {
    const bool is_square = node.weight.shape.size() == 4;
    Window window = window_of(node, is_square ? node.weight.size(2) : 1, is_square ? node.weight.size(3) : 1,
                              dilation_h, dilation_w);
    if (window.has_padding()) {
        const int padded = new_map(layout(in));
        net_.quantizations[padded] = net_.quantizations[in];
        Op op{.kind = OpKind::pad, .in = in, .out = padded, .channels = layout(in).stride()};
        std::swap(op.window.pad_h, window.pad_h);
        std::swap(op.window.pad_w, window.pad_w);
        std::swap(op.window.pad_end_h, window.pad_end_h);
        std::swap(op.window.pad_end_w, window.pad_end_w);
        op.pad = Buffer(1);
        op.pad.data()[0] = std::byte(map(in).zero(0));
        op.starts_group = true;
        emit(std::move(op));
        in = padded;
    }
    require(
        node.groups >= 1 && (node.groups == 1 || (node.groups == to.segments && node.groups == layout(in).segments)),
        "the groups of a convolution are not the segments of its maps");
    const Layout group = node.groups == 1 ? to : Layout{1, to.channels, to.type};
    const int rows = group.segments * group.channels;
    for (int g = 0; g < node.groups; ++g) {
        Op op = gemm(node, in, out, group, g, rows_of(node.weight, g * rows, rows), rows_of(node.bias, g * rows, rows));
        op.window = window;
        op.out_offset = g * group.stride();
        emit(std::move(op));
    }
}

Tensor Lowering::rows_of(const Tensor& tensor, int first, int count) {
    require(first + count <= tensor.size(0), "a convolution has too few weights");
    Tensor rows = tensor;
    std::size_t row = 1;
    for (std::size_t axis = 1; axis < tensor.shape.size(); ++axis) row *= tensor.shape[axis];
    rows.shape[0] = count;
    rows.data += first * row;
    return rows;
}

void Lowering::stem(const Node& node) {
    const Layout all = layout(node.output);
    const bool is_ghost = !node.second_weight.shape.empty();
    const Layout to = is_ghost ? Layout{1, all.channels, all.type} : all;
    const int rows = to.segments * to.channels, planes = net_.in_channels;
    require(net_.ops.empty() && node.weight.shape.size() == 4 && node.weight.size(0) == rows &&
                node.weight.size(1) == planes && node.bias.shape == std::vector<int>{rows},
            "its stem has weights of a different shape from its maps");
    const int kh = node.weight.size(2), kw = node.weight.size(3), depth = planes * kh * kw;
    const Window window = window_of(node, kh, kw, 1, 1);
    Op input{.kind = OpKind::input, .out = node.input, .channels = planes};
    input.window.pad_w = window.pad_w;
    input.window.pad_end_w = window.pad_end_w;
    input.starts_group = true;
    emit(std::move(input));
    Op op{.kind = OpKind::gemm, .in = node.input, .out = node.output, .channels = to.stride()};
    op.activation = node.activation;
    op.slope = node.slope;
    op.gemm.is_stem = true;
    op.window = window;
    op.macs = double(rows) * depth;
    const Map from = map(node.input);
    Map out = before_activation(op, map(node.output));
    out.layout.segments = to.segments;  // perhaps the first one alone
    pack_gemm(op, from, out, kh, depth / kh, node.bias.data, width_, [&](int row, int k) {  // (y, x, c)
        const int y = k / (kw * planes), x = k / planes % kw, c = k % planes;
        return node.weight.data[((std::size_t(row) * planes + c) * kh + y) * kw + x];
    });
    op.weight_bytes = std::size_t(op.gemm.vectors) * op.gemm.depth * width_ * 4;
    emit(std::move(op));
    if (is_ghost) cheap(node, node.output, -1, BinaryOp::none);
}

void Lowering::depthwise(const Node& node, const Segments& maps, const Tensor& weight, const Tensor& bias,
                         int weight_segment) {
    const Layout from = layout(maps.in), to = layout(maps.out);
    require(weight.shape.size() == 4 && weight.size(0) > weight_segment && weight.size(1) == to.channels &&
                bias.shape.size() == 2 && bias.size(0) == weight.size(0) && bias.size(1) == to.channels &&
                from.channels == to.channels && maps.in_segment < from.segments,
            "a depthwise convolution has weights of a different shape from its maps");
    Op op{.kind = OpKind::depthwise, .in = maps.in, .out = maps.out, .other = maps.other};
    op.in_offset = maps.in_segment * from.padded();
    op.out_offset = op.other_offset = maps.out_segment * to.padded();
    op.channels = to.padded();
    op.window = window_of(node, weight.size(2), weight.size(3), node.dilation_h, node.dilation_w);
    op.activation = node.activation;
    op.slope = node.slope;
    op.binary = maps.binary;
    const std::size_t taps = std::size_t(op.window.kernel_h) * op.window.kernel_w;
    op.macs = double(taps) * to.channels;
    op.weight_bytes = taps * op.channels * size_of(to.type);
    if (to.type == Type::u8 && is_gate(op.activation)) {  // all of these end at 1
        const int all = to.segments * to.channels;
        net_.quantizations[maps.out] = {std::vector<float>(all, 1.0f / 255), std::vector<float>(all, 0.0f)};
    }
    const Map operand = maps.other >= 0 ? map(maps.other) : Map{};
    const std::size_t row = std::size_t(weight_segment) * to.channels;
    const DepthwiseSource source{map(maps.in),    map(maps.out),    maps.other >= 0 ? &operand : nullptr,
                                 maps.in_segment, maps.out_segment, weight.data + row * taps,
                                 bias.data + row};
    pack_depthwise(op, source, net_.kernels);
    emit(std::move(op));
}

}  // namespace ghostnets
