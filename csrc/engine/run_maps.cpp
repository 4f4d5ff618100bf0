// Operations that pool, pad, resize, rearrange and return maps.
#include <algorithm>
#include <cstring>

#include "engine/executor.hpp"

namespace ghostnets {

// A row of a map as the caller receives it: float32, one plane a channel.
void Executor::run_output(const Op& op, int image, int row) const {
    if (!workspace_.outputs) return;  // calibration reads the maps alone
    const Allocation& in = at(op.in);
    const std::vector<int>& positions = net_.outputs[op.output].positions;
    const std::size_t plane = std::size_t(in.height) * in.width;
    float* out = workspace_.outputs[op.output] + (workspace_.first_image + image) * positions.size() * plane +
                 std::size_t(row) * in.width;
    const std::byte* pixel = pixels(op.in, image, row);
    if (type(op.in) == Type::f32) {
        for (std::size_t first = 0, end; first < positions.size(); first = end) {  // channels that lie side by side
            for (end = first + 1; end < positions.size() && positions[end] == positions[end - 1] + 1;) ++end;
            net_.kernels.copy_planes({reinterpret_cast<const float*>(pixel) + positions[first], in.stride, in.width,
                                      int(end - first), out + first * plane, std::ptrdiff_t(plane)});
        }
        return;
    }
    const float *scale = op.packed.scale.floats(), *shift = op.packed.shift.floats();  // for bytes
    const bool is_bytes = type(op.in) == Type::u8;
    for (const int at : positions) {
        for (int x = 0; x < in.width; ++x) {
            const std::ptrdiff_t index = x * in.stride + at;
            out[x] = is_bytes ? float(std::to_integer<int>(pixel[index])) * scale[at] + shift[at]
                              : get(pixel, Type::bf16, index);
        }
        out += plane;
    }
}

void Executor::run_average_pool(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const int window = std::min(2, in.height);
    for (int y = 0; y < window; ++y)
        workspace_.pointers[y] = pixels(op.in, rows.image, 2 * rows.row + y, op.in_offset + rows.first);
    net_.kernels.average_pool({type(op.out), workspace_.pointers, window, std::min(2, in.width), in.stride,
                               pixels(op.out, rows.image, rows.row, op.out_offset + rows.first), out.width,
                               rows.count});
}

void Executor::run_max_pool(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const Window& window = op.window;
    point_at_rows(op, rows, window.kernel_h, window.dilation_h);
    net_.kernels.max_pool({type(op.out), workspace_.pointers, window.kernel_h, window.kernel_w, window.stride,
                           window.dilation_w, window.pad_w, in.width, in.stride,
                           pixels(op.out, rows.image, rows.row, op.out_offset + rows.first), out.width, rows.count});
}

// A row padded with zeros at both ends, or a row of zeros above or below the map. In bytes, `op.pad` represents 0.
void Executor::run_pad(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const std::size_t size = size_of(type(op.out)), pixel = in.stride * size, bytes = rows.count * size;
    const int zero = op.pad.data() ? std::to_integer<int>(op.pad.data()[0]) : 0;
    const int pad = op.window.pad_w, y = rows.row - op.window.pad_h;
    std::byte* to = pixels(op.out, rows.image, rows.row, op.out_offset + rows.first);
    const auto fill = [&](int from, int end) {
        if (bytes == pixel) std::memset(to + from * pixel, zero, (end - from) * pixel);
        else
            for (int x = from; x < end; ++x) std::memset(to + x * pixel, zero, bytes);
    };
    if (y < 0 || y >= in.height) return fill(0, out.width);
    const std::byte* from = pixels(op.in, rows.image, y, op.in_offset + rows.first);
    fill(0, pad);
    if (bytes == pixel) std::memcpy(to + pad * pixel, from, in.width * pixel);
    else
        for (int x = 0; x < in.width; ++x) std::memcpy(to + (x + pad) * pixel, from + x * pixel, bytes);
    fill(pad + in.width, out.width);
}

void Executor::run_upsample(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const int source = nearest(rows.row, in.height, out.height);
    net_.kernels.upsample_nearest({type(op.out), pixels(op.in, rows.image, source, op.in_offset + rows.first),
                                   in.stride, schedule_.source_columns[op.out].data(),
                                   pixels(op.out, rows.image, rows.row, op.out_offset + rows.first), out.stride,
                                   out.width, rows.count});
}

void Executor::run_window_average(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const Window& window = op.window;
    int count = window.kernel_h, divisor = op.counts_padding ? window.kernel_h * window.kernel_w : 0;
    if (op.kind == OpKind::adaptive_average) {
        const auto [first, end] = adaptive_window(rows.row, in.height, out.height);
        count = end - first;
        for (int y = 0; y < count; ++y)
            workspace_.pointers[y] = pixels(op.in, rows.image, first + y, op.in_offset + rows.first);
    } else {
        point_at_rows(op, rows, count, 1);
    }
    net_.kernels.window_average({type(op.out), workspace_.pointers, count, schedule_.source_columns[op.out].data(),
                                 in.stride, pixels(op.out, rows.image, rows.row, op.out_offset + rows.first), out.width,
                                 rows.count, divisor, op.average.zero, op.average.scale, op.average.shift});
}

void Executor::run_bilinear(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    const Between source = between(rows.row, in.height, out.height, op.size.aligns_corners);
    const auto row = [&](int y) { return pixels(op.in, rows.image, y, op.in_offset + rows.first); };
    net_.kernels.bilinear({type(op.out),
                           {row(source.first), row(source.second)},
                           source.weight,
                           schedule_.source_columns[op.out].data(),
                           schedule_.column_weights[op.out].data(),
                           in.stride,
                           pixels(op.out, rows.image, rows.row, op.out_offset + rows.first),
                           out.width,
                           rows.count});
}

void Executor::run_arrange(const Op& op, const RowTask& rows) const {
    const Allocation &in = at(op.in), &out = at(op.out);
    std::byte* to = pixels(op.out, rows.image, rows.row);
    net_.kernels.arrange({type(op.out), pixels(op.in, rows.image, rows.row), in.stride, to, out.stride, out.width,
                          op.arrange.moves.data(), int(op.arrange.moves.size())});
    const std::size_t size = size_of(type(op.out));
    for (const Run& run : op.arrange.zeros)
        for (int x = 0; x < out.width; ++x)
            std::memset(to + (x * out.stride + run.first) * size, op.arrange.zero, run.count * size);
}

}  // namespace ghostnets
