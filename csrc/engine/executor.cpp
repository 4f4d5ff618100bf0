// Running the items of a program: from maps, rows and channels to pointers, and the call of a kernel.
#include <algorithm>
#include <cstring>

#include "engine/planner.hpp"

namespace ghostnets {

// Where a row of a map begins, or the value `offset` values after that.
std::byte* Program::pixels(const Memory& memory, int map, int image, int row, std::ptrdiff_t offset) const {
    const Place& place = places_[map];
    const std::ptrdiff_t size = size_of(type(map));
    switch (place.kind) {
        case Place::ring: return memory.own + place.offset + ((row % place.rows) * place.pitch + offset) * size;
        case Place::replicated: return memory.own + place.offset + (image * place.pitch + offset) * size;
        case Place::pooled: return memory.pooled + (image * place.pitch + offset) * size;
        case Place::callers: return nullptr;  // not a map as the others are: run_output
        default:
            return memory.shared + place.offset +
                   ((std::ptrdiff_t(image) * place.height + row) * place.pitch + offset) * size;
    }
}

std::vector<float> Program::values(const Memory& memory, int map) const {
    const Place& place = places_[map];
    const Layout& layout = net_.layouts[map];
    std::vector<float> found;
    if (layout.type != Type::f32 || (place.kind != Place::shared && place.kind != Place::pooled)) return found;
    const auto* first = reinterpret_cast<const float*>(pixels(memory, map, 0, 0));
    for (std::ptrdiff_t p = 0; p < std::ptrdiff_t(images_) * place.height * place.width; ++p)
        for (int c = 0; c < layout.segments * layout.channels; ++c)
            found.push_back(first[p * place.stride + position(layout, c)]);
    return found;
}

void Program::run(const Memory& memory, const Images& images, const Item& item) const {
    const Op& op = net_.ops[item.op];
    if (op.kind == OpKind::sum) return run_sum(memory, op, item);
    if (op.kind == OpKind::mean) return run_mean(memory, op);
    if (item.by_row) {
        if (op.kind == OpKind::input) return run_input(memory, images, op, item.image, item.first_row);
        if (op.kind == OpKind::gemm) return run_gemm_row(memory, images, op, item.image, item.first_row);
        return run_rows(memory, op, item.image, item.first_row, item.rows, 0, op.channels);
    }
    if (op.kind == OpKind::gemm) {
        return op.is_spatial() ? run_gemm_rows(memory, op, item) : run_gemm_block(memory, op, item);
    }
    const int height = places_[op.out].height, end = item.first_row + item.rows;
    for (int row = item.first_row, rows; row < end; row += rows) {
        rows = std::min({op.row_step(), end - row, height - row % height});
        run_rows(memory, op, row / height, row % height, rows, item.first, item.count);
    }
}

// A row of the image as floats with zeros at both ends: bytes normalised and interleaved, planes of floats as they are.
void Program::run_input(const Memory& memory, const Images& images, const Op& op, int image, int row) const {
    const Place& place = places_[op.out];
    const int channels = net_.in_channels, pad = op.pad_w();
    auto* out = reinterpret_cast<float*>(pixels(memory, op.out, image, row));
    if (images.bytes) {
        const int count = place.width * channels;
        const auto* in = static_cast<const std::uint8_t*>(images.data) +
                         (std::size_t(image) * place.height + row) * std::size_t(count);
        std::memset(out, 0, pad * channels * sizeof(float));
        net_.kernels.normalize(in, scale_row_.data(), shift_row_.data(), count, out + pad * channels);
        std::memset(out + pad * channels + count, 0, pad * channels * sizeof(float));
        return;
    }
    for (int c = 0; c < channels; ++c) {
        const auto* in = static_cast<const float*>(images.data) +
                         ((std::size_t(image) * channels + c) * place.height + row) * std::size_t(place.width);
        float* plane = out + std::ptrdiff_t(c) * (place.width + 2 * pad);
        std::memset(plane, 0, pad * sizeof(float));
        std::memcpy(plane + pad, in, place.width * sizeof(float));
        std::memset(plane + pad + place.width, 0, pad * sizeof(float));
    }
}

void Program::run_gemm_row(const Memory& memory, const Images& images, const Op& op, int image, int row) const {
    const Place &in = places_[op.in], &out = places_[op.out];
    GemmTask task = net_.gemm_task(op, 0, op.vectors);
    task.segments = memory.pointers;
    if (op.is_stem) {
        const int planes = images.bytes ? 1 : net_.in_channels;
        task.segment_count = op.kernel_h * planes;
        task.segment_groups = op.depth / task.segment_count;
        task.pixel_stride = images.bytes ? op.stride * net_.in_channels : op.stride;
        if (!images.bytes) task.weights = op.planar_weights.data();
        for (int dy = 0; dy < op.kernel_h; ++dy) {
            const int y = row * op.stride - op.pad_h() + dy;
            const bool exists = y >= 0 && y < in.height;
            const std::byte* pixel = exists ? pixels(memory, op.in, image, y) : memory.zeros;
            for (int c = 0; c < planes; ++c)
                memory.pointers[dy * planes + c] = pixel + c * (in.pitch / planes) * sizeof(float);
        }
    } else {
        point_at(memory, op, image, row);
    }
    task.out = pixels(memory, op.out, image, row, op.out_offset);
    task.pixels = out.width;
    net_.kernels.gemm(task);
}

// Pointers to what the first pixel of an output row is computed from: for each place of the kernel, for each segment.
void Program::point_at(const Memory& memory, const Op& op, int image, int row) const {
    const Place& in = places_[op.in];
    const int padded = net_.layouts[op.in].padded();
    const void** pointer = memory.pointers;
    for (int dy = 0; dy < op.kernel_h; ++dy) {
        const int y = row * op.stride - op.pad_h() + dy * op.dilation_h;
        const bool exists = y >= 0 && y < in.height;
        for (int dx = 0; dx < op.kernel_w; ++dx)
            for (int s = 0; s < op.segments; ++s)
                *pointer++ = exists ? pixels(memory, op.in, image, y,
                                             dx * op.dilation_w * in.stride + (op.first_segment + s) * padded)
                                    : memory.zeros;
    }
}

// Rows of a convolution from other places than the pixel's own, a few vectors of outputs at a time: their weights then
// serve all rows from the second level cache.
void Program::run_gemm_rows(const Memory& memory, const Op& op, const Item& item) const {
    const Place& out = places_[op.out];
    const int end = item.first + item.count;
    for (int first = item.first, count; first < end; first += count) {
        count = end - first == 3 ? 3 : std::min(2, end - first);
        GemmTask task = net_.gemm_task(op, first, count);
        task.segments = memory.pointers;
        task.pixels = out.width;
        for (int row = item.first_row; row < item.first_row + item.rows; ++row) {
            const int image = row / out.height, y = row % out.height;
            point_at(memory, op, image, y);
            task.out = pixels(memory, op.out, image, y, op.out_offset + first * net_.kernels.width);
            net_.kernels.gemm(task);
        }
    }
}

// A row of a map as the caller gets it: float32, one plane a channel.
void Program::run_output(const Memory& memory, const Op& op, int image, int row) const {
    const Place& in = places_[op.in];
    const std::vector<int>& positions = net_.outputs[op.output].positions;
    const std::size_t plane = std::size_t(in.height) * in.width;
    float* out = memory.outputs[op.output] + (memory.first_image + image) * positions.size() * plane +
                 std::size_t(row) * in.width;
    const std::byte* pixel = pixels(memory, op.in, image, row);
    for (std::size_t c = 0; c < positions.size(); ++c)
        for (int x = 0; x < in.width; ++x) out[c * plane + x] = get(pixel, type(op.in), x * in.stride + positions[c]);
}

void Program::run_gemm_block(const Memory& memory, const Op& op, const Item& item) const {
    const Place &in = places_[op.in], &out = places_[op.out];
    const int first = item.first * net_.kernels.width, padded = net_.layouts[op.in].padded();
    for (int s = 0; s < op.segments; ++s)
        memory.pointers[s] =
            pixels(memory, op.in, 0, 0, item.first_pixel * in.stride + (op.first_segment + s) * padded);
    GemmTask task = net_.gemm_task(op, item.first, item.count);
    task.segments = memory.pointers;
    task.out = pixels(memory, op.out, 0, 0, item.first_pixel * out.stride + op.out_offset + first);
    task.pixels = item.pixels;
    net_.kernels.gemm(task);
    if (op.has_late_activation())
        net_.kernels.activate({task.out_type, task.out, task.out_stride, task.pixels,
                               std::min(task.vectors * net_.kernels.width, task.columns), op.activation, nullptr});
}

// A row of an operation that treats each channel alone, or as many as it takes at a time, over `count` channels from
// `first` on.
void Program::run_rows(const Memory& memory, const Op& op, int image, int row, int rows, int first, int count) const {
    const Place &in = places_[op.in], &out = places_[op.out];
    const Type type = this->type(op.out);
    const auto source = [&](int y) { return pixels(memory, op.in, image, y, op.in_offset + first); };
    const auto target = [&](int y) { return pixels(memory, op.out, image, y, op.out_offset + first); };
    const bool is_gate = op.kind == OpKind::scale;  // one pixel for the whole map
    const auto other = [&](int y) { return pixels(memory, op.other, image, is_gate ? 0 : y, op.other_offset + first); };
    switch (op.kind) {
        case OpKind::depthwise: {
            for (int dy = 0; dy < op.kernel_h + rows - 1; ++dy) {
                const int y = row * op.stride - op.pad_h() + dy * op.dilation_h;
                memory.pointers[dy] = y >= 0 && y < in.height ? source(y) : nullptr;
            }
            DepthwiseTask task{};
            task.type = type;
            task.rows = memory.pointers;
            task.out_rows = rows;
            task.in_stride = in.stride;
            task.in_width = in.width;
            for (int i = 0; i < rows; ++i) task.out[i] = target(row + i);
            task.out_stride = out.stride;
            task.out_width = out.width;
            task.kernel_h = op.kernel_h;
            task.kernel_w = op.kernel_w;
            task.stride = op.stride;
            task.dilation = op.dilation_w;
            task.pad_w = op.pad_w();
            const bool by_groups = type == Type::u8 || (type == Type::bf16 && net_.kernels.groups_bf16);
            const int step = op.row_step();
            const int each = by_groups ? stacks_of(type, op.kernel_h, step) * op.kernel_w * step : 1;  // channel
            task.weights = op.weights.floats() + std::ptrdiff_t(first) * each;
            task.weight_stride = op.channels;
            task.bias = op.bias.floats() + first;
            task.pad = op.pad.data() + first * size_of(type);
            task.scale = op.scale.floats() + first;
            task.other_scale = op.other_scale.floats() + first;
            task.shift = op.shift.floats() + first;
            task.channels = count;
            task.clamp_min = op.clamp_min();
            task.binary = op.binary;
            if (op.binary != BinaryOp::none) {
                for (int i = 0; i < rows; ++i) task.other[i] = other(row + i);
                task.other_stride = places_[op.other].stride;
            }
            net_.kernels.depthwise(task);
            if (op.has_late_activation())
                for (int i = 0; i < rows; ++i)
                    net_.kernels.activate({type, task.out[i], out.stride, out.width, count, op.activation,
                                           reinterpret_cast<const std::uint8_t*>(op.table.data())});
            return;
        }
        case OpKind::binary:
        case OpKind::scale:
            return net_.kernels.binary({type, this->type(op.other), source(row), in.stride, other(row),
                                        is_gate ? 0 : places_[op.other].stride, target(row), out.stride, out.width,
                                        count, op.binary, op.clamp_min(), op.scale.floats() + first,
                                        op.other_scale.floats() + first, op.shift.floats() + first});
        case OpKind::average_pool: {
            const int window = std::min(2, in.height);
            for (int y = 0; y < window; ++y) memory.pointers[y] = source(2 * row + y);
            return net_.kernels.average_pool(
                {type, memory.pointers, window, std::min(2, in.width), in.stride, target(row), out.width, count});
        }
        case OpKind::max_pool: {
            for (int dy = 0; dy < op.kernel_h; ++dy) {
                const int y = row * op.stride - op.border + dy * op.dilation_h;
                memory.pointers[dy] = y >= 0 && y < in.height ? source(y) : nullptr;
            }
            return net_.kernels.max_pool({type, memory.pointers, op.kernel_h, op.kernel_w, op.stride, op.dilation_w,
                                          op.border, in.width, in.stride, target(row), out.width, count});
        }
        case OpKind::pad: {
            const std::size_t size = size_of(type), pixel = in.stride * size, bytes = count * size;
            std::byte* to = target(row);
            const int pad = op.pad_w();
            for (int x = 0; x < out.width; ++x, to += pixel) {
                if (x < pad || x >= pad + in.width) {
                    std::memset(to, 0, bytes);
                } else if (bytes < pixel) {
                    std::memcpy(to, source(row) + (x - pad) * pixel, bytes);
                } else {  // all channels: the whole row at once
                    std::memcpy(to, source(row), in.width * pixel);
                    x += in.width - 1;
                    to += (in.width - 1) * pixel;
                }
            }
            return;
        }
        case OpKind::output: return run_output(memory, op, image, row);
        case OpKind::upsample_nearest: {
            return net_.kernels.upsample_nearest({type, source(nearest(row, in.height, out.height)), in.stride,
                                                  upsample_columns_[op.out].data(), target(row), out.stride, out.width,
                                                  count});
        }
        default: return;
    }
}

void Program::run_sum(const Memory& memory, const Op& op, const Item& item) const {
    const Place &in = places_[op.in], &sums = places_[op.out];
    const int slots = sum_slots_[op.out];
    const auto total = [&](int image) {
        auto* all = reinterpret_cast<float*>(memory.shared + sums.offset);
        return all + (std::ptrdiff_t(image) * slots + item.slot) * sums.pitch + op.out_offset + item.first;
    };
    if (item.by_row) {
        if (item.starts_sum) {
            std::memset(total(item.image), 0, op.channels * sizeof(float));
        } else {
            const std::byte* row = pixels(memory, op.in, item.image, item.first_row, op.in_offset);
            net_.kernels.sum({type(op.in), row, in.stride, in.width, op.channels, total(item.image), true});
        }
        return;
    }
    for (int image = 0; image < images_; ++image) {
        const std::byte* map = pixels(memory, op.in, image, 0, op.in_offset + item.first);
        net_.kernels.sum({type(op.in), map, in.stride, in.height * in.width, item.count, total(image), false});
    }
}

void Program::run_mean(const Memory& memory, const Op& op) const {
    const Place &map = places_[op.other], &sums = places_[op.in];
    const int slots = sum_slots_[op.in];
    const float scale = 1.0f / (float(map.height) * float(map.width));
    const auto* all = reinterpret_cast<const float*>(memory.shared + sums.offset);
    for (int image = 0; image < images_; ++image)
        net_.kernels.mean({type(op.out), all + std::ptrdiff_t(image) * slots * sums.pitch, sums.pitch, slots,
                           op.channels, scale, pixels(memory, op.out, image, 0, op.out_offset), op.scale.floats(),
                           op.shift.floats()});
}

}  // namespace ghostnets
