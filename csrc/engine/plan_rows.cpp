// Parts that run by rows: in which order a thread computes the rows of which operations, and how many it must keep.
#include <algorithm>
#include <climits>

#include "engine/planner.hpp"

namespace ghostnets {

namespace {

bool overlap(int a, int a_size, int b, int b_size) { return a < b + b_size && b < a + a_size; }

}  // namespace

// Which rows of which operations of the part an operation's row is computed from.
std::vector<Program::Need> Program::needs(const Part& part, int index, int row) const {
    const Op& op = net_.ops[index];
    std::vector<Need> found;
    const auto add = [&](int map, int offset, int size, int low, int high) {
        for (int i = part.first; i < index; ++i) {
            const Op& writer = net_.ops[i];
            if (writer.out == map && overlap(writer.out_offset, writer.channels, offset, size))
                found.push_back({i, std::max(low, 0), std::min(high, row_count(writer) - 1)});
        }
    };
    if (op.in >= 0) {
        const int height = places_[op.in].height;
        switch (op.kind) {
            case OpKind::gemm: {
                const int low = row * op.stride - op.pad_h();
                add(op.in, 0, INT_MAX / 2, low, low + op.dilation_h * (op.kernel_h - 1));
                break;
            }
            case OpKind::depthwise: {
                const int low = row * op.stride - op.pad_h();
                add(op.in, op.in_offset, op.channels, low, low + op.dilation_h * (op.kernel_h - 1));
                break;
            }
            case OpKind::max_pool: {
                const int low = row * op.stride - op.border;
                add(op.in, op.in_offset, op.channels, low, low + op.dilation_h * (op.kernel_h - 1));
                break;
            }
            case OpKind::average_pool:
                add(op.in, op.in_offset, op.channels, 2 * row, 2 * row + std::min(2, height) - 1);
                break;
            case OpKind::upsample_nearest: {
                const int from = nearest(row, height, places_[op.out].height);
                add(op.in, op.in_offset, op.channels, from, from);
                break;
            }
            default: add(op.in, op.in_offset, op.channels, row, row);
        }
    }
    if (op.kind != OpKind::scale && op.reads_other()) add(op.other, op.other_offset, op.channels, row, row);
    return found;
}

// The rows that a thread computes in a part, each operation as late as its readers allow.
std::vector<Program::RowItem> Program::row_order(const Part& part, int thread) const {
    const int count = part.last - part.first;
    std::vector<int> low(count, INT_MAX), high(count, -1);
    for (int i = count - 1; i >= 0; --i) {
        const Op& op = net_.ops[part.first + i];
        if (is_sink(op)) {
            const int rows = row_count(op), from = share(rows, thread, threads_),
                      to = share(rows, thread + 1, threads_);
            if (from < to) {
                low[i] = std::min(low[i], from);
                high[i] = std::max(high[i], to - 1);
            }
        }
        for (int row : {low[i], high[i]})
            if (high[i] >= low[i])
                for (const Need& need : needs(part, part.first + i, row)) {
                    low[need.writer - part.first] = std::min(low[need.writer - part.first], need.low);
                    high[need.writer - part.first] = std::max(high[need.writer - part.first], need.high);
                }
    }
    std::vector<RowItem> order;
    std::vector<int> next = low;
    const auto produce = [&](const auto& self, int op, int upto) -> void {
        for (int& row = next[op - part.first]; row <= upto;) {
            const int rows = std::min(net_.ops[op].row_step(), high[op - part.first] + 1 - row);
            for (int i = 0; i < rows; ++i)
                for (const Need& need : needs(part, op, row + i)) self(self, need.writer, need.high);
            order.push_back({op, row, rows});
            row += rows;
        }
    };
    // Sinks advance together, so that each row serves all of them while it is there.
    for (int row = 0; row <= *std::max_element(high.begin(), high.end()); ++row)
        for (int i = 0; i < count; ++i)
            if (is_sink(net_.ops[part.first + i]) && low[i] <= row && row <= high[i])
                produce(produce, part.first + i, row);
    return order;
}

// Rings hold the rows between the newest written and the oldest that is still to be read.
void Program::grow_rings(const Part& part, const std::vector<RowItem>& order) {
    for (int map = 0; map < int(places_.size()); ++map) {
        Place& place = places_[map];
        if (place.kind != Place::ring) continue;
        std::vector<int> last_read(place.height, -1), newest;
        int top = -1;
        bool used = false;
        for (int step = 0; step < int(order.size()); ++step) {
            const Op& op = net_.ops[order[step].op];
            if (op.out == map) {
                top = std::max(top, order[step].row + order[step].rows - 1);
                used = true;
            }
            newest.push_back(top);
            for (int i = 0; i < order[step].rows; ++i)
                for (const Need& need : needs(part, order[step].op, order[step].row + i))
                    if (net_.ops[need.writer].out == map)
                        for (int row = need.low; row <= need.high; ++row) last_read[row] = step;
        }
        if (!used) continue;
        place.rows = std::max(place.rows, 1);
        for (int row = 0; row < place.height; ++row)
            if (last_read[row] >= 0) place.rows = std::max(place.rows, newest[last_read[row]] - row + 1);
    }
}

void Program::plan_rows(const Part& part) {
    for (int thread = 0; thread < threads_; ++thread) {
        const std::vector<RowItem> order = row_order(part, thread);
        for (int image = 0; image < images_; ++image) {
            for (int op = part.first; op < part.last; ++op) {  // shares of a sum start at zero, empty ones too
                if (net_.ops[op].kind != OpKind::sum) continue;
                Item item{.op = op, .image = image};
                item.by_row = item.starts_sum = true;
                item.slot = thread;
                items_[thread].push_back(item);
            }
            for (const RowItem& step : order) {
                Item item{.op = step.op, .image = image, .first_row = step.row, .rows = step.rows};
                item.count = net_.ops[step.op].channels;
                item.by_row = true;
                item.slot = thread;
                items_[thread].push_back(item);
            }
        }
    }
}

}  // namespace ghostnets
