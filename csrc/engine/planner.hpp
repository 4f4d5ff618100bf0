// Makes a schedule: infers shapes, partitions operations into fusion groups, allocates memory and emits work items.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/network.hpp"
#include "engine/schedule.hpp"

namespace ghostnets {

class Planner {
public:
    // keeps_all: nothing is fused and no map shares memory with another, so that all can be read after a run.
    Planner(const Network& network, int images, int height, int width, int threads, bool keeps_all = false);

    Schedule make();

private:
    // Consecutive operations that run together, by rows or over whole maps.
    struct FusionGroup {
        int first, last;  // operations; last is excluded
        bool by_row;
    };
    // Rows low to high (included) of an operation.
    struct RowRange {
        int writer, low, high;
    };
    // Rows of an operation that are computed at a time.
    struct RowStep {
        int op, row, rows;
    };
    // First and last fusion group that uses a map.
    struct Lifetime {
        int from, to;
    };
    // How an operation over whole maps is split among the threads.
    enum class Split { none, channels, rows };

    // shapes.cpp
    void infer_shapes();
    void infer_shape(const Op& op);
    void infer_size(const Op& op);
    void find_columns(const Op& op);
    std::pair<std::int64_t, std::int64_t> resized(const Op& op) const;
    double pixels_read(const Op& op) const;
    void check_shape(const Op& op, const Allocation& out) const;
    void check_work() const;

    // planner.cpp
    void partition();
    bool runs_by_row(int first, int last) const;
    bool keeps_what_it_reads(int first, int last) const;
    void end_phase();
    void emit(int thread, const WorkItem& item) { schedule_.items[thread].push_back(item); }

    // allocate.cpp
    void allocate();
    bool is_only_scaled(const FusionGroup& group, int op) const;
    std::vector<Lifetime> lifetimes() const;
    MemoryKind memory_kind(int group, int op, const Lifetime& lifetime) const;
    void place(const std::vector<Lifetime>& lifetimes, const std::vector<int>& aliases);
    void check_memory() const;

    // plan_rows.cpp
    void plan_rows(const FusionGroup& group);
    std::vector<RowStep> row_order(const FusionGroup& group, int thread) const;
    void row_bounds(const FusionGroup& group, int thread, std::vector<int>& low, std::vector<int>& high) const;
    std::vector<RowRange> dependencies(const FusionGroup& group, int op, int row) const;
    RowRange rows_read(const Op& op, int row) const;
    int row_count(const Op& op) const;
    bool is_sink(const Op& op) const;
    void grow_ring(const FusionGroup& group, int map, const std::vector<RowStep>& order);

    // plan_whole.cpp
    void plan_whole(const FusionGroup& group);
    Split split_of(const FusionGroup& group, int op, const std::vector<Split>& splits) const;
    bool crosses_threads(int first, int op, const std::vector<Split>& splits) const;
    void emit_whole(int op, Split split, int thread);
    void emit_gemm(int op, Split split, int thread);

    // The images, for an error message.
    std::string describe_images() const;
    double pixels() const;
    Type type(int map) const { return net_.layouts[map].type; }
    std::size_t pitch_bytes(int map) const { return schedule_.allocations[map].pitch * size_of(type(map)); }

    const Network& net_;
    const int images_, threads_;
    const bool keeps_all_;
    std::vector<FusionGroup> groups_;
    Schedule schedule_;
};

}  // namespace ghostnets
