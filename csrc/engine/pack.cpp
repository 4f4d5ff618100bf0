#include "engine/pack.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>

namespace ghostnets {

namespace {

// Writes a value as it is stored; bytes of weights are signed.
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

// The step in which weights of this size are rounded to whole numbers from -127 to 127.
float step_of(float largest) { return largest > 0 ? largest / 127 : 1; }

// What bytes before an activation that is bounded need to span, whatever the images.
Quantization before(Activation activation, int channels) {
    const float low = activation == Activation::sigmoid ? -8.0f : activation == Activation::hard_sigmoid ? -3.0f : 0.0f;
    const float high = activation == Activation::clamp ? 1.0f : -low;
    const float scale = (high - low) / 255;
    return {std::vector<float>(channels, scale), std::vector<float>(channels, std::round(-low / scale))};
}

float activated(Activation activation, float x) {
    if (activation == Activation::sigmoid) return 1 / (1 + std::exp(-x));
    return std::clamp(activation == Activation::hard_sigmoid ? (x + 3) / 6 : x, 0.0f, 1.0f);
}

Buffer floats(int count) { return Buffer(std::size_t(count) * sizeof(float)); }

}  // namespace

Quantization quantization_of(const Tensor& range) {
    const int channels = range.size(1);
    Quantization made;
    for (int c = 0; c < channels; ++c) {
        const float low = std::min(range.data[c], 0.0f), high = std::max(range.data[channels + c], 0.0f);
        const float scale = high > low ? (high - low) / 255 : 1;
        made.scales.push_back(scale);
        made.zeros.push_back(std::round(-low / scale));
    }
    return made;
}

void pack_gemm(Op& op, const Map& in, const Map& out, int segments, int length, const float* bias, int width,
               const std::function<float(int, int)>& at) {
    const Type type = in.layout.type;
    const int group = group_of(type), groups = segments * (round_up(length, group) / group);
    const int rows = out.layout.segments * out.layout.channels;
    op.depth = groups;
    op.pairs_terms = type == Type::f32 && width == 2 * kChannelBlock && !op.is_stem;  // its terms have no padding
    const int last_half = op.pairs_terms && out.layout.stride() % width ? out.layout.stride() / width * width : INT_MAX;
    op.vectors = (out.layout.stride() + width - 1) / width;
    op.weights = Buffer(std::size_t(op.vectors) * groups * width * 4);
    op.bias = floats(op.vectors * width);
    op.scale = floats(op.vectors * width);
    std::vector<float> terms(segments * length);
    for (int row = 0; row < rows; ++row) {
        const int column = position(out.layout, row);
        const float out_scale = out.scale(row);
        float largest = 0, correction = 0, step = 1;
        for (int k = 0; k < segments * length; ++k) {
            terms[k] = at(row, k) * in.scale(k) / (type == Type::u8 ? 1 : out_scale);
            largest = std::max(largest, std::abs(terms[k]));
        }
        if (type == Type::u8) {
            step = step_of(largest);
            for (int k = 0; k < segments * length; ++k) {
                terms[k] = std::round(terms[k] / step);
                correction += terms[k] * in.zero(k);
            }
        }
        op.scale.floats()[column] = step / out_scale;
        op.bias.floats()[column] = (bias[row] - step * correction) / out_scale + out.zero(row);
        const std::size_t vector = std::size_t(column / width) * groups;
        for (int k = 0; k < segments * length; ++k) {
            if (column >= last_half) {
                const std::size_t pair = vector + k / length * ((length + 1) / 2) + k % length / 2;
                op.weights.floats()[pair * width + column % width * 2 + k % length % 2] = terms[k];
                continue;
            }
            const std::size_t place = vector + k / length * (groups / segments) + k % length / group;
            put(op.weights.data(), type, (place * width + column % width) * group + k % length % group, terms[k]);
        }
    }
}

Buffer pack_floats(const Map& out, int length, int width, const std::function<float(int, int)>& at) {
    Op op{.kind = OpKind::gemm};
    op.is_stem = true;
    const std::vector<float> bias(out.layout.segments * out.layout.channels);
    pack_gemm(op, {}, out, 1, length, bias.data(), width, at);
    return std::move(op.weights);
}

void pack_depthwise(Op& op, const Map& in, const Map& out, const Map* other, int in_segment, int out_segment,
                    const float* weight, const float* bias, const Kernels& kernels) {
    const Type type = in.layout.type;
    const bool by_groups = type == Type::u8 || (type == Type::bf16 && kernels.groups_bf16);
    const int taps = op.kernel_h * op.kernel_w, channels = out.layout.channels, width = kernels.width;
    const int step = op.row_step(), group = group_of(type), stacks = stacks_of(type, op.kernel_h, step);
    const bool is_late = type == Type::u8 && op.has_late_activation();
    const Quantization late = is_late ? before(op.activation, channels) : Quantization{};
    op.weights = floats((by_groups ? stacks * op.kernel_w * step : taps) * op.channels);
    op.bias = floats(op.channels);
    op.scale = floats(op.channels);
    op.other_scale = floats(op.channels);
    op.shift = floats(op.channels);
    op.pad = Buffer(op.channels * size_of(type));
    for (int c = 0; c < channels; ++c) {
        const int in_channel = in_segment * channels + c, out_channel = out_segment * channels + c;
        const float out_scale = is_late ? late.scales[c] : out.scale(out_channel);
        const float out_zero = is_late ? late.zeros[c] : out.zero(out_channel);
        const float *from = weight + std::size_t(c) * taps, *end = from + taps;
        float quantum = 1, correction = 0;
        if (type == Type::u8) {
            quantum = step_of(
                std::abs(*std::max_element(from, end, [](float a, float b) { return std::abs(a) < std::abs(b); })));
            for (int k = 0; k < taps; ++k) correction += std::round(from[k] / quantum) * in.zero(in_channel);
            op.pad.data()[c] = std::byte(in.zero(in_channel));
        }
        const float scale = quantum * in.scale(in_channel);
        op.scale.floats()[c] = scale / out_scale;
        op.bias.floats()[c] = (bias[c] - scale * correction) / out_scale + (other ? 0 : out_zero);
        if (other) {
            const float other_scale = other->scale(out_channel), other_zero = other->zero(out_channel);
            const bool adds = op.binary == BinaryOp::add;  // the factor's zero is 0
            op.other_scale.floats()[c] = adds ? other_scale / out_scale : other_scale;
            op.shift.floats()[c] = adds ? out_zero - other_zero * other_scale / out_scale : out_zero;
        }
        for (int k = 0; k < taps; ++k) {
            if (!by_groups) {
                op.weights.floats()[std::size_t(k) * op.channels + c] = from[k];
                continue;
            }
            const int block = c / width * width, lanes = std::min(width, op.channels - block);
            for (int row = 0; row < step; ++row) {
                const int y = k / op.kernel_w + row, x = k % op.kernel_w;
                const std::size_t place = std::size_t(block) * stacks * op.kernel_w * step +
                                          ((y / group * op.kernel_w + x) * step + row) * lanes + c - block;
                put(op.weights.data(), type, place * group + y % group,
                    type == Type::u8 ? std::round(from[k] / quantum) : from[k]);
            }
        }
    }
    if (!is_late) return;
    op.table = Buffer(256);
    for (int q = 0; q < 256; ++q) {
        const float value = activated(op.activation, late.scales[0] * (float(q) - late.zeros[0]));
        op.table.data()[q] = std::byte(std::lround(value / out.scale(0) + out.zero(0)));
    }
}

void pack_constants(Op& op, const Map& in, const Map& out, const Map* other) {
    if (in.layout.type != Type::u8 && out.layout.type != Type::u8) return;
    op.scale = floats(op.channels);
    op.other_scale = floats(op.channels);
    op.shift = floats(op.channels);
    const Layout& layout = out.layout;
    for (int i = 0; i < layout.segments * layout.channels; ++i) {
        const int c = position(layout, i) - op.out_offset;
        if (c < 0 || c >= op.channels) continue;
        const int j =
            i % (in.layout.segments * in.layout.channels);  // a half that goes into the first half, or the same
        const bool multiplies = op.binary == BinaryOp::multiply;
        const float out_scale = out.scale(i), other_scale = other ? other->scale(i) : 1;
        const float scale = in.scale(j) / out_scale * (multiplies ? other_scale : 1);
        op.scale.floats()[c] = scale;
        op.other_scale.floats()[c] = multiplies ? out.zero(i) : other_scale / out_scale;
        op.shift.floats()[c] = -in.zero(j) * scale;
        if (!multiplies) op.shift.floats()[c] += out.zero(i);
        if (op.binary == BinaryOp::add) op.shift.floats()[c] -= other->zero(i) * other_scale / out_scale;
    }
}

}  // namespace ghostnets
