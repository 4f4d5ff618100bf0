#include "engine/executor.hpp"

#include <algorithm>
#include <cstring>

namespace ghostnets {

// Address of a row of a map, or of the value `offset` values after its first.
std::byte* Executor::pixels(int map, int image, int row, std::ptrdiff_t offset) const {
    const Allocation& to = at(map);
    const std::ptrdiff_t size = size_of(type(map));
    switch (to.kind) {
        case MemoryKind::ring: return workspace_.own + to.offset + ((row % to.rows) * to.pitch + offset) * size;
        case MemoryKind::replicated: return workspace_.own + to.offset + (image * to.pitch + offset) * size;
        case MemoryKind::pooled: return workspace_.pooled + (image * to.pitch + offset) * size;
        case MemoryKind::caller: return nullptr;  // planar, written by run_output
        default:
            return workspace_.shared + to.offset +
                   ((std::ptrdiff_t(image) * to.height + row) * to.pitch + offset) * size;
    }
}

std::vector<float> Executor::values(int map) const {
    const Allocation& from = at(map);
    const Layout& layout = net_.layouts[map];
    std::vector<float> found;
    if (layout.type != Type::f32 || (from.kind != MemoryKind::shared && from.kind != MemoryKind::pooled)) return found;
    const auto* first = reinterpret_cast<const float*>(pixels(map, 0, 0));
    for (std::ptrdiff_t p = 0; p < std::ptrdiff_t(schedule_.images) * from.height * from.width; ++p)
        for (int c = 0; c < layout.segments * layout.channels; ++c)
            found.push_back(first[p * from.stride + position(layout, c)]);
    return found;
}

void Executor::run(const WorkItem& item) const {
    const Op& op = net_.ops[item.op];
    switch (item.kind) {
        case WorkKind::rows: return run_item_rows(op, item);
        case WorkKind::whole_rows: return run_whole_rows(op, item);
        case WorkKind::pixels: return run_gemm_block(op, item);
    }
}

void Executor::run_item_rows(const Op& op, const WorkItem& item) const {
    switch (op.kind) {
        case OpKind::input: return run_input(op, item.image, item.first_row);
        case OpKind::gemm: return run_gemm_row(op, item.image, item.first_row);
        case OpKind::sum: return sum_row(op, item.image, item.first_row, 0, op.channels);
        default: return run_rows(op, {item.image, item.first_row, item.rows, 0, op.channels});
    }
}

void Executor::run_whole_rows(const Op& op, const WorkItem& item) const {
    if (op.kind == OpKind::gemm) return run_gemm_rows(op, item);
    if (op.kind == OpKind::sum) return run_sums(op, item);
    if (op.kind == OpKind::mean) return run_mean(op);
    const int height = at(op.out).height, end = item.first_row + item.rows;
    for (int row = item.first_row, rows; row < end; row += rows) {
        rows = std::min({op.row_step(), end - row, height - row % height});
        run_rows(op, {row / height, row % height, rows, item.first, item.count});
    }
}

void Executor::run_rows(const Op& op, const RowTask& rows) const {
    switch (op.kind) {
        case OpKind::depthwise: return run_depthwise(op, rows);
        case OpKind::binary:
        case OpKind::scale: return run_binary(op, rows);
        case OpKind::convert: return run_convert(op, rows);
        case OpKind::average_pool: return run_average_pool(op, rows);
        case OpKind::window_average:
        case OpKind::adaptive_average: return run_window_average(op, rows);
        case OpKind::bilinear: return run_bilinear(op, rows);
        case OpKind::arrange: return run_arrange(op, rows);
        case OpKind::max_pool: return run_max_pool(op, rows);
        case OpKind::pad: return run_pad(op, rows);
        case OpKind::output: return run_output(op, rows.image, rows.row);
        case OpKind::upsample_nearest: return run_upsample(op, rows);
        default: return;
    }
}

// Applies an activation that the kernels do not apply as they store.
void Executor::run_late_activation(const Op& op, std::byte* values, int pixels, int channels) const {
    if (op.has_late_activation())
        net_.kernels.activate(
            {type(op.out), values, at(op.out).stride, pixels, channels, op.activation, op.slope, net_.table(op)});
}

// A row of the image as floats, zero-padded at both ends: bytes normalised, float planes interleaved.
void Executor::run_input(const Op& op, int image, int row) const {
    const Allocation& to = at(op.out);
    const int channels = net_.in_channels, pad = op.window.pad_w * channels;
    const std::size_t count = std::size_t(to.width) * channels, plane = std::size_t(to.height) * to.width;
    const std::size_t first = std::size_t(row) * to.width;  // pixel of its image
    auto* out = reinterpret_cast<float*>(pixels(op.out, image, row));
    std::memset(out, 0, pad * sizeof(float));
    if (images_.bytes)
        net_.kernels.normalize(static_cast<const std::uint8_t*>(images_.data) + (image * plane + first) * channels,
                               schedule_.scale_row.data(), schedule_.shift_row.data(), int(count), out + pad);
    else
        net_.kernels.interleave(static_cast<const float*>(images_.data) + image * plane * channels + first, plane,
                                channels, to.width, out + pad);
    std::memset(out + pad + count, 0, (to.pitch - pad - count) * sizeof(float));
}

// Pointers to `count` input rows, `step` apart, that the first output row is computed from; null outside of the map.
void Executor::point_at_rows(const Op& op, const RowTask& rows, int count, int step) const {
    const int first = rows.row * op.window.stride - op.window.pad_h, height = at(op.in).height;
    for (int i = 0; i < count; ++i) {
        const int y = first + i * step;
        workspace_.pointers[i] =
            y >= 0 && y < height ? pixels(op.in, rows.image, y, op.in_offset + rows.first) : nullptr;
    }
}

void Executor::run_depthwise(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const Type type = this->type(op.out);
    const Window& window = op.window;
    const int first = rows.first;
    point_at_rows(op, rows, window.kernel_h + rows.rows - 1, window.dilation_h);
    DepthwiseTask task{};
    task.type = type;
    task.rows = workspace_.pointers;
    task.out_rows = rows.rows;
    task.in_stride = in.stride;
    task.in_width = in.width;
    for (int i = 0; i < rows.rows; ++i) task.out[i] = pixels(op.out, rows.image, rows.row + i, op.out_offset + first);
    task.out_stride = out.stride;
    task.out_width = out.width;
    task.kernel_h = window.kernel_h;
    task.kernel_w = window.kernel_w;
    task.stride = window.stride;
    task.dilation_h = window.dilation_h;
    task.dilation_w = window.dilation_w;
    task.pad_w = window.pad_w;
    const bool by_groups = type == Type::u8 || (type == Type::bf16 && net_.kernels.groups_bf16);
    const int step = op.row_step();
    const int weights = by_groups ? stacks_of(type, window.kernel_h, step) * window.kernel_w * step : 1;  // a channel
    task.weights = op.packed.weights.floats() + std::ptrdiff_t(first) * weights;
    task.weight_stride = op.channels;
    task.bias = op.packed.bias.floats() + first;
    task.pad = op.pad.data() + first * size_of(type);
    task.scale = op.packed.scale.floats() + first;
    task.other_scale = op.packed.other_scale.floats() + first;
    task.shift = op.packed.shift.floats() + first;
    task.channels = rows.count;
    task.clamp_min = op.clamp_min();
    task.activation = op.stored_activation();
    task.slope = op.slope;
    task.binary = op.binary;
    if (op.binary != BinaryOp::none) {
        for (int i = 0; i < rows.rows; ++i)
            task.other[i] = pixels(op.other, rows.image, rows.row + i, op.other_offset + first);
        task.other_stride = at(op.other).stride;
    }
    net_.kernels.depthwise(task);
    for (int i = 0; i < rows.rows; ++i)
        run_late_activation(op, static_cast<std::byte*>(task.out[i]), out.width, rows.count);
}

void Executor::run_binary(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const bool is_gate = op.kind == OpKind::scale;  // one pixel for the whole map
    const int first = rows.first;
    std::byte* to = pixels(op.out, rows.image, rows.row, op.out_offset + first);
    net_.kernels.binary({type(op.out), type(op.other), pixels(op.in, rows.image, rows.row, op.in_offset + first),
                         in.stride, pixels(op.other, rows.image, is_gate ? 0 : rows.row, op.other_offset + first),
                         is_gate ? 0 : at(op.other).stride, to, out.stride, out.width, rows.count, op.binary,
                         op.clamp_min(), op.packed.scale.floats() + first, op.packed.other_scale.floats() + first,
                         op.packed.shift.floats() + first, op.packed.other_shift.floats() + first});
    run_late_activation(op, to, out.width, rows.count);
}

void Executor::run_convert(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const bool scales = op.packed.scale.data() != nullptr;
    net_.kernels.convert({type(op.in), type(op.out), pixels(op.in, rows.image, rows.row, op.in_offset + rows.first),
                          in.stride, pixels(op.out, rows.image, rows.row, op.out_offset + rows.first), out.stride,
                          out.width, rows.count, scales ? op.packed.scale.floats() + rows.first : nullptr,
                          scales ? op.packed.shift.floats() + rows.first : nullptr});
}

// The sums of a row of an image, over `count` channels from `first` on.
void Executor::sum_row(const Op& op, int image, int row, int first, int count) const {
    const Allocation &in = at(op.in), &to = at(op.out);
    const std::ptrdiff_t slot = std::ptrdiff_t(image) * schedule_.sum_slots[op.out] + row;
    float* sums = reinterpret_cast<float*>(workspace_.shared + to.offset) + slot * to.pitch + op.out_offset + first;
    net_.kernels.sum(
        {type(op.in), pixels(op.in, image, row, op.in_offset + first), in.stride, in.width, count, sums, false});
}

void Executor::run_sums(const Op& op, const WorkItem& item) const {
    for (int image = 0; image < schedule_.images; ++image)
        for (int row = 0; row < at(op.in).height; ++row) sum_row(op, image, row, item.first, item.count);
}

void Executor::run_mean(const Op& op) const {
    const Allocation &map = at(op.other), &in = at(op.in);
    const int slots = schedule_.sum_slots[op.in];
    const float scale = 1.0f / (float(map.height) * float(map.width));
    const auto* all = reinterpret_cast<const float*>(workspace_.shared + in.offset);
    for (int image = 0; image < schedule_.images; ++image)
        net_.kernels.mean({type(op.out), all + std::ptrdiff_t(image) * slots * in.pitch, in.pitch, slots, op.channels,
                           scale, pixels(op.out, image, 0, op.out_offset), op.packed.scale.floats(),
                           op.packed.shift.floats()});
}

}  // namespace ghostnets
