// A program: a network's operations for so many images of one size and so many threads, laid out in time and memory.
//
// Each thread has a list of items and runs them in order; between parts, and wherever data crosses from one thread to
// another, stands a barrier. Large maps are cut into rows: an item is one row of one operation, and each thread runs
// down its share of the image through all operations of a part, so that a row is used while it is in the cache (a ring
// of a few rows is all that is kept of the maps in between; at the border of two shares both compute the few rows they
// need). Small maps are cut by channels: a thread computes some intrinsic maps and everything that follows from these
// alone.
#pragma once

#include <vector>

#include "engine/network.hpp"

namespace ghostnets {

struct Item {
    int op;  // -1: a barrier
    int image = 0;              // row items
    int first_row = 0, rows = 0;  // of one image; of all images one after the other where the map is whole
    int first = 0, count = 0;     // dense: vectors; others: channels
    int first_pixel = 0, pixels = 0;  // dense of whole maps
    bool by_row = false;
    bool starts_sum = false;
    int slot = 0;  // sum: whose share it is
};

struct Place {
    enum Kind { nowhere, shared, ring, replicated, pooled, callers } kind = nowhere;
    int height = 0, width = 0;
    int rows = 0;                  // of a ring
    std::ptrdiff_t stride = 0, pitch = 0;  // values of a pixel and of a row
    std::size_t offset = 0;        // in bytes, in the shared or in the thread's memory
};

// What a thread needs beside the program itself.
struct Memory {
    std::byte* shared;      // one for all threads of the program
    std::byte* own;         // one for each thread
    const std::byte* zeros;
    const void** pointers;
    std::byte* pooled;      // [image][features], where the mean over all pixels goes
    float* const* outputs;  // maps of all images, where maps are the result
    int first_image;        // of the program among them
};

struct Images {
    const void* data;
    bool bytes;  // uint8 (N, H, W, C), else float (N, C, H, W)
};

// Where thread `thread` of `threads` begins among `count` things; the next one's begin is its end.
inline int share(int count, int thread, int threads) { return int(long(count) * thread / threads); }

// Nearest neighbour, as torch.nn.functional.interpolate has it: the pixel of `from` that pixel `index` of `to` shows.
inline int nearest(int index, int from, int to) {
    const int source = int(float(index) * (float(from) / float(to)));
    return source < from ? source : from - 1;
}

class Program {
public:
    // keeps_all: nothing is fused and no map shares its memory with another, so that all can be looked at afterwards.
    Program(const Network& network, int images, int height, int width, int threads, bool keeps_all = false);

    // Runs one thread's items; `wait` is the barrier. All threads of the program must run. `done` hears the operation
    // of each item after it, -1 after a barrier.
    template <class Wait, class Done>
    void run(const Memory& memory, const Images& images, int thread, Wait&& wait, Done&& done) const {
        for (const Item& item : items_[thread]) {
            if (item.op < 0) {
                wait();
            } else {
                run(memory, images, item);
            }
            done(item.op);
        }
    }

    int images() const { return images_; }

    // Bytes that an operation reads and writes, without weights, and its multiply-adds, for all images of the program.
    double map_bytes(const Op& op) const;
    double macs(const Op& op) const { return op.macs * images_ * places_[op.out].height * places_[op.out].width; }

    // (height, width) of a map that the caller gets.
    std::pair<int, int> output_size(int index) const {
        const Place& place = places_[net_.outputs[index].map];
        return {place.height, place.width};
    }

    // The values of a map that was kept, (pixels of all images, segments * channels); none of any other.
    std::vector<float> values(const Memory& memory, int map) const;

    // In bytes; pointers are counted.
    std::size_t shared_size() const { return shared_size_; }
    std::size_t own_size() const { return own_size_; }
    std::size_t zeros_size() const { return zeros_size_; }
    std::size_t pointers_size() const { return pointers_size_; }

private:
    struct Part {
        int first, last;  // operations
        bool by_row;
    };
    struct Need {
        int writer;  // operation
        int low, high;  // rows
    };
    struct RowItem {
        int op, row, rows;
    };

    // program.cpp
    void measure();
    void find_parts();
    bool keeps_what_it_reads(int first, int last) const;
    void place();
    void barrier();

    // rows.cpp
    void plan_rows(const Part& part);
    std::vector<RowItem> row_order(const Part& part, int thread) const;
    std::vector<Need> needs(const Part& part, int op, int row) const;
    int row_count(const Op& op) const;
    bool is_sink(const Op& op) const;
    void grow_rings(const Part& part, const std::vector<RowItem>& order);

    // whole.cpp
    void plan_whole(const Part& part);

    // execute.cpp
    void run(const Memory& memory, const Images& images, const Item& item) const;
    void run_input(const Memory& memory, const Images& images, const Op& op, int image, int row) const;
    void run_gemm_row(const Memory& memory, const Images& images, const Op& op, int image, int row) const;
    void run_gemm_block(const Memory& memory, const Op& op, const Item& item) const;
    void run_gemm_rows(const Memory& memory, const Op& op, const Item& item) const;
    void point_at(const Memory& memory, const Op& op, int image, int row) const;
    void run_output(const Memory& memory, const Op& op, int image, int row) const;
    void run_rows(const Memory& memory, const Op& op, int image, int row, int rows, int first, int count) const;
    void run_sum(const Memory& memory, const Op& op, const Item& item) const;
    void run_mean(const Memory& memory, const Op& op) const;
    std::byte* pixels(const Memory& memory, int map, int image, int row, std::ptrdiff_t offset = 0) const;
    Type type(int map) const { return net_.layouts[map].type; }
    std::size_t pitch_bytes(int map) const { return places_[map].pitch * size_of(type(map)); }

    const Network& net_;
    const int images_, threads_;
    const bool keeps_all_;
    std::vector<Place> places_;   // of each map
    std::vector<Part> parts_;
    std::vector<int> sum_slots_;  // of each map: how many shares its sums come in
    std::vector<std::vector<Item>> items_;  // of each thread
    std::vector<std::vector<int>> upsample_columns_;  // of each map that a gate is enlarged to: which column is shown
    std::vector<float> scale_row_, shift_row_;
    std::size_t shared_size_ = 0, own_size_ = 0, zeros_size_ = 0, pointers_size_ = 0;
};

}  // namespace ghostnets
