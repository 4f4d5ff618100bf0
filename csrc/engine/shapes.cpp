// Sizes of all maps, and a limit on the work of a run.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "engine/planner.hpp"

namespace ghostnets {

namespace {

// Bounds of a run, some times those of any network of the package: multiply-adds (or values that are read), for the
// images as a whole and for each of their pixels.
constexpr double kWork = 4e10, kWorkOfPixel = 4e6;
constexpr int kMaxSide = 1 << 24;  // pixels per side of a map
constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();

}  // namespace

// Heights, widths and strides of all maps.
void Planner::infer_shapes() {
    std::size_t segments = 1;
    for (const Op& op : net_.ops) {
        infer_shape(op);
        const Window& window = op.window;
        segments = std::max<std::size_t>(segments, window.kernel_h + 1);
        if (op.kind == OpKind::adaptive_average)
            segments = std::max<std::size_t>(
                segments, schedule_.allocations[op.in].height / schedule_.allocations[op.out].height + 2);
        if (op.is_gemm())
            segments = std::max<std::size_t>(segments, window.kernel_h * window.kernel_w * op.gemm.segments);
    }
    schedule_.memory.pointers = segments;
    check_work();
}

// Rejects images for which a run would take more time than any network needs. Reached with sizes that each fit an int.
void Planner::check_work() const {
    double work = 0, rows = 0;
    for (const Op& op : net_.ops) {
        const Allocation& out = schedule_.allocations[op.out];
        const double count = double(images_) * out.height * out.width;
        const double taps = std::max(pixels_read(op), 1.0);
        work += count * std::max(op.macs, taps * op.channels);
        rows += out.height;
    }
    if (work > kWork + kWorkOfPixel * pixels() || rows > 1 << 24)
        throw std::length_error("it needs " + std::to_string(std::int64_t(work / 1e6)) + " million multiply-adds for " +
                                describe_images() + ", more than any network of this package");
}

// Rejects the sizes of one map that do not fit an int, or that its readers could not have.
void Planner::check_shape(const Op& op, const Allocation& out) const {
    const auto reject = [&](const std::string& problem) {
        throw std::length_error("node " + net_.nodes[op.node].first + problem);
    };
    if (out.height < 1 || out.width < 1) reject(" has a window that is larger than its map");
    if (out.height > kMaxSide || out.width > kMaxSide) reject(" has a map with a side of more than 2^24 pixels");
    if (std::int64_t(out.width) * out.stride > kMaxInt || std::int64_t(images_) * out.height * out.width > kMaxInt)
        reject(" has a map of " + std::to_string(out.height) + " x " + std::to_string(out.width) +
               ", which is too large");
    const auto differs = [&](int map, int height, int width) {
        return schedule_.allocations[map].height != height || schedule_.allocations[map].width != width;
    };
    const bool adds = op.kind == OpKind::binary || (op.kind == OpKind::depthwise && op.reads_other());
    if (adds && differs(op.other, out.height, out.width)) reject(" adds or multiplies maps of different sizes");
    if (op.kind == OpKind::scale && differs(op.other, 1, 1)) reject(" multiplies by a map of more than one pixel");
    if (op.kind == OpKind::arrange && differs(op.out, out.height, out.width)) reject(" joins maps of different sizes");
}

// The size of a resized map.
std::pair<std::int64_t, std::int64_t> Planner::resized(const Op& op) const {
    const Allocation& in = schedule_.allocations[op.in];
    const int like = op.size.like >= 0 ? op.size.like : op.other;
    if (like >= 0) return {schedule_.allocations[like].height, schedule_.allocations[like].width};
    if (op.size.factor) return {std::int64_t(in.height) * op.size.factor, std::int64_t(in.width) * op.size.factor};
    return {op.size.height, op.size.width};
}

// Input pixels that an output pixel of a pooling is computed from.
double Planner::pixels_read(const Op& op) const {
    const Allocation &in = schedule_.allocations[op.in < 0 ? op.out : op.in], &out = schedule_.allocations[op.out];
    if (op.kind == OpKind::adaptive_average)
        return (double(in.height) / out.height + 1) * (double(in.width) / out.width + 1);
    return op.kind == OpKind::max_pool || op.kind == OpKind::window_average
               ? double(op.window.kernel_h) * op.window.kernel_w
               : 1;
}

void Planner::infer_size(const Op& op) {
    Allocation& out = schedule_.allocations[op.out];
    const Allocation& in = schedule_.allocations[op.in];
    const bool was_written = op.kind == OpKind::arrange && out.height > 0;  // from another map
    const int height = out.height, width = out.width;
    out.height = in.height;
    out.width = in.width;
    switch (op.kind) {
        case OpKind::gemm:
        case OpKind::depthwise:
        case OpKind::window_average:
        case OpKind::pad:
        case OpKind::max_pool:
            out.height = op.window.out_height(in.height);
            out.width = op.window.out_width(in.width);
            break;
        case OpKind::upsample_nearest:
        case OpKind::bilinear: {
            const auto [rows, columns] = resized(op);
            out.height = int(std::min<std::int64_t>(rows, kMaxSide + 1));
            out.width = int(std::min<std::int64_t>(columns, kMaxSide + 1));
            break;
        }
        case OpKind::adaptive_average:
            out.height = op.size.height;
            out.width = op.size.width;
            break;
        case OpKind::average_pool:
            out.height = std::max(1, in.height / 2);
            out.width = std::max(1, in.width / 2);
            break;
        case OpKind::sum:
        case OpKind::mean: out.height = out.width = 1; break;
        default: break;
    }
    if (was_written && (out.height != height || out.width != width)) out.height = 0;  // rejected
}

void Planner::infer_shape(const Op& op) {
    Allocation& out = schedule_.allocations[op.out];
    if (op.kind == OpKind::input) {
        out.stride = net_.in_channels;
        // One value more: the kernel reads terms in pairs.
        out.pitch = std::ptrdiff_t(net_.in_channels) * (out.width + op.window.pad_w + op.window.pad_end_w) + 1;
        check_shape(op, out);
        schedule_.memory.zeros = std::max(schedule_.memory.zeros, pitch_bytes(op.out));
        return;
    }
    infer_size(op);
    out.stride = net_.layouts[op.out].stride();
    out.pitch = out.stride * out.width;
    check_shape(op, out);
    find_columns(op);
}

// The input columns of resized and pooled maps.
void Planner::find_columns(const Op& op) {
    const Allocation &in = schedule_.allocations[op.in], &out = schedule_.allocations[op.out];
    std::vector<int>& columns = schedule_.source_columns[op.out];
    if (!columns.empty()) return;
    const Window& window = op.window;
    for (int x = 0; x < out.width; ++x) {
        if (op.kind == OpKind::upsample_nearest) {
            columns.push_back(nearest(x, in.width, out.width));
        } else if (op.kind == OpKind::bilinear) {
            const Between source = between(x, in.width, out.width, op.size.aligns_corners);
            columns.insert(columns.end(), {source.first, source.second});
            schedule_.column_weights[op.out].push_back(source.weight);
        } else if (op.kind == OpKind::adaptive_average) {
            const Interval pixels = adaptive_window(x, in.width, out.width);
            columns.insert(columns.end(), {pixels.first, pixels.end});
        } else if (op.kind == OpKind::window_average) {
            const int first = x * window.stride - window.pad_w;
            columns.insert(columns.end(),
                           {std::clamp(first, 0, in.width), std::clamp(first + window.kernel_w, 0, in.width)});
        } else {
            return;
        }
    }
}

}  // namespace ghostnets
