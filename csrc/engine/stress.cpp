// Random networks at random sizes on several threads; built by scripts/sanitize_engine and scripts/check_neon.
//
// Sessions of the same network must agree: to the bit between repeated runs and numbers of threads, and within rounding
// between instruction sets and batches, in every precision. tests/engine compares them with torch.
//
//   stress SECONDS    checks random networks for this long
//   stress -N [ISA]   prints tolerance and outputs of N networks, the same ones on every processor
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "engine/session.hpp"
#include "engine/stress_memory.hpp"
#include "engine/stress_plan.hpp"

namespace {

using namespace ghostnets;

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

// Allowed difference between instruction sets and batches, relative to the largest output: sums are
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

void try_one(bool prints, const char* isa = "") {
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
        Session session(plan.source, *find_kernels(isa), 2);
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
            if (threads > 1) check(values == all_outputs.back(), "numbers of threads differ");
            else all_outputs.push_back(values);
        }
    for (const auto& values : all_outputs)
        check(difference(values, all_outputs.front()) < allowed, "instruction sets differ");
}

}  // namespace

int main(int count, char** arguments) {
    const int seconds = std::atoi(arguments[1]);  // -N: print N networks
    const char* isa = count > 2 ? arguments[2] : "";
    check(find_kernels(isa) != nullptr, "this processor does not have that instruction set");
    for (int i = seconds; i < 0; ++i) try_one(true, isa);
    if (seconds < 0) return 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    int networks = 0;
    for (; networks == 0 || std::chrono::steady_clock::now() < end; ++networks) try_one(false);
    std::string names;
    for (const Isa isa : supported_isas()) names += std::string(" ") + isa_name(isa);
    std::printf("%d random networks, 1 to 4 threads, instruction sets%s: all agree\n", networks, names.c_str());
}
