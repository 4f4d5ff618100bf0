// Random plans for stress.cpp: a stem, blocks of every kind of node and a head, with random weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include "engine/plan.hpp"

namespace ghostnets {

inline std::mt19937 generator(1);

inline int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

// A plan and its weights.
struct RandomPlan {
    Plan source;
    std::deque<std::vector<float>> weights;

    Tensor tensor(std::vector<int> shape, float scale) {
        int size = 1;
        for (int side : shape) size *= side;
        std::vector<float>& values = weights.emplace_back(size);
        std::normal_distribution<float> normal(0, scale);
        for (float& value : values) value = normal(generator);
        return {shape, values.data()};
    }

    int map(Layout layout) {
        source.layouts.push_back(layout);
        return int(source.layouts.size()) - 1;
    }

    Layout& layout(int map) { return source.layouts[map]; }
    int channels(int map) { return layout(map).segments * layout(map).channels; }

    int ghost(int in, int half, int segments, bool relu, int residual, int gate) {
        const int out = map({segments, half}), depth = channels(in);
        Node node{.kind = NodeKind::ghost, .input = in, .output = out, .residual = residual, .gate = gate};
        node.activation = relu ? Activation::relu : Activation::none;
        node.weight = tensor({half, depth}, 1 / std::sqrt(float(depth)));
        node.bias = tensor({half}, 0.2f);
        if (segments > 1) {
            node.second_weight = tensor({segments - 1, half, 3, 3}, 0.3f);
            node.second_bias = tensor({segments - 1, half}, 0.2f);
        }
        source.nodes.push_back(node);
        return out;
    }

    int depthwise(int in, int kernel_h, int kernel_w, int stride, Activation activation = Activation::none) {
        const Layout like = layout(in);
        const int out = map(like);
        Node node{.kind = NodeKind::depthwise, .input = in, .output = out, .stride = stride, .activation = activation};
        node.weight = tensor({like.segments, like.channels, kernel_h, kernel_w}, 0.4f);
        node.bias = tensor({like.segments, like.channels}, 0.2f);
        source.nodes.push_back(node);
        return out;
    }

    int gemm(NodeKind kind, int in, Layout to, Activation activation) {
        const int out = map(to), depth = channels(in);
        Node node{.kind = kind, .input = in, .output = out, .activation = activation};
        node.weight = tensor({channels(out), depth}, 1 / std::sqrt(float(depth)));
        node.bias = tensor({channels(out)}, 0.2f);
        source.nodes.push_back(node);
        return out;
    }

    int like(NodeKind kind, int in) {
        const int out = map(layout(in));
        source.nodes.push_back({.kind = kind, .name = "", .input = in, .output = out});
        return out;
    }

    int bottleneck(int in, int segments) {
        const int stride = number(1, 2);
        const int out_half = stride == 1 && number(0, 1) ? layout(in).channels : number(1, 40);
        const int hidden_half = number(1, 70);
        int residual = in, gate = -1;
        if (stride == 2 || out_half != layout(in).channels || segments != layout(in).segments) {
            const int kernel = 2 * number(1, 2) + 1;
            residual =
                gemm(NodeKind::conv, depthwise(in, kernel, kernel, stride), {segments, out_half}, Activation::none);
        }
        if (number(0, 2) == 0) {
            gate = gemm(NodeKind::conv, like(NodeKind::average, in), {segments, hidden_half}, Activation::none);
            gate = depthwise(depthwise(gate, 1, 5, 1), 5, 1, 1, Activation::sigmoid);
        }
        int x = ghost(in, hidden_half, segments, true, -1, gate);
        if (stride == 2) x = depthwise(x, number(0, 1) ? 3 : 5, 3, 2);
        if (number(0, 1)) {
            const Layout hidden = layout(x);
            const int out = map(hidden), squeezed = number(1, 20), all = hidden.segments * hidden.channels;
            Node node{
                .kind = NodeKind::squeeze_excite, .input = x, .output = out, .activation = Activation::hard_sigmoid};
            node.weight = tensor({squeezed, all}, 0.2f);
            node.bias = tensor({squeezed}, 0.2f);
            node.second_weight = tensor({all, squeezed}, 0.5f);
            node.second_bias = tensor({all}, 0.5f);
            source.nodes.push_back(node);
            x = out;
        }
        return ghost(x, out_half, segments, false, residual, -1);
    }

