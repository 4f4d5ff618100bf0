// Fusion groups that run by rows: the order in which a thread computes rows, and the number of rows that rings hold.
#include <algorithm>
#include <climits>

#include "engine/planner.hpp"

namespace ghostnets {

namespace {

bool overlap(int a, int a_size, int b, int b_size) { return a < b + b_size && b < a + a_size; }

}  // namespace

int Planner::row_count(const Op& op) const {
    return schedule_.allocations[op.kind == OpKind::sum ? op.in : op.out].height;
}

bool Planner::is_sink(const Op& op) const {
    return op.kind == OpKind::sum || schedule_.allocations[op.out].kind != MemoryKind::ring;
}

// The rows of its input that an output row is computed from; some may lie outside of the map.
Planner::RowRange Planner::rows_read(const Op& op, int row) const {
    const int height = schedule_.allocations[op.in].height;
    switch (op.kind) {
        case OpKind::gemm:
        case OpKind::depthwise:
        case OpKind::pad:
        case OpKind::window_average:
        case OpKind::max_pool: {
            const int low = row * op.window.stride - op.window.pad_h;
            return {-1, low, low + op.window.dilation_h * (op.window.kernel_h - 1)};
        }
        case OpKind::average_pool: return {-1, 2 * row, 2 * row + std::min(2, height) - 1};
        case OpKind::upsample_nearest: {
            const int from = nearest(row, height, schedule_.allocations[op.out].height);
            return {-1, from, from};
        }
        case OpKind::bilinear: {
            const Between rows = between(row, height, schedule_.allocations[op.out].height, op.size.aligns_corners);
            return {-1, rows.first, rows.second};
        }
        case OpKind::adaptive_average: {
            const Interval rows = adaptive_window(row, height, schedule_.allocations[op.out].height);
            return {-1, rows.first, rows.end - 1};
        }
        default: return {-1, row, row};
    }
}

// The rows of operations of the group that an operation's row is computed from.
std::vector<Planner::RowRange> Planner::dependencies(const FusionGroup& group, int index, int row) const {
    const Op& op = net_.ops[index];
    std::vector<RowRange> found;
    const auto add = [&](int map, int offset, int size, int low, int high) {
        for (int i = group.first; i < index; ++i) {
            const Op& writer = net_.ops[i];
            if (writer.out == map && overlap(writer.out_offset, writer.channels, offset, size))
                found.push_back({i, std::max(low, 0), std::min(high, row_count(writer) - 1)});
        }
    };
    if (op.in >= 0) {
        const RowRange rows = rows_read(op, row);
        if (op.is_gemm()) add(op.in, 0, INT_MAX / 2, rows.low, rows.high);
        else add(op.in, op.in_offset, op.channels, rows.low, rows.high);
    }
    if (op.kind != OpKind::scale && op.reads_other()) add(op.other, op.other_offset, op.channels, row, row);
    return found;
}

// The first and last row that a thread computes of each operation of a group; high is -1 for none.
void Planner::row_bounds(const FusionGroup& group, int thread, std::vector<int>& low, std::vector<int>& high) const {
    for (int i = group.last - group.first - 1; i >= 0; --i) {
        const Op& op = net_.ops[group.first + i];
        const int rows = row_count(op);
        if (is_sink(op)) {  // shares of pairs of rows
            const int pairs = (rows + 1) / 2, from = 2 * share(pairs, thread, threads_),
                      to = std::min(rows, 2 * share(pairs, thread + 1, threads_));
            if (from < to) {
                low[i] = std::min(low[i], from);
                high[i] = std::max(high[i], to - 1);
            }
        }
        if (op.row_step() == 2 && high[i] >= low[i]) {  // the same rows are paired in every split, for the same bits
            low[i] -= low[i] % 2;
            high[i] = std::min(high[i] | 1, rows - 1);
        }
        for (int row : {low[i], high[i]})
            if (high[i] >= low[i])
                for (const RowRange& needed : dependencies(group, group.first + i, row)) {
                    const int writer = needed.writer - group.first;
                    low[writer] = std::min(low[writer], needed.low);
                    high[writer] = std::max(high[writer], needed.high);
                }
    }
}

// The rows that a thread computes in a group, each operation as late as its readers allow.
std::vector<Planner::RowStep> Planner::row_order(const FusionGroup& group, int thread) const {
    const int count = group.last - group.first;
    std::vector<int> low(count, INT_MAX), high(count, -1);
    row_bounds(group, thread, low, high);
    std::vector<RowStep> order;
    std::vector<int> next = low;
    const auto produce = [&](const auto& self, int op, int upto) -> void {
        for (int& row = next[op - group.first]; row <= upto;) {
            const int rows = std::min(net_.ops[op].row_step(), high[op - group.first] + 1 - row);
            for (int i = 0; i < rows; ++i)
                for (const RowRange& needed : dependencies(group, op, row + i)) self(self, needed.writer, needed.high);
            order.push_back({op, row, rows});
            row += rows;
        }
    };
    // Sinks advance together, so that each row serves all of them while it is in the ring.
    for (int row = 0; row <= *std::max_element(high.begin(), high.end()); ++row)
        for (int i = 0; i < count; ++i)
            if (is_sink(net_.ops[group.first + i]) && low[i] <= row && row <= high[i])
                produce(produce, group.first + i, row);
    return order;
}

// A ring holds the rows between the newest written and the oldest that is still to be read.
void Planner::grow_ring(const FusionGroup& group, int map, const std::vector<RowStep>& order) {
    Allocation& allocation = schedule_.allocations[map];
    std::vector<int> last_read(allocation.height, -1), newest;
    int top = -1;
    bool is_used = false;
    for (int step = 0; step < int(order.size()); ++step) {
        if (net_.ops[order[step].op].out == map) {
            top = std::max(top, order[step].row + order[step].rows - 1);
            is_used = true;
        }
        newest.push_back(top);
        for (int i = 0; i < order[step].rows; ++i)
            for (const RowRange& needed : dependencies(group, order[step].op, order[step].row + i))
                if (net_.ops[needed.writer].out == map)
                    for (int row = needed.low; row <= needed.high; ++row) last_read[row] = step;
    }
    if (!is_used) return;
    allocation.rows = std::max(allocation.rows, 1);
    for (int row = 0; row < allocation.height; ++row)
        if (last_read[row] >= 0) allocation.rows = std::max(allocation.rows, newest[last_read[row]] - row + 1);
}

void Planner::plan_rows(const FusionGroup& group) {
    for (int thread = 0; thread < threads_; ++thread) {
        const std::vector<RowStep> order = row_order(group, thread);
        for (int image = 0; image < images_; ++image) {
            for (const RowStep& step : order)
                emit(thread, {.kind = WorkKind::rows,
                              .op = step.op,
                              .image = image,
                              .first_row = step.row,
                              .rows = step.rows,
                              .count = net_.ops[step.op].channels});
        }
    }
}

}  // namespace ghostnets
