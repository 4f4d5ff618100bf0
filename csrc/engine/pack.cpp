#include "engine/pack.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>

namespace ghostnets {

namespace {

// Stores a value; bytes of weights are signed.
void put(std::byte* to, Type type, std::size_t index, float value) {
    if (type == Type::f32) {
        std::memcpy(to + 4 * index, &value, 4);
    } else if (type == Type::bf16) {
        std::uint32_t bits;
        std::memcpy(&bits, &value, 4);
        const auto narrow = std::uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // weights are finite
        std::memcpy(to + 2 * index, &narrow, 2);
    } else {
        to[index] = std::byte(std::int8_t(value));
    }
}

// Ranges below this are zero: their quotients would not be finite.
constexpr float kSmallest = 1e-30f;

// A slope below this is none: values before it would not be finite.
constexpr float kSmallSlope = 1e-3f;

// The quantisation step of weights up to `largest`, which are rounded to integers from -127 to 127.
float step_of(float largest) { return largest > kSmallest ? largest / 127 : 1; }

// The range of the input of an activation whose output has the range from `low` to `high`.
std::pair<float, float> range_before(const Op& op, float low, float high) {
    switch (op.activation) {
        case Activation::sigmoid: return {-8.0f, 8.0f};
        case Activation::hard_sigmoid: return {-3.0f, 3.0f};
        case Activation::clamp: return {0.0f, 1.0f};
        case Activation::hard_swish: return {-3.0f, std::max(high, 3.0f)};
        case Activation::silu: return {-8.0f, std::max(high, 1.0f)};
        case Activation::leaky_relu: return {op.slope > kSmallSlope ? low / op.slope : 0.0f, high};
        default: return {low, high};
    }
}

float activated(const Op& op, float x) {
    switch (op.activation) {
        case Activation::sigmoid: return 1 / (1 + std::exp(-x));
        case Activation::hard_sigmoid: return std::clamp((x + 3) / 6, 0.0f, 1.0f);
        case Activation::clamp: return std::clamp(x, 0.0f, 1.0f);
        case Activation::relu6: return std::clamp(x, 0.0f, 6.0f);
        case Activation::leaky_relu: return x < 0 ? x * op.slope : x;
        case Activation::hard_swish: return x * std::clamp((x + 3) / 6, 0.0f, 1.0f);
        case Activation::silu: return x / (1 + std::exp(-x));
        default: return x;
    }
}

Buffer floats(int count) { return Buffer(std::size_t(count) * sizeof(float)); }

}  // namespace

Quantization quantization_of(const Tensor& range) {
    const int channels = range.size(1);
    Quantization made;
    for (int c = 0; c < channels; ++c) {
        const float low = std::min(range.data[c], 0.0f), high = std::max(range.data[channels + c], 0.0f);
        const float scale = high - low > kSmallest ? (high - low) / 255 : 1;
        made.scales.push_back(scale);
        made.zeros.push_back(std::round(-low / scale));
    }
    return made;
}

Map before_activation(Op& op, const Map& out) {
    if (out.layout.type != Type::u8 || !op.has_late_activation()) return out;
    const int channels = out.layout.segments * out.layout.channels;
    const float zero = out.zero(0), scale = out.scale(0);
    const auto [low, high] = range_before(op, -zero * scale, (255 - zero) * scale);
    const float step = high - low > kSmallest ? (high - low) / 255 : 1;
    Map before = out;
    before.quantization = {std::vector<float>(channels, step), std::vector<float>(channels, std::round(-low / step))};
    op.table = Buffer(256);
    bool is_identity = true;
    for (int q = 0; q < 256; ++q) {
        const float value = activated(op, step * (float(q) - before.zero(0)));
        op.table.data()[q] = std::byte(std::lround(std::clamp(value / scale + zero, 0.0f, 255.0f)));
        is_identity &= op.table.data()[q] == std::byte(q);
    }
    if (is_identity) op.activation = Activation::none;  // ReLU6 of a range from 0 to at most 6: bytes saturate there
    return before;
}

void pack_gemm(Op& op, const Map& in, const Map& out, int segments, int length, const float* bias, int width,
               const std::function<float(int, int)>& at) {
    const Type type = in.layout.type;
    const int group = group_of(type), groups = segments * (round_up(length, group) / group);
    const int rows = out.layout.segments * out.layout.channels;
    op.gemm.depth = groups;
    op.gemm.pairs_terms = type == Type::f32 && width == 2 * kChannelBlock;
    const int last_half =
        op.gemm.pairs_terms && out.layout.stride() % width ? out.layout.stride() / width * width : INT_MAX;
    op.gemm.vectors = (out.layout.stride() + width - 1) / width;
    op.packed.weights = Buffer(std::size_t(op.gemm.vectors) * groups * width * 4);
    op.packed.bias = floats(op.gemm.vectors * width);
    op.packed.scale = floats(op.gemm.vectors * width);
    std::vector<float> terms(segments * length);
    const int first = op.gemm.first_segment * in.layout.channels;
    const int inputs = type == Type::u8 ? op.gemm.segments * in.layout.channels : 1;  // terms repeat them for each tap
    for (int row = 0; row < rows; ++row) {
        const int column = position(out.layout, row);
        const float out_scale = out.scale(row);
        float largest = 0, correction = 0, step = 1;
        for (int k = 0; k < segments * length; ++k) {
            terms[k] = at(row, k) * in.scale(first + k % inputs) / (type == Type::u8 ? 1 : out_scale);
            largest = std::max(largest, std::abs(terms[k]));
        }
        if (type == Type::u8) {
            step = step_of(largest);
            for (int k = 0; k < segments * length; ++k) {
                terms[k] = std::round(terms[k] / step);
                correction += terms[k] * in.zero(first + k % inputs);
            }
        }
        op.packed.scale.floats()[column] = step / out_scale;
        op.packed.bias.floats()[column] = (bias[row] - step * correction) / out_scale + out.zero(row);
        const std::size_t vector = std::size_t(column / width) * groups;
        for (int k = 0; k < segments * length; ++k) {
            if (column >= last_half) {
                const std::size_t pair = vector + k / length * ((length + 1) / 2) + k % length / 2;
                op.packed.weights.floats()[pair * width + column % width * 2 + k % length % 2] = terms[k];
                continue;
            }
            const std::size_t place = vector + k / length * (groups / segments) + k % length / group;
            put(op.packed.weights.data(), type, (place * width + column % width) * group + k % length % group,
                terms[k]);
        }
    }
}

namespace {

// Constants of one channel of a depthwise convolution.
struct ChannelScales {
    float out_scale, out_zero;
    float step = 1;  // quantisation step of the weights
};

// Writes the constants of channel `c` after its quantisation step is known.
void put_depthwise_constants(Op& op, const DepthwiseSource& source, int c, ChannelScales scales) {
    const int channels = source.out.layout.channels, taps = op.window.kernel_h * op.window.kernel_w;
    const int in_channel = source.in_segment * channels + c, out_channel = source.out_segment * channels + c;
    const float* from = source.weight + std::size_t(c) * taps;
    float correction = 0;
    if (source.in.layout.type == Type::u8) {
        for (int k = 0; k < taps; ++k) correction += std::round(from[k] / scales.step) * source.in.zero(in_channel);
        op.pad.data()[c] = std::byte(source.in.zero(in_channel));
    }
    const float scale = scales.step * source.in.scale(in_channel), out_scale = scales.out_scale;
    op.packed.scale.floats()[c] = scale / out_scale;
    op.packed.bias.floats()[c] =
        (source.bias[c] - scale * correction) / out_scale + (source.other ? 0 : scales.out_zero);
    if (!source.other) return;
    const float other_scale = source.other->scale(out_channel), other_zero = source.other->zero(out_channel);
    const bool adds = op.binary == BinaryOp::add;  // the zero point of a factor is 0
    op.packed.other_scale.floats()[c] = adds ? other_scale / out_scale : other_scale;
    op.packed.shift.floats()[c] = adds ? scales.out_zero - other_zero * other_scale / out_scale : scales.out_zero;
}

// Writes the weights of channel `c`, stacked by groups: see `stacks_of`.
void put_stacked_weights(Op& op, const float* from, Type type, int c, int width, float step) {
    const int kernel_h = op.window.kernel_h, kernel_w = op.window.kernel_w, rows = op.row_step();
    const int group = group_of(type), stacks = stacks_of(type, kernel_h, rows);
    const int block = c / width * width, lanes = std::min(width, op.channels - block);
    for (int k = 0; k < kernel_h * kernel_w; ++k)
        for (int row = 0; row < rows; ++row) {
            const int y = k / kernel_w + row, x = k % kernel_w;
            const std::size_t place = std::size_t(block) * stacks * kernel_w * rows +
                                      ((y / group * kernel_w + x) * rows + row) * lanes + c - block;
            put(op.packed.weights.data(), type, place * group + y % group,
                type == Type::u8 ? std::round(from[k] / step) : from[k]);
        }
}

}  // namespace

void pack_depthwise(Op& op, const DepthwiseSource& source, const Kernels& kernels) {
    const Type type = source.in.layout.type;
    const bool by_groups = type == Type::u8 || (type == Type::bf16 && kernels.groups_bf16);
    const int kernel_w = op.window.kernel_w, taps = op.window.kernel_h * kernel_w;
    const int channels = source.out.layout.channels, rows = op.row_step();
    const Map target = before_activation(op, source.out);
    op.packed.weights =
        floats((by_groups ? stacks_of(type, op.window.kernel_h, rows) * kernel_w * rows : taps) * op.channels);
    for (Buffer* constants : {&op.packed.bias, &op.packed.scale, &op.packed.other_scale, &op.packed.shift})
        *constants = floats(op.channels);
    op.pad = Buffer(op.channels * size_of(type));
    for (int c = 0; c < channels; ++c) {
        const int out_channel = source.out_segment * channels + c;
        ChannelScales scales{target.scale(out_channel), target.zero(out_channel)};
        const float *from = source.weight + std::size_t(c) * taps, *end = from + taps;
        const auto is_smaller = [](float a, float b) { return std::abs(a) < std::abs(b); };
        if (type == Type::u8) scales.step = step_of(std::abs(*std::max_element(from, end, is_smaller)));
        put_depthwise_constants(op, source, c, scales);
        if (by_groups) {
            put_stacked_weights(op, from, type, c, kernels.width, scales.step);
        } else {
            for (int k = 0; k < taps; ++k) op.packed.weights.floats()[std::size_t(k) * op.channels + c] = from[k];
        }
    }
}

void pack_constants(Op& op, const Map& in, const Map& out, const Map* other) {
    if (in.layout.type != Type::u8 && out.layout.type != Type::u8) return;
    op.packed.scale = floats(op.channels);
    op.packed.other_scale = floats(op.channels);
    op.packed.shift = floats(op.channels);
    op.packed.other_shift = floats(op.channels);
    const Layout& layout = out.layout;
    for (int i = 0; i < layout.segments * layout.channels; ++i) {
        const int c = position(layout, i) - op.out_offset;
        if (c < 0 || c >= op.channels) continue;
        const int j =
            i % (in.layout.segments * in.layout.channels);  // a half that goes into the first half, or the same
        const bool multiplies = op.binary == BinaryOp::multiply;
        const float out_scale = out.scale(i), other_scale = other ? other->scale(i) : 1;
        const float scale = in.scale(j) / out_scale * (multiplies ? other_scale : 1);
        op.packed.scale.floats()[c] = scale;
        if (other) op.packed.other_shift.floats()[c] = -other->zero(i);
        op.packed.other_scale.floats()[c] = multiplies ? out.zero(i) : other_scale / out_scale;
        op.packed.shift.floats()[c] = -in.zero(j) * scale;
        if (!multiplies) op.packed.shift.floats()[c] += out.zero(i);
        if (op.binary == BinaryOp::add) op.packed.shift.floats()[c] -= other->zero(i) * other_scale / out_scale;
    }
}

}  // namespace ghostnets
