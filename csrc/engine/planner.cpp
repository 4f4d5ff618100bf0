#include "engine/planner.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace ghostnets {

namespace {

// A fusion group whose largest map takes more bytes than this for each thread, and is this wide, runs by rows.
constexpr long kRowModeBytes = 256 * 1024;
constexpr int kRowModeWidth = 24;
// A convolution with more bytes of weights than this does not: they would pass through the caches once for every row.
constexpr std::size_t kRowModeWeights = 256 * 1024;
// The time to order the rows of a fusion group grows with the cube of its operations; groups of the package have up to
// some tens.
constexpr int kMaxGroup = 96;

// Bounds of a run, some times those of any network of the package: multiply-adds (or values that are read), and bytes
// of maps, for the images as a whole and for each of their pixels.
constexpr double kWork = 4e10, kWorkOfPixel = 4e6;
constexpr double kMemory = 256e6, kMemoryOfPixel = 16e3;
constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();

}  // namespace

Planner::Planner(const Network& network, int images, int height, int width, int threads, bool keeps_all)
    : net_(network), images_(images), threads_(threads), keeps_all_(keeps_all) {
    const std::size_t maps = net_.layouts.size();
    schedule_.images = images;
    schedule_.threads = threads;
    schedule_.allocations.resize(maps);
    schedule_.sum_slots.assign(maps, 1);
    schedule_.items.resize(threads);
    schedule_.source_columns.resize(maps);
    Allocation& input = schedule_.allocations[net_.ops.front().out];
    input.height = height;
    input.width = width;
    for (int i = 0; i < width; ++i) {
        schedule_.scale_row.insert(schedule_.scale_row.end(), net_.scale.begin(), net_.scale.end());
        schedule_.shift_row.insert(schedule_.shift_row.end(), net_.shift.begin(), net_.shift.end());
    }
}

Schedule Planner::make() {
    infer_shapes();
    partition();
    allocate();
    for (const FusionGroup& group : groups_) {
        if (group.by_row) plan_rows(group);
        else plan_whole(group);
        emit_barrier();
    }
    return std::move(schedule_);
}

void Planner::emit_barrier() {
    if (threads_ == 1) return;
    for (int thread = 0; thread < threads_; ++thread) emit(thread, {.kind = WorkKind::barrier});
}

// Heights, widths and strides of all maps.
void Planner::infer_shapes() {
    std::size_t segments = 1;
    for (const Op& op : net_.ops) {
        infer_shape(op);
        const Window& window = op.window;
        segments =
            std::max<std::size_t>(segments, op.gemm.is_stem ? window.kernel_h * net_.in_channels : window.kernel_h + 1);
        if (op.is_gemm())
            segments = std::max<std::size_t>(segments, window.kernel_h * window.kernel_w * op.gemm.segments);
    }
    schedule_.memory.pointers = segments;
    check_sizes();
}

// Refuses images for which a run would take more memory or time than any network needs. Reached before memory is
// allocated, and with sizes that each fit an int.
void Planner::check_sizes() const {
    const Allocation& input = schedule_.allocations[net_.ops.front().out];
    const double pixels = double(images_) * input.height * input.width;
    double work = 0, bytes = 0, rows = 0;
    for (const Op& op : net_.ops) {
        const Allocation& out = schedule_.allocations[op.out];
        const double count = double(images_) * out.height * out.width;
        const double taps = op.kind == OpKind::max_pool ? op.window.kernel_h * op.window.kernel_w : 1;
        work += count * std::max(op.macs, taps * op.channels);
        bytes += count * op.channels * size_of(type(op.out));
        rows += out.height;
    }
    if (work > kWork + kWorkOfPixel * pixels || bytes > kMemory + kMemoryOfPixel * pixels || rows > 1 << 24)
        throw std::length_error("it needs " + std::to_string(std::int64_t(work / 1e6)) + " million multiply-adds and " +
                                std::to_string(std::int64_t(bytes / 1e6)) + " MB of maps for " +
                                std::to_string(images_) + " images of " + std::to_string(input.height) + " x " +
                                std::to_string(input.width) + ", more than any network of this package");
}