    int conv(int in, Layout to, int kernel, int stride, int groups, Activation activation) {
        const int out = map(to), depth = channels(in) / groups;
        Node node{.kind = NodeKind::conv,
                  .input = in,
                  .output = out,
                  .groups = groups,
                  .stride = stride,
                  .activation = activation};
        node.dilation_h = node.dilation_w = number(0, 3) ? 1 : 2;
        node.weight = tensor({channels(out), depth, kernel, kernel}, 1 / std::sqrt(float(depth * kernel * kernel)));
        node.bias = tensor({channels(out)}, 0.2f);
        source.nodes.push_back(node);
        return out;
    }

    int add(int a, int b) {
        const int out = map(layout(a));
        source.nodes.push_back(
            {.kind = NodeKind::add, .input = a, .output = out, .residual = b, .activation = Activation::relu});
        return out;
    }

    // 1x1, grouped k x k, 1x1 and a shortcut; sometimes the mix of the means of all maps is added.
    int regnet_block(int in) {
        const int stride = number(1, 2), groups = number(1, 4);
        const Layout grouped{groups, number(1, 20)}, to{1, number(1, 60)};
        const int wide = conv(in, grouped, 1, 1, 1, Activation::relu);
        const int y = conv(wide, grouped, 2 * number(0, 2) + 1, stride, groups, Activation::relu);
        const int narrow = conv(y, to, 1, 1, 1, Activation::none);
        const int out = add(narrow, conv(in, to, 1, stride, 1, Activation::none));
        if (number(0, 1)) return out;
        const int mixed = map(to), squeezed = number(1, 20);
        Node node{.kind = NodeKind::mix,
                  .input = out,
                  .output = mixed,
                  .pooled = {y, narrow, out},
                  .activation = Activation::relu};
        int depth = 0;
        for (const int pooled : node.pooled) depth += layout(pooled).stride();
        node.weight = tensor({squeezed, depth}, 0.2f);
        node.bias = tensor({squeezed}, 0.2f);
        node.second_weight = tensor({to.channels, squeezed}, 0.5f);
        node.second_bias = tensor({to.channels}, 0.5f);
        source.nodes.push_back(node);
        return mixed;
    }

    int max_pool(int in) {
        const int out = map(layout(in)), kernel = number(2, 3);
        const int dilation =
            kernel == 2 ? number(1, 2) : 1;  // otherwise a window may lie outside of a map of one pixel
        Node node{.kind = NodeKind::max_pool, .input = in, .output = out, .stride = number(1, 2), .kernel = kernel};
        node.dilation_h = dilation;
        node.pad = kernel - 2;
        node.pad_end = dilation * (kernel - 1);  // at least a window, whatever the size of the map
        source.nodes.push_back(node);
        return out;
    }

    int pool(NodeKind kind, int in) {
        const int out = map(layout(in));
        Node node{.kind = kind, .input = in, .output = out};
        if (kind == NodeKind::average_pool) {
            node.kernel = number(2, 3);
            node.stride = number(1, 2);
            node.pad = node.pad_end = node.kernel / 2;  // fits a map of one pixel
            node.counts_padding = number(0, 1);
        } else {
            node.out_h = number(1, 6);
            node.out_w = number(1, 6);
        }
        source.nodes.push_back(node);
        return out;
    }

    int resize(int in, int like) {
        const int out = map(layout(in));
        Node node{.kind = NodeKind::resize, .input = in, .output = out, .like = like};
        node.is_bilinear = number(0, 1);
        node.aligns_corners = node.is_bilinear && number(0, 1);
        source.nodes.push_back(node);
        return out;
    }

    int binary(NodeKind kind, int a, int b, Activation activation) {
        const int out = map(layout(a));
        Node node{.kind = kind, .input = a, .output = out, .residual = b, .activation = activation};
        node.slope = 0.1f;
        source.nodes.push_back(node);
        return out;
    }

    // The channels of two maps, shuffled, with zeros in between.
    int arrange(int a, int b) {
        Node node{.kind = NodeKind::arrange, .pooled = {a, b}};
        node.sources.resize(channels(a) + channels(b) + 3, -1);
        std::iota(node.sources.begin(), node.sources.end() - 3, 0);
        std::shuffle(node.sources.begin(), node.sources.end(), generator);
        node.output = map({1, int(node.sources.size())});
        source.nodes.push_back(node);
        return node.output;
    }

