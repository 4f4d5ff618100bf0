// Nodes that pool, resize, rearrange or return maps.
#include <algorithm>

#include "engine/lowering.hpp"

namespace ghostnets {

bool Lowering::share_quantization(int a, int b) const {
    return layout(a).type != Type::u8 || (map(a).scale(0) == map(b).scale(0) && map(a).zero(0) == map(b).zero(0));
}

void Lowering::max_pool(const Node& node) {
    require(layout(node.input).matches(layout(node.output)), "a pooling has a different shape from its map");
    net_.quantizations[node.output] = net_.quantizations[node.input];
    Op op{.kind = OpKind::max_pool, .in = node.input, .out = node.output, .channels = layout(node.output).stride()};
    op.window = {node.kernel, node.kernel, node.stride,  node.dilation_h, node.dilation_h,
                 node.pad,    node.pad,    node.pad_end, node.pad_end};
    emit(std::move(op));
}

void Lowering::average(const Node& node) {
    require(layout(node.input).matches(layout(node.output)), "a pooling has a different shape from its map");
    const bool is_adaptive = node.kind == NodeKind::adaptive_pool;
    Op op{.kind = is_adaptive ? OpKind::adaptive_average : OpKind::window_average};
    op.in = node.input;
    op.out = node.output;
    op.channels = layout(node.output).stride();
    op.window = {node.kernel, node.kernel, node.stride, 1, 1, node.pad, node.pad, node.pad_end, node.pad_end};
    if (is_adaptive) op.window = {};
    op.size.height = node.out_h;
    op.size.width = node.out_w;
    op.counts_padding = node.counts_padding;
    op.starts_group = next_starts_group = is_adaptive;  // it may need every row
    const Map from = map(node.input), to = map(node.output);
    op.average = {from.zero(0), from.scale(0) / to.scale(0), to.zero(0)};
    emit(std::move(op));
}

void Lowering::resize(const Node& node) {
    require(layout(node.input).matches(layout(node.output)), "a map is resized to another shape");
    net_.quantizations[node.output] = net_.quantizations[node.input];
    Op op{.kind = node.is_bilinear ? OpKind::bilinear : OpKind::upsample_nearest};
    op.in = node.input;
    op.out = node.output;
    op.channels = layout(node.output).stride();
    op.size = {node.like, node.factor, node.out_h, node.out_w, node.aligns_corners};
    op.starts_group = true;  // the sizes of its rows differ from those before
    emit(std::move(op));
}

namespace {

// Moves that fill a pixel of `sources.size()` channels from one of `in_channels`; both are multiples of kChannelBlock.
// A negative source leaves its channel as it is.
std::vector<ArrangeMove> moves_of(const std::vector<int>& sources, int in_channels, int width) {
    std::vector<ArrangeMove> moves;
    for (int to = 0, lanes; to < int(sources.size()); to += lanes) {
        lanes = std::min({width, in_channels, int(sources.size()) - to});
        std::vector<int> left(sources.begin() + to, sources.begin() + to + lanes);
        for (;;) {
            int from = in_channels;
            for (const int source : left)
                if (source >= 0) from = std::min(from, source);
            if (from == in_channels) break;
            ArrangeMove move{std::min(from, in_channels - lanes), to, lanes, {}, {}};
            for (int i = 0; i < lanes; ++i) {
                if (left[i] < 0 || left[i] >= move.from + lanes) continue;
                move.sources[i] = left[i] - move.from;
                move.mask[i] = -1;
                left[i] = -1;
            }
            moves.push_back(move);
        }
    }
    return moves;
}

}  // namespace

void Lowering::arrange(const Node& node) {
    const Layout& to = layout(node.output);
    require(int(node.sources.size()) == to.segments * to.channels, "an arrangement has a different shape from its map");
    std::vector<std::vector<int>> sources(node.pooled.size(), std::vector<int>(to.stride(), -1));  // in each map
    std::vector<Run> zeros;
    std::vector<bool> is_copied(to.stride());
    for (int i = 0; i < int(node.sources.size()); ++i) {
        int source = node.sources[i];
        std::size_t map = 0;
        while (source >= 0 && map < node.pooled.size() &&
               source >= layout(node.pooled[map]).segments * layout(node.pooled[map]).channels) {
            source -= layout(node.pooled[map]).segments * layout(node.pooled[map]).channels;
            ++map;
        }
        require(map < node.pooled.size(), "an arrangement reads a channel that its maps do not have");
        if (source < 0) continue;
        sources[map][position(to, i)] = position(layout(node.pooled[map]), source);
        is_copied[position(to, i)] = true;
    }
    for (int i = 0; i < to.stride(); ++i) {  // padding as well
        if (is_copied[i]) continue;
        if (zeros.empty() || zeros.back().first + zeros.back().count != i) zeros.push_back({i, 0});
        ++zeros.back().count;
    }
    for (std::size_t i = 0; i < sources.size(); ++i) {
        require(share_quantization(node.pooled[i], node.output), "an arrangement reads maps of different ranges");
        Op op{.kind = OpKind::arrange, .in = node.pooled[i], .out = node.output, .channels = to.stride()};
        op.arrange = {moves_of(sources[i], layout(node.pooled[i]).stride(), width_), {}, int(map(node.output).zero(0))};
        if (i == 0) op.arrange.zeros = std::move(zeros);
        op.starts_group = i == 0;
        emit(std::move(op));
    }
}

void Lowering::convert(const Node& node) {
    const Layout &from = layout(node.input), &to = layout(node.output);
    require(from.matches(to) && from.segments == to.segments, "a map is converted to another shape");
    Op op{.kind = OpKind::convert, .in = node.input, .out = node.output, .channels = to.stride()};
    pack_constants(op, map(node.input), map(node.output), nullptr);
    emit(std::move(op));
}

void Lowering::output(const Node& node) {
    Op op{.kind = OpKind::output, .in = node.input, .out = node.output, .channels = layout(node.input).stride()};
    op.output = int(net_.outputs.size());
    op.starts_group = next_starts_group = true;
    const Map from = map(node.input);
    if (from.layout.type == Type::u8) {
        op.packed.scale = Buffer(op.channels * sizeof(float));
        op.packed.shift = Buffer(op.channels * sizeof(float));
        for (int i = 0; i < from.layout.segments * from.layout.channels; ++i) {
            const int at = position(from.layout, i);
            op.packed.scale.floats()[at] = from.scale(i);
            op.packed.shift.floats()[at] = -from.scale(i) * from.zero(i);
        }
    }
    emit(std::move(op));
    net_.outputs.push_back({node.input, {}});
}

}  // namespace ghostnets
