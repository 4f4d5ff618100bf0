#include "engine/network.hpp"

#include "engine/lowering.hpp"

namespace ghostnets {

namespace {

constexpr std::size_t kMaxOps = 8192;  // the planner's time grows with the square

}  // namespace

Network::Network(const Plan& plan, const Kernels& chosen)
    : kernels(chosen), layouts(plan.layouts), in_channels(plan.in_channels), scale(plan.scale), shift(plan.shift) {
    check_plan(plan);
    set_types(plan);
    lower(plan);
    set_outputs(plan);
}

// Images and logits are float32; all maps between them have the plan's precision, except those it lists as float32.
void Network::set_types(const Plan& plan) {
    for (Layout& layout : layouts) layout.type = plan.precision;
    for (const int map : plan.floats) layouts[map].type = Type::f32;
    for (const Node& node : plan.nodes)
        if (node.kind == NodeKind::stem && node.input >= 0 && node.input < int(layouts.size()))
            layouts[node.input].type = Type::f32;
    const int last = plan.nodes.empty() ? -1 : plan.nodes.back().output;
    if (last >= 0 && last < int(layouts.size())) layouts[last].type = Type::f32;
}

void Network::lower(const Plan& plan) {
    Lowering lowering(*this, plan);
    for (const Node& node : plan.nodes) {
        const bool starts_group = lowering.next_starts_group;
        lowering.next_starts_group = false;
        const std::size_t first = ops.size(), first_in_head = head.size();
        lowering.lower(node);
        lowering.next_starts_group |= node.ends_group;
        if (starts_group && ops.size() > first) ops[first].starts_group = true;
        for (std::size_t i = first; i < ops.size(); ++i) ops[i].node = int(nodes.size());
        for (std::size_t i = first_in_head; i < head.size(); ++i) head[i].node = int(nodes.size());
        require(ops.size() <= kMaxOps, "it has too many operations");
        nodes.emplace_back(node.name, node.kind);
    }
}

void Network::set_outputs(const Plan& plan) {
    const bool pools = ops.back().kind == OpKind::mean;
    require(pools ? outputs.empty() : !outputs.empty() && ops.back().kind == OpKind::output && head.empty(),
            "it does not lead from images to their features");
    if (pools) outputs.push_back({head.empty() ? ops.back().out : head.back().out, {}});
    require(outputs.size() == plan.orders.size(), "it lists other outputs than it computes");
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        const Layout& layout = layouts[outputs[i].map];
        for (int index : plan.orders[i]) {
            require(index >= 0 && index < layout.segments * layout.channels,
                    "an output has a channel that its map does not have");
            outputs[i].positions.push_back(position(layout, index));
        }
    }
}

GemmTask Network::gemm_task(const Op& op, int first, int count) const {
    const Layout &in = layouts[op.in], &out = layouts[op.out];
    const GemmOptions& gemm = op.gemm;
    GemmTask task{};
    task.in = in.type;
    task.out_type = out.type;
    task.segment_count = op.window.kernel_h * op.window.kernel_w * gemm.segments;
    task.segment_groups = in.groups();
    task.pixel_stride = std::ptrdiff_t(op.window.stride) * in.stride();
    task.vector_stride = std::ptrdiff_t(gemm.depth);
    task.weights = op.packed.weights.data() + std::size_t(first) * gemm.depth * kernels.width * 4;
    task.bias = op.packed.bias.floats() + first * kernels.width;
    task.scale = op.packed.scale.floats() + first * kernels.width;
    task.vectors = count;
    task.columns = op.channels - first * kernels.width;
    task.pairs_terms = gemm.pairs_terms;
    task.out_stride = out.stride();
    task.clamp_min = op.clamp_min();
    task.activation = op.stored_activation();
    task.slope = op.slope;
    return task;
}

}  // namespace ghostnets