// Refuses the sizes of one map that do not fit an int, or that its readers could not have.
void Planner::check_shape(const Op& op, const Allocation& out) const {
    const auto refuse = [&](const std::string& problem) {
        throw std::length_error("node " + net_.nodes[op.node].first + problem);
    };
    if (out.height < 1 || out.width < 1) refuse(" has a window that is larger than its map");
    if (std::int64_t(out.width) * out.stride > kMaxInt || std::int64_t(images_) * out.height * out.width > kMaxInt)
        refuse(" has a map of " + std::to_string(out.height) + " x " + std::to_string(out.width) +
               ", which is too large");
    if (op.kind == OpKind::binary || (op.kind == OpKind::depthwise && op.reads_other())) {
        const Allocation& other = schedule_.allocations[op.other];
        if (other.height != out.height || other.width != out.width)
            refuse(" adds or multiplies maps of different sizes");
    }
}

void Planner::infer_shape(const Op& op) {
    std::vector<Allocation>& maps = schedule_.allocations;
    Allocation& out = maps[op.out];
    if (op.kind == OpKind::input) {
        out.stride = net_.in_channels;
        out.pitch = std::ptrdiff_t(net_.in_channels) * (out.width + 2 * op.window.pad_w);
        check_shape(op, out);
        schedule_.memory.zeros = std::max(schedule_.memory.zeros, pitch_bytes(op.out));
        return;
    }
    const Allocation& in = maps[op.kind == OpKind::upsample_nearest ? op.other : op.in];
    out.height = in.height;
    out.width = in.width;
    switch (op.kind) {
        case OpKind::gemm:
        case OpKind::depthwise:
        case OpKind::max_pool:
            out.height = op.window.out_height(in.height);
            out.width = op.window.out_width(in.width);
            break;
        case OpKind::pad: out.width = in.width + 2 * op.window.pad_w; break;
        case OpKind::average_pool:
            out.height = std::max(1, in.height / 2);
            out.width = std::max(1, in.width / 2);
            break;
        case OpKind::sum:
        case OpKind::mean: out.height = out.width = 1; break;
        default: break;
    }
    out.stride = net_.layouts[op.out].stride();
    out.pitch = out.stride * out.width;
    check_shape(op, out);
    if (op.kind == OpKind::pad) schedule_.memory.zeros = std::max(schedule_.memory.zeros, pitch_bytes(op.out));
    std::vector<int>& columns = schedule_.source_columns[op.out];
    if (op.kind == OpKind::upsample_nearest && columns.empty())
        for (int x = 0; x < out.width; ++x) columns.push_back(nearest(x, maps[op.in].width, out.width));
}

// Cuts the operations into fusion groups where the plan says so.
void Planner::partition() {
    const int count = int(net_.ops.size());
    for (int first = 0, last; first < count; first = last) {
        last = first + 1;
        while (last < count && last - first < kMaxGroup && !net_.ops[last].starts_group) ++last;
        bool by_row = runs_by_row(first, last);
        if (by_row && (keeps_all_ || (threads_ > 1 && keeps_what_it_reads(first, last)))) {
            if (net_.ops[first].kind == OpKind::input) last = first + 2;  // the stem alone
            else by_row = false;
        }
        groups_.push_back({first, last, by_row});
    }
}

bool Planner::runs_by_row(int first, int last) const {
    if (net_.ops[first].kind == OpKind::input) return true;
    bool has_large_map = false;
    for (int i = first; i < last; ++i) {
        const Op& op = net_.ops[i];
        if (op.window.is_spatial() && op.weight_bytes > kRowModeWeights) return false;
        const Allocation& out = schedule_.allocations[op.out];
        const long bytes = long(out.height) * long(pitch_bytes(op.out));
        has_large_map |= bytes > kRowModeBytes * threads_ && out.width >= kRowModeWidth;
    }
    return has_large_map;
}

// Whether a map is written and read in these operations and needed after them as well: at the border of two shares,
// both threads would write the same rows of it. (Sums read no row but their own.)
bool Planner::keeps_what_it_reads(int first, int last) const {
    for (int i = first; i < last; ++i) {
        bool inside = false, later = false;
        for (int j = i + 1; j < int(net_.ops.size()); ++j)
            if (net_.ops[j].reads(net_.ops[i].out) && net_.ops[j].kind != OpKind::sum)
                (j < last ? inside : later) = true;
        if (inside && later) return true;
    }
    return false;
}

}  // namespace ghostnets
