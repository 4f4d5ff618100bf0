// Runs a schedule: resolves maps, rows and channels to pointers and calls the kernels.
#pragma once

#include <vector>

#include "engine/network.hpp"
#include "engine/schedule.hpp"

namespace ghostnets {

// Memory of one share for one run of a schedule.
struct Workspace {
    std::byte* shared;  // one for all shares of the schedule
    std::byte* own;     // one for each share
    const std::byte* zeros;
    const void** pointers;
    std::byte* pooled;       // [image][features], output of the mean over all pixels
    float* const* outputs;   // maps of all images, if maps are the result
    int first_image;         // index of the schedule's first image in the batch
};

struct Images {
    const void* data;
    bool bytes;  // uint8 (N, H, W, C), otherwise float (N, C, H, W)
};

class Executor {
public:
    Executor(const Network& network, const Schedule& schedule, const Workspace& workspace, const Images& images)
        : net_(network), schedule_(schedule), workspace_(workspace), images_(images) {}

    // Runs the items of a share in a phase. `done` is called after each item with its operation.
    template <class Done>
    void run(int share, int phase, Done&& done) const {
        const std::vector<std::size_t>& starts = schedule_.phase_starts[share];
        for (std::size_t i = starts[phase]; i < starts[phase + 1]; ++i) {
            run(schedule_.items[share][i]);
            done(schedule_.items[share][i].op);
        }
    }

    // The values of a float32 map after a run that keeps all maps, (pixels of all images, segments * channels); empty
    // for any other map.
    std::vector<float> values(int map) const;

private:
    void run(const WorkItem& item) const;
    void run_item_rows(const Op& op, const WorkItem& item) const;
    void run_whole_rows(const Op& op, const WorkItem& item) const;

    // Rows of one image, `count` channels from `first` on.
    struct RowTask {
        int image, row, rows, first, count;
    };
    void run_rows(const Op& op, const RowTask& rows) const;
    void run_depthwise(const Op& op, const RowTask& rows) const;
    void run_binary(const Op& op, const RowTask& rows) const;
    void run_convert(const Op& op, const RowTask& rows) const;
    void run_late_activation(const Op& op, std::byte* values, int pixels, int channels) const;
    void run_input(const Op& op, int image, int row) const;

    // run_maps.cpp
    void run_average_pool(const Op& op, const RowTask& rows) const;
    void run_window_average(const Op& op, const RowTask& rows) const;
    void run_max_pool(const Op& op, const RowTask& rows) const;
    void run_pad(const Op& op, const RowTask& rows) const;
    void run_upsample(const Op& op, const RowTask& rows) const;
    void run_bilinear(const Op& op, const RowTask& rows) const;
    void run_arrange(const Op& op, const RowTask& rows) const;
    void run_output(const Op& op, int image, int row) const;

    // run_gemm.cpp
    void run_gemm_row(const Op& op, int image, int row) const;
    void run_gemm_rows(const Op& op, const WorkItem& item) const;
    void run_gemm_block(const Op& op, const WorkItem& item) const;
    void point_at_stem(const Op& op, int image, int row, GemmTask& task) const;
    void point_at_taps(const Op& op, int image, int row) const;

    void run_sums(const Op& op, const WorkItem& item) const;
    void run_mean(const Op& op) const;

    const Allocation& at(int map) const { return schedule_.allocations[map]; }
    Type type(int map) const { return net_.layouts[map].type; }
    std::byte* pixels(int map, int image, int row, std::ptrdiff_t offset = 0) const;
    void sum_row(const Op& op, int image, int row, int first, int count) const;
    void point_at_rows(const Op& op, const RowTask& rows, int count, int step) const;

    const Network& net_;
    const Schedule& schedule_;
    const Workspace& workspace_;
    const Images& images_;
};

}  // namespace ghostnets
