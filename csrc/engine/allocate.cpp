// Memory of each map: its kind and offset. Maps that are never alive together share memory.
#include <algorithm>
#include <climits>
#include <stdexcept>
#include <string>

#include "engine/planner.hpp"

namespace ghostnets {

namespace {

// Bound of the bytes of a run, some times those of any network: for the images as a whole and for each of their pixels.
constexpr double kMemory = 256e6, kMemoryOfPixel = 16e3;

// Whole cache lines, and one between two maps.
std::size_t aligned(std::size_t bytes) { return (bytes + 127) / 64 * 64; }

}  // namespace

void Planner::allocate() {
    std::vector<Lifetime> lives = lifetimes();
    std::vector<int> aliases(lives.size(), -1);
    for (int g = 0; g < int(groups_.size()); ++g)
        for (int i = groups_[g].first; i < groups_[g].last; ++i) {
            const Op& op = net_.ops[i];
            Allocation& allocation = schedule_.allocations[op.out];
            if (allocation.kind != MemoryKind::none) continue;
            allocation.kind = memory_kind(g, i, lives[op.out]);
            if (op.kind == OpKind::scale && !groups_[g].by_row && lives[op.in].to == g && is_only_scaled(groups_[g], i))
                aliases[op.out] = aliases[op.in] >= 0 ? aliases[op.in] : op.in;  // in place
            if (op.kind == OpKind::sum) schedule_.sum_slots[op.out] = schedule_.allocations[op.in].height;
        }
    for (const FusionGroup& group : groups_) {
        if (!group.by_row) continue;
        for (int thread = 0; thread < threads_; ++thread) {
            const std::vector<RowStep> order = row_order(group, thread);
            for (int map = 0; map < int(lives.size()); ++map)
                if (schedule_.allocations[map].kind == MemoryKind::ring) grow_ring(group, map, order);
        }
    }
    for (std::size_t map = 0; map < lives.size(); ++map)
        if (aliases[map] >= 0) lives[aliases[map]].to = std::max(lives[aliases[map]].to, lives[map].to);
    place(lives, aliases);
    if (!keeps_all_) check_memory();  // else all maps are wanted, whatever they take
}

// Rejects images for which a run would take more memory than any network needs. Reached before memory is allocated.
void Planner::check_memory() const {
    const double bytes = double(schedule_.memory.shared) + double(threads_) * schedule_.memory.own;
    if (bytes > kMemory + kMemoryOfPixel * pixels())
        throw std::length_error("it needs " + std::to_string(std::int64_t(bytes / 1e6)) + " MB for " +
                                describe_images() + ", more than any network of this package");
}

bool Planner::is_only_scaled(const FusionGroup& group, int index) const {
    const Op& scale = net_.ops[index];
    for (int i = group.first; i < group.last; ++i) {
        const Op& op = net_.ops[i];
        if (op.reads(scale.in) && (op.kind != OpKind::scale || op.out != scale.out || op.other == scale.in))
            return false;
    }
    return true;
}

std::vector<Planner::Lifetime> Planner::lifetimes() const {
    std::vector<Lifetime> lives(net_.layouts.size(), Lifetime{INT_MAX, -1});
    for (int g = 0; g < int(groups_.size()); ++g)
        for (int i = groups_[g].first; i < groups_[g].last; ++i) {
            const Op& op = net_.ops[i];
            for (int map : {op.in, op.out, op.reads_other() ? op.other : -1})
                if (map >= 0) lives[map] = {std::min(lives[map].from, g), std::max(lives[map].to, g)};
        }
    if (keeps_all_)
        for (Lifetime& life : lives) life.to = int(groups_.size());
    return lives;
}

MemoryKind Planner::memory_kind(int group, int index, const Lifetime& lifetime) const {
    const Op& op = net_.ops[index];
    if (op.kind == OpKind::output) return MemoryKind::caller;
    if (op.kind == OpKind::mean) return index + 1 == int(net_.ops.size()) ? MemoryKind::pooled : MemoryKind::replicated;
    const bool is_local = lifetime.from == group && lifetime.to == group;
    if (op.kind == OpKind::input || (groups_[group].by_row && op.kind != OpKind::sum && is_local))
        return MemoryKind::ring;
    return MemoryKind::shared;
}

void Planner::place(const std::vector<Lifetime>& lives, const std::vector<int>& aliases) {
    struct Taken {
        std::size_t from, to;
        Lifetime life;
    };
    std::vector<Taken> taken;
    std::vector<std::size_t> own(groups_.size(), 0);
    MemorySizes& sizes = schedule_.memory;
    std::vector<Allocation>& allocations = schedule_.allocations;
    for (int map = 0; map < int(allocations.size()); ++map) {
        Allocation& allocation = allocations[map];
        if (allocation.kind == MemoryKind::shared && aliases[map] < 0) {
            const std::size_t slots = std::max(schedule_.sum_slots[map], 1);
            const std::size_t size = aligned(slots * images_ * allocation.height * pitch_bytes(map));
            std::sort(taken.begin(), taken.end(), [](const Taken& a, const Taken& b) { return a.from < b.from; });
            std::size_t offset = 0;
            for (const Taken& other : taken)
                if (other.life.from <= lives[map].to && lives[map].from <= other.life.to && other.from < offset + size)
                    offset = std::max(offset, other.to);
            allocation.offset = offset;
            taken.push_back({offset, offset + size, lives[map]});
            sizes.shared = std::max(sizes.shared, offset + size);
        } else if (allocation.kind == MemoryKind::ring || allocation.kind == MemoryKind::replicated) {
            const std::size_t rows = allocation.kind == MemoryKind::ring ? allocation.rows : images_;
            std::size_t& used = own[lives[map].from];
            allocation.offset = used;
            used += aligned(rows * pitch_bytes(map));
            sizes.own = std::max(sizes.own, used);
        }
    }
    for (std::size_t map = 0; map < allocations.size(); ++map)
        if (aliases[map] >= 0) allocations[map].offset = allocations[aliases[map]].offset;
}

}  // namespace ghostnets
