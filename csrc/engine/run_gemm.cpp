// Convolutions and linear layers: pointers to the segments that an output is summed over, and the calls of the kernel.
#include <algorithm>

#include "engine/executor.hpp"

namespace ghostnets {

void Executor::run_gemm_row(const Op& op, int image, int row) const {
    GemmTask task = net_.gemm_task(op, 0, op.gemm.vectors);
    task.segments = workspace_.pointers;
    if (op.gemm.is_stem) point_at_stem(op, image, row, task);
    else point_at_taps(op, image, row);
    std::byte* out = pixels(op.out, image, row, op.out_offset);
    task.out = out;
    task.pixels = at(op.out).width;
    net_.kernels.gemm(task);
    run_late_activation(op, out, task.pixels, op.channels);
}

// The stem has one segment for each kernel row.
void Executor::point_at_stem(const Op& op, int image, int row, GemmTask& task) const {
    const Allocation& in = at(op.in);
    task.segment_count = op.window.kernel_h;
    task.segment_groups = op.gemm.depth / task.segment_count;
    task.pixel_stride = std::ptrdiff_t(op.window.stride) * net_.in_channels;
    for (int dy = 0; dy < op.window.kernel_h; ++dy) {
        const int y = row * op.window.stride - op.window.pad_h + dy;
        workspace_.pointers[dy] = y >= 0 && y < in.height ? pixels(op.in, image, y) : workspace_.zeros;
    }
}

// Pointers for the first pixel of an output row: to each segment under each tap of the kernel.
void Executor::point_at_taps(const Op& op, int image, int row) const {
    const Allocation& in = at(op.in);
    const Window& window = op.window;
    const int padded = net_.layouts[op.in].padded();
    const void** pointer = workspace_.pointers;
    for (int dy = 0; dy < window.kernel_h; ++dy)  // all exist: padding is stored
        for (int dx = 0; dx < window.kernel_w; ++dx)
            for (int s = 0; s < op.gemm.segments; ++s)
                *pointer++ = pixels(op.in, image, row * window.stride + dy * window.dilation_h,
                                    dx * window.dilation_w * in.stride + (op.gemm.first_segment + s) * padded);
}

// Rows of a spatial convolution, a few vectors of outputs at a time: their weights then serve all rows from the second
// level cache.
void Executor::run_gemm_rows(const Op& op, const WorkItem& item) const {
    const Allocation& out = at(op.out);
    const int end = item.first + item.count;
    for (int first = item.first, count; first < end; first += count) {
        count = end - first == 3 ? 3 : std::min(2, end - first);
        GemmTask task = net_.gemm_task(op, first, count);
        task.segments = workspace_.pointers;
        task.pixels = out.width;
        for (int row = item.first_row; row < item.first_row + item.rows; ++row) {
            const int image = row / out.height, y = row % out.height;
            point_at_taps(op, image, y);
            std::byte* to = pixels(op.out, image, y, op.out_offset + first * net_.kernels.width);
            task.out = to;
            net_.kernels.gemm(task);
            run_late_activation(op, to, task.pixels, std::min(count * net_.kernels.width, task.columns));
        }
    }
}

void Executor::run_gemm_block(const Op& op, const WorkItem& item) const {
    const Allocation& in = at(op.in);
    const int width = net_.kernels.width, first = item.first * width, padded = net_.layouts[op.in].padded();
    for (int s = 0; s < op.gemm.segments; ++s)
        workspace_.pointers[s] =
            pixels(op.in, 0, 0, item.first_pixel * in.stride + (op.gemm.first_segment + s) * padded);
    std::byte* out = pixels(op.out, 0, 0, item.first_pixel * at(op.out).stride + op.out_offset + first);
    // A late activation follows while the outputs are in the cache, so it is applied to a few vectors at a time.
    const int step = op.has_late_activation() ? 2 : item.count;
    for (int done = 0; done < item.count; done += step) {
        GemmTask task = net_.gemm_task(op, item.first + done, std::min(step, item.count - done));
        std::byte* to = out + std::ptrdiff_t(done) * width * size_of(type(op.out));
        task.segments = workspace_.pointers;
        task.out = to;
        task.pixels = item.pixels;
        net_.kernels.gemm(task);
        run_late_activation(op, to, item.pixels, std::min(task.vectors * width, task.columns));
    }
}

}  // namespace ghostnets
