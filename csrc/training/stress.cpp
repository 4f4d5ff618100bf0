// Runs every training kernel forward and backward on random maps of odd sizes, for scripts/sanitize_training. All
// arrays have exactly the size needed, so that the address sanitizer reports any access beyond them. The instruction
// sets must agree.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "training/kernels.hpp"

namespace {

using namespace ghostnets;
using namespace ghostnets::training;

template <class T>
using Values = std::vector<T>;

template <class T>
Values<T> random_values(std::mt19937& random, std::size_t count, double low = -1, double high = 1) {
    std::uniform_real_distribution<double> value(low, high);
    Values<T> values(count);
    for (T& v : values) v = T(value(random));
    return values;
}

// One block: a 1 x 1 convolution of two gated maps and a depthwise convolution of its output.
template <class T>
struct Block {
    std::mt19937 random;
    const int threads, images, height, width, kernel, stride, channels, input_count;
    const int pixels = images * height * width, image = height * width;
    const int small = images * ((height - 1) / stride + 1) * ((width - 1) / stride + 1);  // pixels of the output

    Values<T> inputs[2], input_statistics[2], input_gradients[2], input_sums[2];
    Values<T> gate, weight, filter, gamma, beta, running_mean, running_var, statistics[2];
    Values<T> middle, out, joined, counts;
    Values<T> norm_gradients[2], coefficients[2], d_middle, d_filter, d_weight;
    Pointwise<T> pointwise{threads, pixels, image};
    Depthwise<T> depthwise{threads, images, height, width, kernel, stride};
    MapView<T> last{};

    explicit Block(unsigned seed)
        : random(seed), threads(number(1, 3)), images(number(1, 4)), height(number(1, 12)), width(number(1, 19)),
          kernel(number(0, 1) ? 3 : 5), stride(number(1, 2)), channels(number(1, 150)), input_count(number(1, 2)) {
        int in = 0;
        for (int i = 0; i < input_count; ++i) {
            const int c = number(1, 70);
            inputs[i] = random_values<T>(random, std::size_t(pixels) * c);
            input_statistics[i] = random_values<T>(random, 4 * c, 0.5, 1.5);
            input_gradients[i].resize(inputs[i].size());
            input_sums[i].resize(2 * images * c);
            in += c;
        }
        gate = random_values<T>(random, std::size_t(images) * in, 0, 1);
        weight = random_values<T>(random, std::size_t(in) * channels);
        filter = random_values<T>(random, std::size_t(channels) * kernel * kernel);
        gamma = random_values<T>(random, channels, 0.5, 1.5);
        beta = random_values<T>(random, channels);
        running_mean.resize(channels);
        running_var.resize(channels, T(1));
        for (int i = 0; i < 2; ++i) {
            statistics[i].resize(4 * channels);
            norm_gradients[i].resize(2 * channels);
            coefficients[i].resize(3 * channels);
        }
        middle.resize(std::size_t(pixels) * channels);
        out.resize(std::size_t(small) * channels);
        joined.resize(out.size());
        counts.resize(2 * images * channels);
        d_middle.resize(middle.size());
        d_filter.resize(filter.size());
        d_weight.resize(weight.size());
    }

    int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

    Norm<T> norm(int i) {
        return {gamma.data(), beta.data(), running_mean.data(), running_var.data(), 0.1, 1e-5, statistics[i].data()};
    }

    NormGradient<T> norm_gradient(int i) {
        T* own = norm_gradients[i].data();
        return {gamma.data(), own, own + channels, coefficients[i].data(), channels};
    }

    void forward(const Kernels<T>& kernels) {
        const int in = int(gate.size()) / images;
        pointwise.input_count = input_count;
        for (int i = 0, c = 0; i < input_count; ++i) {
            const int own = int(input_statistics[i].size() / 4);
            pointwise.inputs[i] = {inputs[i].data(), own, input_statistics[i].data(), own, true, gate.data() + c, in};
            c += own;
        }
        pointwise.weight = weight.data();
        pointwise.out_channels = channels;
        pointwise.out = middle.data();
        pointwise.norm = norm(0);
        kernels.pointwise_forward(pointwise);

        depthwise.input_count = 1;
        depthwise.inputs[0] = {middle.data(), channels, statistics[0].data(), channels, true, nullptr, 0};
        depthwise.weight = filter.data();
        depthwise.out = out.data();
        depthwise.norm = norm(1);
        kernels.depthwise_forward(depthwise);

        last = {out.data(), channels, statistics[1].data(), channels, false, nullptr, 0};
        kernels.join({threads, small, small, {last}, 1, last, joined.data()});
        kernels.image_sums({threads, pixels, image, depthwise.inputs[0], counts.data()});
    }

