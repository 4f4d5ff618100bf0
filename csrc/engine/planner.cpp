#include "engine/planner.hpp"

#include <algorithm>
#include <climits>

namespace ghostnets {

namespace {

// A part whose largest map takes more bytes than this for each thread, and is this wide, runs by rows.
constexpr long kRowModeBytes = 256 * 1024;
constexpr int kRowModeWidth = 24;
// A convolution with more bytes of weights than this does not: they would pass through the caches once for every row.
constexpr std::size_t kRowModeWeights = 256 * 1024;

}  // namespace

Program::Program(const Network& network, int images, int height, int width, int threads, bool keeps_all)
    : net_(network), images_(images), threads_(threads), keeps_all_(keeps_all), places_(network.layouts.size()),
      sum_slots_(network.layouts.size(), 1), items_(threads), upsample_columns_(network.layouts.size()) {
    places_[net_.ops.front().out].height = height;
    places_[net_.ops.front().out].width = width;
    measure();
    find_parts();
    place();
    for (const Part& part : parts_) {
        if (part.by_row) {
            plan_rows(part);
        } else {
            plan_whole(part);
        }
        barrier();
    }
    for (int i = 0; i < width; ++i) {
        scale_row_.insert(scale_row_.end(), net_.scale.begin(), net_.scale.end());
        shift_row_.insert(shift_row_.end(), net_.shift.begin(), net_.shift.end());
    }
}

void Program::barrier() {
    if (threads_ == 1) return;
    for (std::vector<Item>& list : items_) list.push_back(Item{.op = -1});
}

// Heights, widths and strides of all maps.
void Program::measure() {
    for (const Op& op : net_.ops) {
        Place& out = places_[op.out];
        if (op.kind == OpKind::input) {
            out.stride = net_.in_channels;
            out.pitch = std::ptrdiff_t(net_.in_channels) * (out.width + 2 * op.pad_w());
            zeros_size_ = std::max(zeros_size_, pitch_bytes(op.out));
            continue;
        }
        const Place& like = places_[op.kind == OpKind::upsample_nearest ? op.other : op.in];
        out.height = Network::out_size(op, like.height, true);
        out.width = Network::out_size(op, like.width, false);
        out.stride = net_.layouts[op.out].stride();
        out.pitch = out.stride * out.width;
        if (op.kind == OpKind::pad) zeros_size_ = std::max(zeros_size_, pitch_bytes(op.out));
        if (op.kind == OpKind::upsample_nearest && upsample_columns_[op.out].empty())
            for (int x = 0; x < out.width; ++x)
                upsample_columns_[op.out].push_back(nearest(x, places_[op.in].width, out.width));
    }
    std::size_t segments = 1;
    for (const Op& op : net_.ops) {
        segments = std::max<std::size_t>(segments, op.is_stem ? op.kernel_h * net_.in_channels : op.kernel_h + 1);
        if (op.kind == OpKind::gemm)
            segments = std::max<std::size_t>(segments, op.kernel_h * op.kernel_w * op.segments);
    }
    pointers_size_ = segments;
}

// Consecutive operations that run in the same way. A part ends where the plan says so.
void Program::find_parts() {
    const int count = int(net_.ops.size());
    for (int first = 0, last; first < count; first = last) {
        last = first + 1;
        while (last < count && !net_.ops[last].starts_part) ++last;
        bool by_row = false, is_heavy = false;
        for (int i = first; i < last; ++i) {
            is_heavy |= net_.ops[i].is_spatial() && net_.ops[i].weight_bytes > kRowModeWeights;
            const Place& out = places_[net_.ops[i].out];
            const long bytes = long(out.height) * long(pitch_bytes(net_.ops[i].out));
            by_row |=
                net_.ops[i].kind == OpKind::input || (bytes > kRowModeBytes * threads_ && out.width >= kRowModeWidth);
        }
        if (net_.ops[first].kind != OpKind::input) by_row &= !is_heavy;
        if (by_row && (keeps_all_ || (threads_ > 1 && keeps_what_it_reads(first, last)))) {
            if (net_.ops[first].kind == OpKind::input) {
                last = first + 2;  // the stem alone
            } else {
                by_row = false;
            }
        }
        parts_.push_back({first, last, by_row});
    }
}

// Whether a map is written and read in these operations and needed after them as well: at the border of two shares,
// both threads would write the same rows of it. (Sums read no row but their own.)
bool Program::keeps_what_it_reads(int first, int last) const {
    const auto reads = [&](int i, int map) {
        const Op& op = net_.ops[i];
        return op.in == map || (op.reads_other() && op.other == map);
    };
    for (int i = first; i < last; ++i) {
        bool inside = false, later = false;
        for (int j = i + 1; j < int(net_.ops.size()); ++j)
            if (reads(j, net_.ops[i].out) && net_.ops[j].kind != OpKind::sum) (j < last ? inside : later) = true;
        if (inside && later) return true;
    }
    return false;
}

// Which memory each map lives in, and where. Maps that are never needed together share their place.
void Program::place() {
    struct Life {
        int from = INT_MAX, to = -1;
    };
    const int maps = int(places_.size()), count = int(parts_.size());
    std::vector<Life> lives(maps);
    std::vector<int> alias(maps, -1);
    for (int p = 0; p < count; ++p)
        for (int i = parts_[p].first; i < parts_[p].last; ++i)
            for (int map : {net_.ops[i].in, net_.ops[i].out, net_.ops[i].reads_other() ? net_.ops[i].other : -1})
                if (map >= 0) lives[map] = {std::min(lives[map].from, p), std::max(lives[map].to, p)};
    if (keeps_all_)
        for (Life& life : lives) life.to = count;
    for (int p = 0; p < count; ++p)
        for (int i = parts_[p].first; i < parts_[p].last; ++i) {
            const Op& op = net_.ops[i];
            Place& place = places_[op.out];
            if (place.kind != Place::nowhere) continue;
            if (op.kind == OpKind::output) {
                place.kind = Place::callers;
            } else if (op.kind == OpKind::mean) {
                place.kind = i + 1 == int(net_.ops.size()) ? Place::pooled : Place::replicated;
            } else if (op.kind == OpKind::input || (parts_[p].by_row && op.kind != OpKind::sum &&
                                                    lives[op.out].from == p && lives[op.out].to == p)) {
                place.kind = Place::ring;
            } else {
                place.kind = Place::shared;
            }
            if (op.kind == OpKind::scale && !parts_[p].by_row && lives[op.in].to == p)
                alias[op.out] = op.in;  // in place
            if (op.kind == OpKind::sum && parts_[p].by_row) sum_slots_[op.out] = threads_;
        }
    for (const Part& part : parts_)
        if (part.by_row)
            for (int t = 0; t < threads_; ++t) grow_rings(part, row_order(part, t));

    for (int map = 0; map < maps; ++map)
        if (alias[map] >= 0) lives[alias[map]].to = std::max(lives[alias[map]].to, lives[map].to);
    struct Taken {
        std::size_t from, to;
        Life life;
    };
    std::vector<Taken> taken;
    std::vector<std::size_t> own(count, 0);
    for (int map = 0; map < maps; ++map) {
        Place& place = places_[map];
        if (place.kind == Place::shared && alias[map] < 0) {
            const std::size_t slots = std::max(sum_slots_[map], 1);
            const std::size_t size = (slots * images_ * place.height * pitch_bytes(map) + 127) / 64 * 64;
            std::sort(taken.begin(), taken.end(), [](const Taken& a, const Taken& b) { return a.from < b.from; });
            std::size_t at = 0;
            for (const Taken& other : taken)
                if (other.life.from <= lives[map].to && lives[map].from <= other.life.to && other.from < at + size)
                    at = std::max(at, other.to);
            place.offset = at;
            taken.push_back({at, at + size, lives[map]});
            shared_size_ = std::max(shared_size_, at + size);
        } else if (place.kind == Place::ring || place.kind == Place::replicated) {
            const std::size_t rows = place.kind == Place::ring ? place.rows : images_;
            place.offset = own[lives[map].from];
            own[lives[map].from] += (rows * pitch_bytes(map) + 127) / 64 * 64;
            own_size_ = std::max(own_size_, own[lives[map].from]);
        }
    }
    for (int map = 0; map < maps; ++map)
        if (alias[map] >= 0) places_[map].offset = places_[alias[map]].offset;
}

double Program::map_bytes(const Op& op) const {
    double bytes = 0;
    for (const int map : {op.in, op.out, op.reads_other() ? op.other : -1})
        if (map >= 0) {
            const Place& place = places_[map];
            const double channels =
                op.kind == OpKind::gemm && map == op.in ? op.segments * net_.layouts[map].padded() : op.channels;
            bytes += channels * place.height * place.width * size_of(type(map));
        }
    return bytes * images_;
}

int Program::row_count(const Op& op) const { return places_[op.kind == OpKind::sum ? op.in : op.out].height; }

bool Program::is_sink(const Op& op) const { return op.kind == OpKind::sum || places_[op.out].kind != Place::ring; }

}  // namespace ghostnets
