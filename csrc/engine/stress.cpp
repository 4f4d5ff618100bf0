// Random networks at random sizes on several threads; built by scripts/sanitize_engine and scripts/check_neon.
//
// Sessions of the same network must agree: to the bit between repeated runs, and within rounding between instruction
// sets, numbers of threads and batches, in every precision. tests/engine compares them with torch.
//
//   stress SECONDS    checks random networks for this long
//   stress -N         prints tolerance and outputs of N networks, the same ones on every processor
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <numeric>
#include <random>
#include <thread>

#include "engine/session.hpp"
#include "engine/stress_memory.hpp"

namespace {

using namespace ghostnets;

std::mt19937 generator(1);

int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

// A plan of a stem, bottlenecks and a head with random weights, which this owns.
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

// All outputs concatenated; values of an image are contiguous if there is one output.
std::vector<float> outputs_of(Session& session, const Images& images, int count, int height, int width) {
    const auto sizes = session.output_sizes(count, height, width);
    std::vector<std::size_t> starts{0};
    for (std::size_t i = 0; i < sizes.size(); ++i)
        starts.push_back(starts.back() + std::size_t(count) * session.network().outputs[i].positions.size() *
                                             sizes[i].first * sizes[i].second);
    std::vector<float> values(starts.back());
    Outputs outputs;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        outputs.data.push_back(values.data() + starts[i]);
        outputs.sizes.push_back(starts[i + 1] - starts[i]);
    }
    session.run(images, count, height, width, outputs);
    return values;
}

float difference(const std::vector<float>& a, const std::vector<float>& b) {
    float largest = 1e-3f, worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(b[i]));
        worst = a[i] == a[i] ? std::max(worst, std::abs(a[i] - b[i])) : INFINITY;
    }
    return worst / largest;
}

void check(bool condition, const char* failure) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", failure);
    std::exit(1);
}

// Allowed difference between instruction sets, numbers of threads and batches, relative to the largest output: sums are
// rounded differently, which may change a stored value by a whole step of its type.
float tolerance(Type precision) { return precision == Type::f32 ? 2e-5f : precision == Type::bf16 ? 0.1f : 0.3f; }

// Calibration: the ranges of all maps, from one image.
void find_ranges(RandomPlan& plan, const Images& images, int height, int width) {
    Session session(plan.source, *find_kernels(""), 1);
    const auto maps = session.observe(images, height, width);
    for (std::size_t map = 0; map < maps.size(); ++map) {
        Tensor range;
        if (!maps[map].empty()) {
            const auto [low, high] = std::minmax_element(maps[map].begin(), maps[map].end());
            const Layout& layout = session.network().layouts[map];
            const int all = layout.segments * layout.channels;
            range = plan.tensor({2, all}, 0);
            std::fill_n(plan.weights.back().begin(), all, *low);
            std::fill_n(plan.weights.back().begin() + all, all, *high);
        }
        plan.source.ranges.push_back(range);
    }
}

void try_one(bool prints) {
    const Type precision = Type(number(0, 2));
    RandomPlan plan(precision);
    const bool bytes = number(0, 1);
    const int count = number(1, 7), height = number(1, 70), width = number(1, number(0, 9) ? 90 : 300);
    std::vector<std::uint8_t> pixels(std::size_t(count) * height * width * 3);
    for (auto& pixel : pixels) pixel = std::uint8_t(number(0, 255));
    std::vector<float> values(pixels.begin(), pixels.end());
    for (float& value : values) value = value / 64 - 2;
    const Images images{bytes ? static_cast<const void*>(pixels.data()) : values.data(), bytes};
    if (precision == Type::u8) find_ranges(plan, images, height, width);
    plan.source.precision = precision;
    const float allowed = tolerance(precision);
    if (prints) {
        std::printf("%g ", allowed);
        Session session(plan.source, *find_kernels(""), 2);
        const std::vector<float> logits = outputs_of(session, images, count, height, width);
        for (const float value : logits) std::printf("%.9g ", value);
        std::printf("\n");
        return;
    }
    if (number(0, 9) == 0)
        check(survives_failed_allocations(
                  plan.source, [&](Session& session) { return outputs_of(session, images, count, height, width); }),
              "outputs differ after a failed allocation");
    std::vector<std::vector<float>> all_outputs;
    for (const Isa isa : supported_isas())
        for (int threads = 1; threads <= 4; ++threads) {
            Session session(plan.source, *find_kernels(isa_name(isa)), threads);
            const auto run = [&](int images_now) { return outputs_of(session, images, images_now, height, width); };
            const std::vector<float> values = run(count);
            const std::vector<float> single = run(1);
            for (const float value : values) check(std::isfinite(value), "an output is not finite");
            check(run(count) == values, "two runs of one session differ");
            std::vector<float> twice[2];
            std::thread other([&] { twice[0] = run(count); });
            twice[1] = run(count);
            other.join();
            check(twice[0] == values && twice[1] == values, "concurrent runs of one session differ");
            if (!session.network().gives_maps())
                check(difference(single, {values.begin(), values.begin() + long(single.size())}) < allowed,
                      "an image alone and in a batch differ");
            all_outputs.push_back(values);
        }
    for (const auto& values : all_outputs)
        check(difference(values, all_outputs.front()) < allowed, "instruction sets or numbers of threads differ");
}

}  // namespace

int main(int, char** arguments) {
    const int seconds = std::atoi(arguments[1]);  // -N: print N networks
    for (int i = seconds; i < 0; ++i) try_one(true);
    if (seconds < 0) return 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    int networks = 0;
    for (; networks == 0 || std::chrono::steady_clock::now() < end; ++networks) try_one(false);
    std::string names;
    for (const Isa isa : supported_isas()) names += std::string(" ") + isa_name(isa);
    std::printf("%d random networks, 1 to 4 threads, instruction sets%s: all agree\n", networks, names.c_str());
}
