#include "program.hpp"

#include <algorithm>
#include <climits>
#include <cmath>

namespace ghostnets {

namespace {

// A part whose largest map takes more floats than this for each thread, and is this wide, runs by rows.
constexpr long kRowModeFloats = 64 * 1024;
constexpr int kRowModeWidth = 24;

// How evenly whole vectors must fall to the threads for a convolution to be shared out by channels.
constexpr double kEvenEnough = 0.9;

int share(int count, int thread, int threads) { return int(long(count) * thread / threads); }

// Whether `other` is read, or only there for its size.
bool reads_other(const Op& op) { return op.combine != Combine::none; }

bool overlap(int a, int a_size, int b, int b_size) { return a < b + b_size && b < a + a_size; }

}  // namespace

Program::Program(const Network& network, int images, int height, int width, int threads)
    : net_(network), images_(images), threads_(threads), places_(network.layouts.size()),
      sum_slots_(network.layouts.size(), 1), items_(threads) {
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
            zeros_size_ = out.pitch;
            continue;
        }
        const Place& like = places_[op.kind == OpKind::enlarge ? op.other : op.in];
        out.height = Network::out_size(op, like.height, true);
        out.width = Network::out_size(op, like.width, false);
        out.stride = net_.layouts[op.out].stride();
        out.pitch = out.stride * out.width;
    }
    std::size_t segments = 1;
    for (const Op& op : net_.ops) {
        segments = std::max<std::size_t>(segments, op.is_stem ? op.kernel_h * net_.in_channels : op.kernel_h + 1);
        if (op.kind == OpKind::dense) segments = std::max<std::size_t>(segments, net_.layouts[op.in].segments);
    }
    pointers_size_ = segments;
}

// Consecutive operations that run in the same way. A part ends where the plan says so.
void Program::find_parts() {
    const int count = int(net_.ops.size());
    for (int first = 0, last; first < count; first = last) {
        last = first + 1;
        while (last < count && !net_.ops[last].starts_part) ++last;
        bool by_row = false;
        for (int i = first; i < last; ++i) {
            const Place& out = places_[net_.ops[i].out];
            const long floats = long(out.height) * out.pitch;
            by_row |= net_.ops[i].kind == OpKind::input || (floats > kRowModeFloats * threads_ && out.width >= kRowModeWidth);
        }
        parts_.push_back({first, last, by_row});
    }
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
            for (int map : {net_.ops[i].in, net_.ops[i].out, reads_other(net_.ops[i]) ? net_.ops[i].other : -1})
                if (map >= 0) lives[map] = {std::min(lives[map].from, p), std::max(lives[map].to, p)};
    for (int p = 0; p < count; ++p)
        for (int i = parts_[p].first; i < parts_[p].last; ++i) {
            const Op& op = net_.ops[i];
            Place& place = places_[op.out];
            if (place.kind != Place::nowhere) continue;
            if (op.kind == OpKind::mean) {
                place.kind = i + 1 == int(net_.ops.size()) ? Place::pooled : Place::replicated;
            } else if (parts_[p].by_row && op.kind != OpKind::sum && lives[op.out].from == p && lives[op.out].to == p) {
                place.kind = Place::ring;
            } else {
                place.kind = Place::shared;
            }
            if (op.kind == OpKind::scale && !parts_[p].by_row && lives[op.in].to == p) alias[op.out] = op.in;  // in place
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
            const std::size_t size = (slots * images_ * place.height * place.pitch + 31) / 16 * 16;
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
            own[lives[map].from] += (rows * place.pitch + 31) / 16 * 16;
            own_size_ = std::max(own_size_, own[lives[map].from]);
        }
    }
    for (int map = 0; map < maps; ++map)
        if (alias[map] >= 0) places_[map].offset = places_[alias[map]].offset;
}

int Program::row_count(const Op& op) const { return places_[op.kind == OpKind::sum ? op.in : op.out].height; }

bool Program::is_sink(const Part&, const Op& op) const {
    return op.kind == OpKind::sum || places_[op.out].kind != Place::ring;
}

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
            case OpKind::dense: {
                const int low = row * op.stride - op.pad_h();
                add(op.in, 0, INT_MAX / 2, low, low + op.dilation_h * (op.kernel_h - 1));
                break;
            }
            case OpKind::depthwise: {
                const int low = row * op.stride - op.pad_h();
                add(op.in, op.in_offset, op.channels, low, low + op.dilation_h * (op.kernel_h - 1));
                break;
            }
            case OpKind::average: add(op.in, op.in_offset, op.channels, 2 * row, 2 * row + std::min(2, height) - 1); break;
            case OpKind::enlarge: {
                const int from = nearest(row, height, places_[op.out].height);
                add(op.in, op.in_offset, op.channels, from, from);
                break;
            }
            default: add(op.in, op.in_offset, op.channels, row, row);
        }
    }
    if (op.kind != OpKind::scale && reads_other(op)) add(op.other, op.other_offset, op.channels, row, row);
    return found;
}

// The rows that a thread computes in a part, each operation as late as its readers allow.
std::vector<Program::RowItem> Program::row_order(const Part& part, int thread) const {
    const int count = part.last - part.first;
    std::vector<int> low(count, INT_MAX), high(count, -1);
    for (int i = count - 1; i >= 0; --i) {
        const Op& op = net_.ops[part.first + i];
        if (is_sink(part, op)) {
            const int rows = row_count(op), from = share(rows, thread, threads_), to = share(rows, thread + 1, threads_);
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
            if (is_sink(part, net_.ops[part.first + i]) && low[i] <= row && row <= high[i]) produce(produce, part.first + i, row);
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
        if (op.kind == OpKind::dense) {
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
        }
        cuts[index] = cut;
        bool crosses = false;
        for (int i = fresh; i < index; ++i) {
            const Op& writer = net_.ops[i];
            if (writer.out != op.in && !(reads_other(op) && writer.out == op.other)) continue;
            if (writer.kind == OpKind::mean) continue;  // each thread has its own
            const bool same_channels = cut == Cut::channels && cuts[i] == Cut::channels && op.kind != OpKind::dense &&
                                       writer.channels == op.channels;
            crosses |= !same_channels;
        }
        if (crosses) {
            barrier();
            fresh = index;
        }
        const int rows = images_ * (op.kind == OpKind::sum ? places_[op.in].height : out.height);
        for (int t = 0; t < threads_; ++t) {
            const auto emit = [&](int first, int count, int first_pixel, int pixel_count, int first_row, int row_count) {
                if (count <= 0 || (op.kind == OpKind::dense && pixel_count <= 0)) return;
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
            } else if (op.kind == OpKind::dense && cut == Cut::channels) {
                const int from = share(op.vectors, t, threads_), to = share(op.vectors, t + 1, threads_);
                emit(from, to - from, 0, pixels, 0, 0);
            } else if (op.kind == OpKind::dense) {
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
