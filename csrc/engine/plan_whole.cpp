// Parts that run over whole maps: how each operation falls to the threads, and where they must wait for one another.
#include <algorithm>

#include "engine/planner.hpp"

namespace ghostnets {

namespace {

// How evenly whole vectors must fall to the threads for a convolution to be shared out by channels.
constexpr double kEvenEnough = 0.9;

}  // namespace

// Whole maps, one operation after the other. A dense operation falls to the threads by channels where these come out
// even, and what follows from these channels alone needs no barrier; else by pixels and channels, and then by rows.
void Program::plan_whole(const Part& part) {
    enum class Cut { none, channels, rows };
    const int width = net_.kernels.width;
    std::vector<Cut> cuts(net_.ops.size(), Cut::none);
    int fresh = part.first;  // first operation since the last barrier
    for (int index = part.first; index < part.last; ++index) {
        const Op& op = net_.ops[index];
        const Place& out = places_[op.out];
        Cut cut = Cut::rows;
        const int pixels = images_ * out.height * out.width;
        if (op.kind == OpKind::gemm) {
            const int largest = (op.vectors + threads_ - 1) / threads_;
            const bool even = op.vectors >= kEvenEnough * largest * threads_ && op.vectors >= 2 * threads_;
            cut = even || pixels < 16 ? Cut::channels : Cut::rows;
        } else {
            for (int i = index - 1; i >= 0; --i)
                if (net_.ops[i].out == op.in) {
                    const bool was_whole = i < part.first || cuts[i] == Cut::channels;
                    if (was_whole && net_.ops[i].kind != OpKind::mean) cut = Cut::channels;
                    break;
                }
            if (op.kind == OpKind::scale) cut = Cut::channels;
            if (op.kind == OpKind::output) cut = Cut::rows;
        }
        cuts[index] = cut;
        bool crosses = false;
        for (int i = fresh; i < index; ++i) {
            const Op& writer = net_.ops[i];
            if (writer.out != op.in && !(op.reads_other() && writer.out == op.other)) continue;
            if (writer.kind == OpKind::mean) continue;  // each thread has its own
            const bool same_channels = cut == Cut::channels && cuts[i] == Cut::channels && op.kind != OpKind::gemm &&
                                       writer.channels == op.channels;
            crosses |= !same_channels;
        }
        if (crosses) {
            barrier();
            fresh = index;
        }
        const int rows = images_ * (op.kind == OpKind::sum ? places_[op.in].height : out.height);
        for (int t = 0; t < threads_; ++t) {
            const auto emit = [&](int first, int count, int first_pixel, int pixel_count, int first_row,
                                  int row_count) {
                if (count <= 0 || (op.kind == OpKind::gemm && pixel_count <= 0 && row_count <= 0)) return;
                Item item{.op = index};
                item.first = first;
                item.count = count;
                item.first_pixel = first_pixel;
                item.pixels = pixel_count;
                item.first_row = first_row;
                item.rows = row_count;
                item.starts_sum = true;
                items_[t].push_back(item);
            };
            if (op.kind == OpKind::mean) {
                const int from = index + 1 == int(net_.ops.size()) && t > 0 ? 0 : op.channels;
                emit(0, from, 0, 0, 0, 0);
            } else if (op.kind == OpKind::gemm && cut == Cut::channels) {
                const int from = share(op.vectors, t, threads_), to = share(op.vectors, t + 1, threads_);
                emit(from, to - from, 0, pixels, 0, rows);
            } else if (op.kind == OpKind::gemm && op.is_spatial()) {
                const int from = share(rows, t, threads_), to = share(rows, t + 1, threads_);
                emit(0, op.vectors, 0, 0, from, to - from);
            } else if (op.kind == OpKind::gemm) {
                const int tiles = pixels / 7;
                if (tiles % threads_ == 0 || tiles >= 12 * threads_) {
                    const int from = t == 0 ? 0 : share(tiles, t, threads_) * 7;
                    const int to = t + 1 == threads_ ? pixels : share(tiles, t + 1, threads_) * 7;
                    emit(0, op.vectors, from, to - from, 0, 0);
                } else {  // some vectors for each thread, and a share of the pixels of those that are left
                    const int each = op.vectors / threads_, left = op.vectors - each * threads_;
                    const int from = share(pixels, t, threads_), to = share(pixels, t + 1, threads_);
                    emit(t * each, each, 0, pixels, 0, 0);
                    emit(each * threads_, left, from, to - from, 0, 0);
                }
            } else if (cut == Cut::channels || op.kind == OpKind::sum) {
                const int vectors = (op.channels + width - 1) / width;
                const int from = share(vectors, t, threads_) * width;
                const int to = std::min(share(vectors, t + 1, threads_) * width, op.channels);
                emit(from, to - from, 0, 0, 0, rows);
            } else {
                const int from = share(rows, t, threads_), to = share(rows, t + 1, threads_);
                if (from < to) emit(0, op.channels, 0, 0, from, to - from);
            }
        }
    }
}

}  // namespace ghostnets
