// Fusion groups that run over whole maps: how each operation is split among the threads, and the ends of phases in
// between.
#include <algorithm>
#include <tuple>
#include <utility>

#include "engine/planner.hpp"

namespace ghostnets {

namespace {

// A convolution is split by channels if its vectors load the threads at least this evenly.
constexpr double kEvenEnough = 0.9;
// A gemm over fewer pixels than this is always split by channels.
constexpr int kFewPixels = 16;
// Pixels of a tile of the gemm kernel.
constexpr int kTilePixels = 7;

}  // namespace

// One operation after the other. A gemm is split by channels where these come out even, and whatever depends on these
// channels alone needs no new phase; otherwise by pixels and channels, and its followers by rows.
void Planner::plan_whole(const FusionGroup& group) {
    std::vector<Split> splits(net_.ops.size(), Split::none);
    int fresh = group.first;  // first operation since the phase began
    for (int index = group.first; index < group.last; ++index) {
        splits[index] = split_of(group, index, splits);
        if (crosses_threads(fresh, index, splits)) {
            if (threads_ > 1) end_phase();
            fresh = index;
        }
        for (int thread = 0; thread < threads_; ++thread) emit_whole(index, splits[index], thread);
    }
}

Planner::Split Planner::split_of(const FusionGroup& group, int index, const std::vector<Split>& splits) const {
    const Op& op = net_.ops[index];
    if (op.is_gemm()) {
        const Allocation& out = schedule_.allocations[op.out];
        const int vectors = op.gemm.vectors, largest = (vectors + threads_ - 1) / threads_;
        const bool is_even = vectors >= kEvenEnough * largest * threads_ && vectors >= 2 * threads_;
        return is_even || images_ * out.height * out.width < kFewPixels ? Split::channels : Split::rows;
    }
    if (op.kind == OpKind::scale) return Split::channels;
    if (op.kind == OpKind::output || op.kind == OpKind::arrange) return Split::rows;
    for (int i = index - 1; i >= 0; --i)
        if (net_.ops[i].out == op.in) {
            const bool is_whole = i < group.first || splits[i] == Split::channels;
            return is_whole && net_.ops[i].kind != OpKind::mean ? Split::channels : Split::rows;
        }
    return Split::rows;
}

// Whether an operation reads what another share has written in this phase.
bool Planner::crosses_threads(int first, int index, const std::vector<Split>& splits) const {
    const Op& op = net_.ops[index];
    for (int i = first; i < index; ++i) {
        const Op& writer = net_.ops[i];
        if (!op.reads(writer.out) || writer.kind == OpKind::mean) continue;  // each thread computes its own means
        const bool same_channels = splits[index] == Split::channels && splits[i] == Split::channels && !op.is_gemm() &&
                                   writer.channels == op.channels;
        if (!same_channels) return true;
    }
    return false;
}

void Planner::emit_whole(int index, Split split, int thread) {
    const Op& op = net_.ops[index];
    if (op.is_gemm()) return emit_gemm(index, split, thread);
    WorkItem item{.kind = WorkKind::whole_rows, .op = index, .count = op.channels};
    if (op.kind == OpKind::mean) {
        if (index + 1 == int(net_.ops.size()) && thread > 0) return;  // the features are written once
        return emit(thread, item);
    }
    const int rows = images_ * row_count(op);
    if (split == Split::channels || op.kind == OpKind::sum) {
        const int width = net_.kernels.width, vectors = (op.channels + width - 1) / width;
        item.rows = rows;
        item.first = share(vectors, thread, threads_) * width;
        item.count = std::min(share(vectors, thread + 1, threads_) * width, op.channels) - item.first;
        if (item.count > 0) emit(thread, item);
    } else {
        const auto first_of = [&](int index) {  // the same rows are paired in every split, for the same bits
            const int row = share(rows, index, threads_);
            return row - row % row_count(op) % op.row_step();
        };
        item.first_row = first_of(thread);
        item.rows = first_of(thread + 1) - item.first_row;
        if (item.rows > 0) emit(thread, item);
    }
}

void Planner::emit_gemm(int index, Split split, int thread) {
    const Op& op = net_.ops[index];
    const Allocation& out = schedule_.allocations[op.out];
    const int pixels = images_ * out.height * out.width, rows = images_ * out.height, vectors = op.gemm.vectors;
    const auto shares = [&](int count) {
        const int from = share(count, thread, threads_);
        return std::pair(from, share(count, thread + 1, threads_) - from);
    };
    const auto emit_block = [&](int first, int count, int first_pixel, int pixel_count) {
        if (count > 0 && pixel_count > 0)
            emit(thread, {.kind = WorkKind::pixels,
                          .op = index,
                          .first = first,
                          .count = count,
                          .first_pixel = first_pixel,
                          .pixels = pixel_count});
    };
    if (op.window.is_spatial()) {
        WorkItem item{.kind = WorkKind::whole_rows, .op = index, .rows = rows, .count = vectors};
        if (split == Split::channels) std::tie(item.first, item.count) = shares(vectors);
        else std::tie(item.first_row, item.rows) = shares(rows);
        if (item.rows > 0 && item.count > 0) emit(thread, item);
    } else if (split == Split::channels) {
        const auto [first, count] = shares(vectors);
        emit_block(first, count, 0, pixels);
    } else if (const int tiles = pixels / kTilePixels; tiles % threads_ == 0 || tiles >= 12 * threads_) {
        const int from = thread == 0 ? 0 : share(tiles, thread, threads_) * kTilePixels;
        const int to = thread + 1 == threads_ ? pixels : share(tiles, thread + 1, threads_) * kTilePixels;
        emit_block(0, vectors, from, to - from);
    } else {  // some vectors for each thread, and a share of the pixels of those that are left
        const int each = vectors / threads_;
        const auto [first, count] = shares(pixels);
        emit_block(thread * each, each, 0, pixels);
        emit_block(each * threads_, vectors - each * threads_, first, count);
    }
}

}  // namespace ghostnets
