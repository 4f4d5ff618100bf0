#include "engine/planner.hpp"

#include <algorithm>
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

}  // namespace

Planner::Planner(const Network& network, int images, int height, int width, int threads, bool keeps_all)
    : net_(network), images_(images), threads_(threads), keeps_all_(keeps_all) {
    const std::size_t maps = net_.layouts.size();
    schedule_.images = images;
    schedule_.threads = threads;
    schedule_.allocations.resize(maps);
    schedule_.sum_slots.assign(maps, 1);
    schedule_.items.resize(threads);
    schedule_.phase_starts.assign(threads, {0});
    schedule_.source_columns.resize(maps);
    schedule_.column_weights.resize(maps);
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
        if (threads_ > 1) end_phase();
    }
    if (threads_ == 1) end_phase();  // nothing to wait for
    return std::move(schedule_);
}

double Planner::pixels() const {
    const Allocation& input = schedule_.allocations[net_.ops.front().out];
    return double(images_) * input.height * input.width;
}

std::string Planner::describe_images() const {
    const Allocation& input = schedule_.allocations[net_.ops.front().out];
    return std::to_string(images_) + (images_ == 1 ? " image of " : " images of ") + std::to_string(input.height) +
           " x " + std::to_string(input.width);
}

void Planner::end_phase() {
    for (int share = 0; share < threads_; ++share)
        schedule_.phase_starts[share].push_back(schedule_.items[share].size());
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