    void backward(const Kernels<T>& kernels) {
        const Values<T> d_out = random_values<T>(random, out.size()), add = random_values<T>(random, middle.size());
        kernels.sums({threads, small, small, {d_out.data(), channels, last, nullptr, nullptr, 0}, norm_gradient(1)});
        depthwise.gradient = {d_out.data(), channels, last, nullptr, coefficients[1].data(), channels};
        depthwise.targets[0] = {d_middle.data(), add.data(), channels, nullptr, nullptr, 0, norm_gradient(0), nullptr};
        depthwise.weight_gradient = d_filter.data();
        kernels.depthwise_backward(depthwise);

        pointwise.gradient = {d_middle.data(),        channels, depthwise.inputs[0], nullptr,
                              coefficients[0].data(), channels};
        for (int i = 0; i < input_count; ++i)
            pointwise.targets[i] = {input_gradients[i].data(), nullptr, 0, nullptr, nullptr, 0, {},
                                    input_sums[i].data()};
        pointwise.weight_gradient = d_weight.data();
        kernels.pointwise_backward(pointwise);
    }

    Values<T> results() const {
        Values<T> all;
        for (const Values<T>* values : {&middle, &out, &joined, &counts, &d_middle, &d_filter, &d_weight,
                                        &input_gradients[0], &input_gradients[1], &input_sums[0], &input_sums[1]})
            all.insert(all.end(), values->begin(), values->end());
        return all;
    }
};

// Branches of a depthwise convolution, forward and backward.
template <class T>
Values<T> run_branches(const Kernels<T>& kernels, unsigned seed) {
    std::mt19937 random(seed);
    const auto size = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    Branches<T> op{size(1, 3),   size(1, 4),         size(1, 12), size(1, 19),
                   size(1, 150), size(0, 1) ? 3 : 5, size(1, 2),  size(1, 3)};
    const std::size_t channels = op.channels, pixels = std::size_t(op.images) * op.height * op.width;
    const std::size_t small =
        std::size_t(op.images) * ((op.height - 1) / op.stride + 1) * ((op.width - 1) / op.stride + 1);
    const std::size_t filter = channels * op.kernel * op.kernel;
    const Values<T> x = random_values<T>(random, pixels * channels),
                    weights = random_values<T>(random, op.filters * filter);
    const Values<T> d = random_values<T>(random, small * channels), merged = random_values<T>(random, filter);
    const Values<T> slopes = random_values<T>(random, (op.filters + 1) * channels);
    const Values<T> offsets = random_values<T>(random, (op.filters + 1) * channels);
    std::vector<double> moments(2 * (op.filters + 1) * channels);
    Values<T> out(x.size()), weight_gradients(weights.size());
    op.x = x.data(), op.weights = weights.data(), op.moments = moments.data();
    kernels.branch_moments(op);
    op.d = d.data(), op.merged = merged.data(), op.slopes = slopes.data(), op.offsets = offsets.data();
    op.out = out.data(), op.weight_gradients = weight_gradients.data();
    kernels.branch_gradient(op);
    Values<T> all(moments.begin(), moments.end());
    for (const Values<T>* values : {&out, &weight_gradients}) all.insert(all.end(), values->begin(), values->end());
    return all;
}

// Results of all kernels.
template <class T>
Values<T> run_all(const Kernels<T>& kernels, unsigned seed) {
    Block<T> block(seed);
    block.forward(kernels);
    block.backward(kernels);
    Values<T> all = block.results();
    const Values<T> more = run_branches(kernels, seed);
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

template <class T>
double difference(const Values<T>& a, const Values<T>& b) {
    double most = 0, largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        most = std::fmax(most, std::fabs(double(a[i]) - double(b[i])));
        largest = std::fmax(largest, std::fabs(double(a[i])));
        if (std::isnan(b[i])) return NAN;
    }
    return most / largest;
}

}  // namespace

int main(int, char** arguments) {
    const int networks = std::atoi(arguments[1]);
    std::vector<const KernelTable*> others;
    for (const Isa isa : supported_isas())
        if (const KernelTable* table = find_kernels(isa_name(isa)); table && isa != Isa::baseline)
            others.push_back(table);
    double worst = 0;
    for (int seed = 0; seed < networks; ++seed) {
        const Values<double> expected = run_all(kBaselineKernels.full, unsigned(seed));
        run_all(kBaselineKernels.single, unsigned(seed));
        for (const KernelTable* table : others) {
            run_all(table->single, unsigned(seed));
            const double own = difference(expected, run_all(table->full, unsigned(seed)));
            if (!(own <= 1e-8)) {
                std::printf("case %d: %s differs from the baseline by %g\n", seed, isa_name(table->isa), own);
                return 1;
            }
            worst = std::fmax(worst, own);
        }
    }
    std::printf("%d random cases, %zu instruction sets in addition to the baseline: largest difference %.1e\n",
                networks, others.size(), worst);
}
