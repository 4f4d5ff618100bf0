#include "engine/network.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "engine/lowering.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ghostnets {

namespace {

// From this size on a buffer asks for large pages: weights that are read once a run would else wait for addresses.
constexpr std::size_t kLargeBuffer = std::size_t(512) << 10;
constexpr std::size_t kLargePage = std::size_t(2) << 20;

}  // namespace

Buffer::Buffer(std::size_t size) {
    const std::size_t unit = size >= kLargeBuffer ? kLargePage : 64;
    const std::size_t bytes = (std::max<std::size_t>(size, 1) + unit - 1) / unit * unit;
    void* memory = std::aligned_alloc(unit, bytes);
    if (!memory) throw std::bad_alloc();
#if defined(__linux__)
    if (unit == kLargePage) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: it changes nothing where it fails
#endif
    std::memset(memory, 0, bytes);
    data_.reset(static_cast<std::byte*>(memory));
}

void Buffer::Free::operator()(std::byte* data) const { std::free(data); }

int Network::out_size(const Op& op, int size, bool vertical) {
    switch (op.kind) {
        case OpKind::gemm:
        case OpKind::depthwise: {
            const int kernel = vertical ? op.kernel_h : op.kernel_w;
            const int dilation = vertical ? op.dilation_h : op.dilation_w;
            const int pad = vertical ? op.pad_h() : op.pad_w();
            return (size + 2 * pad - dilation * (kernel - 1) - 1) / op.stride + 1;
        }
        case OpKind::pad: return vertical ? size : size + 2 * op.pad_w();
        case OpKind::max_pool:
            return (size + op.border + op.border_end - op.dilation_h * (op.kernel_h - 1) - 1) / op.stride + 1;
        case OpKind::average_pool: return std::max(1, size / 2);
        case OpKind::sum:
        case OpKind::mean: return 1;
        default: return size;
    }
}

GemmTask Network::gemm_task(const Op& op, int first, int count) const {
    const Layout &in = layouts[op.in], &out = layouts[op.out];
    GemmTask task{};
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
    task.pairs_terms = op.pairs_terms;
    task.out_stride = out.stride();
    task.clamp_min = op.clamp_min();
    return task;
}

Network::Network(const PlanSource& source, const Kernels& chosen)
    : kernels(chosen), layouts(source.layouts), in_channels(source.in_channels), scale(source.scale),
      shift(source.shift) {
    for (const Layout& layout : layouts) require(layout.segments > 0 && layout.channels > 0, "a map has no channels");
    require(int(scale.size()) == in_channels && int(shift.size()) == in_channels,
            "its normalisation has other channels");
    for (Layout& layout : layouts) layout.type = source.precision;
    for (const Node& node : source.nodes)  // images come as float32, and logits leave as that
        if (node.kind == "stem" && node.input >= 0 && node.input < int(layouts.size()))
            layouts[node.input].type = Type::f32;
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
            require(index >= 0 && index < layout.segments * layout.channels,
                    "an output has a channel that its map has not");
            outputs[i].positions.push_back(position(layout, index));
        }
    }
}

}  // namespace ghostnets
