// Random networks at random sizes on several threads; built by scripts/sanitize_engine and scripts/check_neon.
//
// Sessions of the same network must agree: to the bit between repeated runs, and within rounding between instruction
// sets, numbers of threads and batches. That what they agree on is right is tested against torch, in tests/engine.
//
//   stress SECONDS    checks for so long
//   stress -N         prints the outputs of N networks, the same ones on every processor
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <thread>

#include "session.hpp"

namespace {

using namespace ghostnets;

std::mt19937 generator(1);

int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

// A plan of a stem, bottlenecks and a head with random weights, which live as long as this does.
struct RandomPlan {
    PlanSource source;
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
        Node node{.kind = "ghost", .input = in, .output = out, .residual = residual, .gate = gate};
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
        Node node{.kind = "depthwise", .input = in, .output = out, .stride = stride, .activation = activation};
        node.weight = tensor({like.segments, like.channels, kernel_h, kernel_w}, 0.4f);
        node.bias = tensor({like.segments, like.channels}, 0.2f);
        source.nodes.push_back(node);
        return out;
    }

    int dense(const char* kind, int in, Layout to, Activation activation) {
        const int out = map(to), depth = channels(in);
        Node node{.kind = kind, .input = in, .output = out, .activation = activation};
        node.weight = tensor({channels(out), depth}, 1 / std::sqrt(float(depth)));
        node.bias = tensor({channels(out)}, 0.2f);
        source.nodes.push_back(node);
        return out;
    }

    int like(const char* kind, int in) {
        const int out = map(layout(in));
        source.nodes.push_back({.kind = kind, .input = in, .output = out});
        return out;
    }

    int bottleneck(int in, int segments) {
        const int stride = number(1, 2);
        const int out_half = stride == 1 && number(0, 1) ? layout(in).channels : number(1, 40);
        const int hidden_half = number(1, 70);
        int residual = in, gate = -1;
        if (stride == 2 || out_half != layout(in).channels) {
            const int kernel = 2 * number(1, 2) + 1;
            residual = dense("pointwise", depthwise(in, kernel, kernel, stride), {segments, out_half}, Activation::none);
        }
        if (number(0, 2) == 0) {
            gate = dense("pointwise", like("average", in), {segments, hidden_half}, Activation::none);
            gate = depthwise(depthwise(gate, 1, 5, 1), 5, 1, 1, Activation::sigmoid);
        }
        int x = ghost(in, hidden_half, segments, true, -1, gate);
        if (stride == 2) x = depthwise(x, number(0, 1) ? 3 : 5, 3, 2);
        if (number(0, 1)) {
            const Layout hidden = layout(x);
            const int out = map(hidden), squeezed = number(1, 20), all = hidden.segments * hidden.channels;
            Node node{.kind = "squeeze_excite", .input = x, .output = out, .activation = Activation::hard_sigmoid};
            node.weight = tensor({squeezed, all}, 0.2f);
            node.bias = tensor({squeezed}, 0.2f);
            node.second_weight = tensor({all, squeezed}, 0.5f);
            node.second_bias = tensor({all}, 0.5f);
            source.nodes.push_back(node);
            x = out;
        }
        return ghost(x, out_half, segments, false, residual, -1);
    }

    RandomPlan() {
        const int segments = number(1, 3), images = map({1, 3}), stem_half = number(1, 20);
        source.scale = {0.01f, 0.02f, 0.03f};
        source.shift = {-1, 0, 1};
        const int stem = map({segments, stem_half});
        Node node{.kind = "stem", .input = images, .output = stem, .stride = number(1, 2), .activation = Activation::relu};
        node.weight = tensor({segments * stem_half, 3, 3, 3}, 0.3f);
        node.bias = tensor({segments * stem_half}, 0.2f);
        source.nodes.push_back(node);
        int x = stem;
        for (int i = number(1, 5); i > 0; --i) x = bottleneck(x, segments);
        x = dense("pointwise", x, {1, number(1, 90)}, Activation::relu);  // one call a line: arguments have no order
        x = dense("linear", like("pool", x), {1, number(1, 50)}, Activation::relu);
        dense("linear", x, {1, number(1, 50)}, Activation::none);
    }
};

float difference(const std::vector<float>& a, const std::vector<float>& b) {
    float largest = 1e-3f, worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(b[i]));
        worst = a[i] == a[i] ? std::max(worst, std::abs(a[i] - b[i])) : INFINITY;
    }
    return worst / largest;
}

void check(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

void try_one(bool prints) {
    const RandomPlan plan;
    const bool bytes = number(0, 1);
    const int count = number(1, 7), height = number(1, 70), width = number(1, number(0, 9) ? 90 : 300);
    std::vector<std::uint8_t> pixels(std::size_t(count) * height * width * 3);
    for (auto& pixel : pixels) pixel = std::uint8_t(number(0, 255));
    std::vector<float> values(pixels.begin(), pixels.end());
    for (float& value : values) value = value / 64 - 2;
    const Images images{bytes ? static_cast<const void*>(pixels.data()) : values.data(), bytes};
    if (prints) {
        Session session(plan.source, *find_kernels(""), 2);
        std::vector<float> logits(std::size_t(count) * session.network().outputs);
        session.run(images, count, height, width, logits.data());
        for (const float value : logits) std::printf("%.9g ", value);
        std::printf("\n");
        return;
    }
    std::vector<std::vector<float>> answers;
    for (const std::string& isa : instruction_sets())
        for (int threads = 1; threads <= 4; ++threads) {
            Session session(plan.source, *find_kernels(isa), threads);
            const auto run = [&](int images_now) {
                std::vector<float> logits(std::size_t(images_now) * session.network().outputs);
                session.run(images, images_now, height, width, logits.data());
                return logits;
            };
            const std::vector<float> answer = run(count);
            const std::vector<float> single = run(1);
            check(run(count) == answer, "two runs of one session differ");
            std::vector<float> twice[2];
            std::thread other([&] { twice[0] = run(count); });
            twice[1] = run(count);
            other.join();
            check(twice[0] == answer && twice[1] == answer, "concurrent runs of one session differ");
            check(difference(single, {answer.begin(), answer.begin() + long(single.size())}) < 2e-5f,
                  "an image alone and in a batch differ");
            answers.push_back(answer);
        }
    for (const auto& answer : answers)
        check(difference(answer, answers.front()) < 2e-5f, "instruction sets or numbers of threads differ");
}

}  // namespace

int main(int, char** arguments) {
    const int amount = std::atoi(arguments[1]);
    for (int i = amount; i < 0; ++i) try_one(true);
    if (amount < 0) return 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(amount);
    int networks = 0;
    for (; networks == 0 || std::chrono::steady_clock::now() < end; ++networks) try_one(false);
    std::string names;
    for (const std::string& name : instruction_sets()) names += " " + name;
    std::printf("%d random networks, 1 to 4 threads, instruction sets%s: all agree\n", networks, names.c_str());
}