    int convert(int in, bool to_float) {
        const int out = like(NodeKind::convert, in);
        if (to_float) source.floats.push_back(out);
        return out;
    }

    // The nodes of networks that are converted by their graph.
    int graph_block(int in, bool is_plain) {
        static constexpr Activation kActivations[]{Activation::relu6, Activation::leaky_relu, Activation::hard_swish,
                                                   Activation::silu, Activation::sigmoid};
        const auto activation = [] { return kActivations[number(0, 4)]; };
        const Layout to{1, number(1, 40)};
        int x = conv(in, to, 3, 1, 1, activation());
        source.nodes.back().slope = 0.2f;
        const int enlarged = resize(pool(NodeKind::adaptive_pool, x), x);  // arguments have no order
        x = binary(NodeKind::add, x, enlarged, activation());
        if (number(0, 1)) {  // a layer in float32
            x = depthwise(convert(x, true), 3, 3, 1);
            source.floats.push_back(x);
            x = convert(x, false);
        }
        const int pixel = map(to);
        source.nodes.push_back({.kind = NodeKind::adaptive_pool, .input = x, .output = pixel, .out_h = 1, .out_w = 1});
        x = binary(NodeKind::scale, x, conv(pixel, to, 1, 1, 1, Activation::hard_sigmoid), Activation::none);
        const int gates = depthwise(x, 5, 3, 1, Activation::sigmoid);
        x = binary(NodeKind::multiply, x, gates, activation());
        x = pool(NodeKind::average_pool, x);
        if (!is_plain) x = arrange(x, conv(x, {1, number(1, 30)}, 1, 1, 1, Activation::none));  // one range for both
        return gemm(NodeKind::conv, x, layout(in), Activation::relu);
    }

    void output(int in) {
        source.nodes.push_back({.kind = NodeKind::output, .input = in, .output = map(layout(in))});
        source.orders.emplace_back();
        for (int c = channels(in) - 1; c >= 0; --c) source.orders.back().push_back(c);
    }

    // Uses the nodes that this precision supports.
    explicit RandomPlan(Type precision) {
        const bool is_plain = precision == Type::u8;
        const int segments = number(1, 3), images = map({1, 3}), stem_half = number(1, 20);
        const bool gives_maps = !is_plain && number(0, 3) == 0;
        source.scale = {0.01f, 0.02f, 0.03f};
        source.shift = {-1, 0, 1};
        const int stem = map({segments, stem_half});
        Node node{.kind = NodeKind::stem,
                  .input = images,
                  .output = stem,
                  .stride = number(1, 2),
                  .activation = Activation::relu};
        const bool has_ghosts = !is_plain && segments > 1 && number(0, 2) == 0;
        const int stem_rows = (has_ghosts ? 1 : segments) * stem_half;
        node.weight = tensor({stem_rows, 3, 3, 3}, 0.3f);
        node.bias = tensor({stem_rows}, 0.2f);
        if (has_ghosts) {
            node.second_weight = tensor({segments - 1, stem_half, 3, 3}, 0.3f);
            node.second_bias = tensor({segments - 1, stem_half}, 0.2f);
        }
        source.nodes.push_back(node);
        int x = stem;
        for (int i = number(1, 5); i > 0; --i) {
            if (!is_plain && number(0, 4) == 0) x = max_pool(x);
            if (!is_plain && number(0, 3) == 0) x = regnet_block(x);
            if (number(0, 2) == 0) x = graph_block(x, is_plain);
            x = bottleneck(x, segments);
            if (gives_maps && (i == 1 || number(0, 1))) output(x);
        }
        if (gives_maps) return;
        x = gemm(NodeKind::conv, x, {1, number(1, 90)}, Activation::relu);  // one call a line: arguments have no order
        x = gemm(NodeKind::linear, like(NodeKind::pool, x), {1, number(1, 50)}, Activation::relu);
        x = gemm(NodeKind::linear, x, {1, number(1, 50)}, Activation::none);
        source.orders.emplace_back(channels(x));
        std::iota(source.orders[0].begin(), source.orders[0].end(), 0);
    }
};

}  // namespace ghostnets
