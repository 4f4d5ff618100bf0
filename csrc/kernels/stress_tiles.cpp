// Random tasks for the gemm of AMX; built by scripts/check_amx, with emulated tile instructions or the processor's.
//
// Sums of bytes have the bits of avx512_vnni, those of bfloat16 the error of float32 arithmetic against double, and
// neither depends on how pixels and outputs are split. What lies between the segments of a pixel is not read: it is
// NaN.
//
//   stress_tiles COUNT
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/gemm_tiles.hpp"

namespace {

using namespace ghostnets;
using namespace ghostnets::avx512_amx;

std::mt19937 generator(0);

int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
float real() { return std::uniform_real_distribution<float>(-1, 1)(generator); }

void check(bool condition, const char* failure) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", failure);
    std::exit(1);
}

std::uint16_t bf16_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return std::uint16_t(bits >> 16);
}

float float_of(std::uint16_t bf16) {
    const std::uint32_t bits = std::uint32_t(bf16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

struct alignas(64) Line {
    unsigned char bytes[64];
};

// A task and its memory; outputs are in `out`, which begins as bytes 0x55.
struct RandomTask {
    GemmTask task{};
    std::vector<unsigned char> in;
    std::vector<const void*> segments;
    std::vector<Line> weights;
    std::vector<float> bias, scale;
    std::vector<unsigned char> out;

    explicit RandomTask(Type type);
    std::vector<unsigned char> run(void (*gemm)(const GemmTask&));
    float output(const std::vector<unsigned char>& from, int pixel, int column) const;
};

RandomTask::RandomTask(Type type) {
    const int group = group_of(type), size = size_of(type), gap = number(0, 9);
    task.in = type;
    task.out_type = number(0, 1) ? type : Type::f32;
    task.segment_count = number(1, number(0, 3) ? 3 : 12);
    task.segment_groups = number(1, number(0, 3) ? 20 : 70);
    task.pixels = number(1, number(0, 3) ? 40 : 200);
    task.vectors = number(1, 5);
    task.columns = task.vectors * kWidth - number(0, 1) * kWidth / 2;
    const int segment = task.segment_groups * group + gap;  // values
    task.pixel_stride = task.segment_count * segment;
    in.assign(std::size_t(task.pixels * task.pixel_stride - gap) * size, 0xff);
    for (int p = 0; p < task.pixels; ++p)
        for (int s = 0; s < task.segment_count; ++s)
            for (int k = 0; k < task.segment_groups * group; ++k) {
                const std::size_t at = p * task.pixel_stride + s * segment + k;
                const std::uint16_t value = bf16_of(number(0, 99) ? real() : real() * 1e-38f);
                if (type == Type::u8) in[at] = std::uint8_t(number(0, 255));
                else std::memcpy(&in[2 * at], &value, 2);
            }
    for (int s = 0; s < task.segment_count; ++s) segments.push_back(in.data() + s * segment * size);
    task.segments = segments.data();
    task.vector_stride = task.segment_count * task.segment_groups;
    weights.resize(std::size_t(task.vectors) * task.vector_stride);
    for (Line& line : weights)
        for (int i = 0; i < 64; i += size) {
            const std::uint16_t value = bf16_of(real());
            if (type == Type::u8) line.bytes[i] = std::uint8_t(number(-127, 127));
            else std::memcpy(line.bytes + i, &value, 2);
        }
    task.weights = weights.data();
    for (int v = 0; v < task.vectors * kWidth; ++v) {
        bias.push_back(real() * (type == Type::u8 ? 100 : 1));
        scale.push_back(real() * 1e-3f);
    }
    task.bias = bias.data();
    task.scale = scale.data();
    task.out_stride = task.vectors * kWidth + number(0, 5);
    if (type != Type::u8 && number(0, 1)) task.activation = number(0, 1) ? Activation::relu6 : Activation::hard_swish;
    task.clamp_min = task.activation == Activation::none && number(0, 1) ? 0 : -INFINITY;
    out.resize(std::size_t(task.pixels) * task.out_stride * size_of(task.out_type));
}

std::vector<unsigned char> RandomTask::run(void (*gemm)(const GemmTask&)) {
    std::fill(out.begin(), out.end(), 0x55);
    task.out = out.data();
    gemm(task);
    return out;
}

float RandomTask::output(const std::vector<unsigned char>& from, int pixel, int column) const {
    const std::size_t at = pixel * task.out_stride + column;
    if (task.out_type == Type::f32) {
        float value;
        std::memcpy(&value, &from[4 * at], 4);
        return value;
    }
    std::uint16_t value;
    std::memcpy(&value, &from[2 * at], 2);
    return float_of(value);
}

// The task in parts of any size.
void gemm_in_parts(const GemmTask& whole) {
    for (int pixel = 0, pixels; pixel < whole.pixels; pixel += pixels) {
        pixels = std::min(number(1, 50), whole.pixels - pixel);
        for (int vector = 0, vectors; vector < whole.vectors; vector += vectors) {
            vectors = std::min(number(1, 3), whole.vectors - vector);
            GemmTask part = whole;
            std::vector<const void*> segments;
            for (int s = 0; s < whole.segment_count; ++s)
                segments.push_back(static_cast<const char*>(whole.segments[s]) +
                                   pixel * whole.pixel_stride * size_of(whole.in));
            part.segments = segments.data();
            part.weights = static_cast<const char*>(whole.weights) + vector * whole.vector_stride * 64;
            part.bias += vector * kWidth;
            part.scale += vector * kWidth;
            part.columns -= vector * kWidth;
            part.vectors = vectors;
            part.pixels = pixels;
            part.out =
                static_cast<char*>(whole.out) + (pixel * whole.out_stride + vector * kWidth) * size_of(whole.out_type);
            if (whole.in == Type::bf16)
                check(gains_by_tiles(part) == gains_by_tiles(whole), "the choice of tiles depends on the split");
            avx512_amx::gemm_in_tiles(part);
        }
    }
}

float activated(Activation activation, float x) {
    if (activation == Activation::relu6) return std::fmin(std::fmax(x, 0), 6);
    if (activation == Activation::hard_swish) return x * std::fmin(std::fmax(x + 3, 0), 6) / 6;
    return x;
}

// Compares bfloat16 with double. The bound is that of any order of additions; activations have a slope of at most 1.5.
void check_error(const RandomTask& random, const std::vector<unsigned char>& found) {
    const GemmTask& task = random.task;
    const int terms = 2 * task.segment_count * task.segment_groups;
    const auto* weights = reinterpret_cast<const std::uint16_t*>(random.weights.data());
    for (int p = 0; p < task.pixels; p += 3)
        for (int c = 0; c < task.columns; c += 5) {
            double sum = random.bias[c], size = std::fabs(sum);
            for (int s = 0; s < task.segment_count; ++s)
                for (int k = 0; k < 2 * task.segment_groups; ++k) {
                    std::uint16_t x;
                    std::memcpy(&x, static_cast<const char*>(task.segments[s]) + 2 * (p * task.pixel_stride + k), 2);
                    const std::size_t line = c / kWidth * task.vector_stride + s * task.segment_groups + k / 2;
                    const double product =
                        double(float_of(x)) * double(float_of(weights[line * 32 + c % kWidth * 2 + k % 2]));
                    sum += product;
                    size += std::fabs(product);
                }
            const float expected = std::fmax(task.clamp_min, activated(task.activation, float(sum)));
            const double rounding = task.out_type == Type::f32 ? 0x1p-20 : 0x1p-8;
            const double bound = 1.5 * (terms + 4) * 0x1p-24 * size + rounding * std::fabs(expected) + 1e-30;
            check(std::fabs(random.output(found, p, c) - expected) <= bound, "a sum of bfloat16 is wrong");
        }
}

}  // namespace

int main(int, char** arguments) {
    const std::vector<Isa> isas = supported_isas();  // asks the system for AMX
    if (std::find(isas.begin(), isas.end(), Isa::avx512_amx) == isas.end()) {
        std::printf("this process may not use AMX: nothing was run\n");
        return 0;
    }
    const int count = std::atoi(arguments[1]);
    int chosen = 0;
    for (int i = 0; i < count; ++i) {
        RandomTask random(number(0, 1) ? Type::u8 : Type::bf16);
        const auto found = random.run(avx512_amx::gemm_in_tiles);
        check(random.run(gemm_in_parts) == found, "outputs depend on the split");
        if (random.task.in == Type::u8)
            check(random.run(kAvx512VnniKernels.gemm) == found, "sums of bytes differ from those of avx512_vnni");
        else check_error(random, found);
        chosen += gains_by_tiles(random.task);
    }
    std::printf("%d random tasks in tiles agree; for %d of them tiles are chosen\n", count, chosen);
}
