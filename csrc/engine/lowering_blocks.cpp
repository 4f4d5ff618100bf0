// Nodes that become several operations, and sums and products of maps.
#include "engine/lowering.hpp"

namespace ghostnets {

void Lowering::binary(const Node& node, OpKind kind, BinaryOp binary) {
    const Layout& to = layout(node.output);
    require(node.residual >= 0 && layout(node.residual).matches(to) && layout(node.input).matches(to) &&
                layout(node.input).segments == to.segments && layout(node.residual).segments == to.segments,
            "two maps that are added or multiplied differ in shape");
    Op op{.kind = kind, .in = node.input, .out = node.output, .other = node.residual};
    op.channels = to.stride();
    op.activation = node.activation;
    op.slope = node.slope;
    op.binary = binary;
    op.starts_group = kind == OpKind::scale;  // every row needs the pixel
    const Map operand = map(node.residual), target = before_activation(op, map(node.output));
    pack_constants(op, map(node.input), target, &operand);
    emit(std::move(op));
    next_starts_group = true;
}

void Lowering::ghost(const Node& node) {
    const Layout to = layout(node.output);
    const Layout half{1, to.channels, to.type};
    BinaryOp binary = BinaryOp::none;
    int other = -1;
    if (node.gate >= 0) {
        require(node.residual < 0, "a Ghost module has a gate and a residual");
        binary = BinaryOp::multiply;
        other = new_map(to);
        each_segment({.kind = OpKind::upsample_nearest, .in = node.gate, .out = other, .other = node.input});
    } else if (node.residual >= 0) {
        require(layout(node.residual).matches(to), "a residual has a different shape from its sum");
        binary = BinaryOp::add;
        other = node.residual;
    }
    const int intrinsic = other >= 0 ? new_map(half) : node.output;
    conv(node, node.input, intrinsic, half, node.primary_dilation, node.primary_dilation);
    if (other >= 0) {
        Op op{.kind = OpKind::binary, .in = intrinsic, .out = node.output, .other = other};
        op.channels = to.padded();
        op.binary = binary;
        const Map operand = map(other);
        pack_constants(op, map(intrinsic), map(node.output), &operand);
        emit(std::move(op));
    }
    cheap(node, intrinsic, other, binary);
    next_starts_group = binary == BinaryOp::add;
}

void Lowering::cheap(const Node& node, int intrinsic, int other, BinaryOp binary) {
    Node each = node;
    each.stride = 1;  // these are the primary convolution's
    each.pads.clear();
    for (int s = 1; s < layout(node.output).segments; ++s)
        depthwise(each, {intrinsic, 0, node.output, s, other, binary}, node.second_weight, node.second_bias, s - 1);
}

void Lowering::each_segment(const Op& prototype) {
    const int in = prototype.in, out = prototype.out, other = prototype.other;
    const OpKind kind = prototype.kind;
    const Layout shape = layout(in);
    require(layout(out).matches(shape), "the input and output of a node differ in shape");
    if (kind == OpKind::average_pool || kind == OpKind::upsample_nearest)
        net_.quantizations[out] = net_.quantizations[in];
    for (int s = 0; s < shape.segments; ++s) {
        Op op{.kind = kind, .in = in, .out = out, .other = other};
        op.in_offset = op.out_offset = op.other_offset = s * shape.padded();
        op.channels = shape.padded();
        op.binary = prototype.binary;
        op.activation = prototype.activation;
        if (kind == OpKind::scale) {
            const Map gates = map(other);
            pack_constants(op, map(in), map(out), &gates);
        }
        emit(std::move(op));
    }
}

void Lowering::pool(const std::vector<int>& maps, int out) {
    std::vector<int> sums;
    for (int map : maps) {
        sums.push_back(new_map(layout(map), Type::f32));
        each_segment({.kind = OpKind::sum, .in = map, .out = sums.back()});
    }
    int offset = 0;
    for (std::size_t i = 0; i < maps.size(); ++i) {
        Op mean{.kind = OpKind::mean, .in = sums[i], .out = out, .channels = layout(maps[i]).stride()};
        mean.other = maps[i];
        mean.starts_group = i == 0;
        if (maps.size() == 1) pack_constants(mean, map(maps[i]), map(out), nullptr);
        mean.out_offset = offset;
        offset += mean.channels;
        emit(std::move(mean));
    }
    require(offset == layout(out).stride(), "means have a different shape from their maps");
}

void Lowering::squeeze(const Node& node, const std::vector<int>& pooled, Activation gate, BinaryOp binary,
                       Activation after) {
    const Layout shape = layout(node.input);
    const Type fine = fine_type(shape);
    Layout all = layout(pooled[0]);
    if (pooled.size() > 1) {
        all = {1, 0};
        for (int map : pooled) all.channels += layout(map).stride();  // with the padding, whose weights are zero
    }
    const int means = new_map(all, fine), squeezed = new_map({1, node.weight.size(0)}, fine);
    const int gates = new_map(shape, fine);
    pool(pooled, means);
    Node layer = node;
    layer.activation = node.inner_activation;
    emit(gemm(layer, means, squeezed, layout(squeezed), 0, node.weight, node.bias));
    layer.activation = gate;
    emit(gemm(layer, squeezed, gates, shape, 0, node.second_weight, node.second_bias));
    const std::size_t first = net_.ops.size();
    each_segment({.kind = OpKind::scale,
                  .in = node.input,
                  .out = node.output,
                  .other = gates,
                  .activation = after,
                  .binary = binary});
    net_.ops[first].starts_group = true;
}

}  // namespace ghostnets
