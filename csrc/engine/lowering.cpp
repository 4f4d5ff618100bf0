// Single layers: convolutions of every kind.
#include "engine/lowering.hpp"

namespace ghostnets {

void Lowering::lower(const Node& node) {
    require(node.stride >= 1 && node.dilation_h >= 1 && node.dilation_w >= 1, "a stride or dilation is below 1");
    for (int map : {node.input, node.residual, node.gate}) require(map < int(written_.size()), "a map is missing");
    const bool is_known = node.kind == "stem" || (node.input >= 0 && written_[node.input]);
    require(is_known && (node.residual < 0 || written_[node.residual]) && (node.gate < 0 || written_[node.gate]),
            "a node reads a map before it is written");
    require(node.output >= 0 && node.output < int(written_.size()) && !written_[node.output], "a map is written twice");
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
        binary(node, node.input, node.residual, node.output, BinaryOp::add);
        starts_part_ = true;
    } else if (node.kind == "average") {
        each_segment(node.input, node.output, OpKind::average_pool);
    } else if (node.kind == "max_pool") {
        max_pool(node);
    } else if (node.kind == "squeeze_excite") {
        squeeze(node, {node.input}, node.activation, BinaryOp::multiply, Activation::none);
    } else if (node.kind == "mix") {
        squeeze(node, node.pooled, Activation::none, BinaryOp::add, node.activation);
    } else if (node.kind == "pool") {
        pool({node.input}, node.output);
        net_.features = layout(node.input).stride();
    } else if (node.kind == "linear") {
        net_.head.push_back(gemm(node, node.input, node.output, layout(node.output), 0, node.weight, node.bias));
    } else if (node.kind == "output") {
        output(node);
    } else {
        require(false, "there is a node of unknown kind " + node.kind);
    }
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
    if (shape.type != Type::u8 || map >= int(source_.ranges.size()) || !source_.ranges[map].data) return {};
    require(source_.ranges[map].shape == std::vector<int>{2, shape.segments * shape.channels},
            "a range has another shape");
    return quantization_of(source_.ranges[map]);
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
            "a " + node.kind + " node has weights of another shape than its maps");
    Op op{.kind = OpKind::gemm, .in = in, .out = out, .channels = to.stride()};
    op.activation = node.activation;
    op.first_segment = first_segment;
    op.segments = weight.size(1) / from.channels;
    op.kernel_h = rank == 4 ? weight.size(2) : 1;
    op.kernel_w = rank == 4 ? weight.size(3) : 1;
    require(op.kernel_h % 2 == 1 && op.kernel_w % 2 == 1, "a kernel has an even side");
    const int taps = op.kernel_h * op.kernel_w, channels = from.channels, segments = op.segments;
    Map target = map(out);
    target.layout.segments = to.segments;  // perhaps the first one alone
    pack_gemm(op, map(in), target, taps * segments, channels, bias.data, width_, [&](int row, int k) {
        const int tap = k / (segments * channels), column = k % (segments * channels);
        return weight.data[(std::size_t(row) * segments * channels + column) * taps + tap];
    });
    op.macs = double(rows) * segments * channels * taps;
    op.weight_bytes = std::size_t(op.vectors) * op.depth * width_ * 4;
    return op;
}

void Lowering::conv(const Node& node, int in, int out, Layout to, int dilation) {
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
    require(
        node.groups >= 1 && (node.groups == 1 || (node.groups == to.segments && node.groups == layout(in).segments)),
        "the groups of a convolution are not the segments of its maps");
    const Layout part = node.groups == 1 ? to : Layout{1, to.channels, to.type};
    const int rows = part.segments * part.channels;
    for (int g = 0; g < node.groups; ++g) {
        Op op = gemm(node, in, out, part, g, rows_of(node.weight, g * rows, rows), rows_of(node.bias, g * rows, rows));
        op.stride = node.stride;
        op.dilation_h = op.dilation_w = dilation;
        op.is_padded = pads;
        op.out_offset = g * part.stride();
        net_.ops.push_back(std::move(op));
    }
}

Tensor Lowering::rows_of(const Tensor& tensor, int first, int count) {
    require(!tensor.shape.empty() && first + count <= tensor.size(0), "a convolution has too few weights");
    Tensor part = tensor;
    std::size_t row = 1;
    for (std::size_t axis = 1; axis < tensor.shape.size(); ++axis) row *= tensor.shape[axis];
    part.shape[0] = count;
    part.data += first * row;
    return part;
}

void Lowering::stem(const Node& node) {
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
    Op op{.kind = OpKind::gemm, .in = node.input, .out = node.output, .channels = to.stride()};
    op.is_stem = true;
    op.macs = double(rows) * depth;
    op.kernel_h = kh;
    op.kernel_w = kw;
    op.stride = node.stride;
    op.activation = node.activation;
    const auto weight = [&](int row, int c, int y, int x) {
        return node.weight.data[((std::size_t(row) * planes + c) * kh + y) * kw + x];
    };
    const Map from = map(node.input);
    Map out = map(node.output);
    out.layout.segments = to.segments;  // perhaps the first one alone
    pack_gemm(op, from, out, 1, depth, node.bias.data, width_, [&](int row, int k) {  // bytes: (y, x, c)
        return weight(row, k % planes, k / (kw * planes), k / planes % kw);
    });
    op.planar_weights = pack_floats(out, depth, width_, [&](int row, int k) {  // planes are apart: (y, c, x)
        return weight(row, k / kw % planes, k / (kw * planes), k % kw);
    });
    op.weight_bytes = std::size_t(op.vectors) * op.depth * width_ * 4;
    net_.ops.push_back(std::move(op));
    if (is_ghost) cheap(node, node.output, -1, BinaryOp::none);
}

void Lowering::depthwise(const Node& node, int in, int in_segment, int out, int out_segment, const Tensor& weight,
                         const Tensor& bias, int weight_segment, int other, BinaryOp binary) {
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
    op.binary = binary;
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

}  // namespace ghostnets
