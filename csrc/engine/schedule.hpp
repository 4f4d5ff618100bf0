// A schedule: a network's operations for a number of images of one size and a number of threads, laid out in time and
// memory. The planner makes it, the executor runs it; it does not change in between.
//
// The work is cut into phases, one after the other, and each phase into one share for each thread: a list of items that
// run in order. Whichever thread runs a share (ThreadPool), it uses the share's own memory, and the result has the same
// bits. A phase ends with a fusion group, and before data is read that another share wrote. Large maps are cut into
// rows: an item is one row of one operation, and a share runs down its part of the image through all operations of a
// fusion group, so that a row is used while it is in the cache (a ring of a few rows is all that is stored of the maps
// in between; at the border of two shares both threads compute the few rows they need). Small maps are cut by channels:
// a thread computes some intrinsic maps and everything that depends on these alone.
#pragma once

#include <cstddef>
#include <vector>

namespace ghostnets {

enum class WorkKind {
    rows,  // `rows` output rows of one image
    whole_rows,  // rows of all images, one after the other, of `count` channels (gemm: vectors) from `first` on
    pixels,  // gemm: `pixels` pixels of all images, of `count` vectors from `first` on
};

struct WorkItem {
    WorkKind kind;
    int op = -1;
    int image = 0;  // rows
    int first_row = 0, rows = 0;
    int first = 0, count = 0;
    int first_pixel = 0, pixels = 0;
};

enum class MemoryKind {
    none,
    shared,  // whole map, for all threads
    ring,  // the latest rows, for each share
    replicated,  // one pixel an image, for each share
    pooled,  // features of all images, input of the head
    caller,  // an output array
};

// Shape of a map, and the memory it is stored in.
struct Allocation {
    MemoryKind kind = MemoryKind::none;
    int height = 0, width = 0;
    int rows = 0;  // of a ring
    std::ptrdiff_t stride = 0, pitch = 0;  // values of a pixel and of a row
    std::size_t offset = 0;  // in bytes, in the shared or in the share's memory
};

// Memory that a run needs, in bytes; pointers are counted.
struct MemorySizes {
    std::size_t shared = 0, own = 0, zeros = 0, pointers = 0;
};

struct Schedule {
    int images = 0, threads = 1;
    std::vector<Allocation> allocations;  // of each map
    std::vector<int> sum_slots;  // of each map: of sums, one for each row, so that they do not depend on the shares
    std::vector<std::vector<WorkItem>> items;  // of each share, phase after phase
    std::vector<std::vector<std::size_t>> phase_starts;  // of each share: first item of each phase, and the end
    int phases() const { return int(phase_starts[0].size()) - 1; }
    // For each map that is resized or average-pooled: the input column of each output column (nearest), both columns
    // (bilinear), or the first column and the end (pooling); and, for bilinear, the weight of the second column.
    std::vector<std::vector<int>> source_columns;
    std::vector<std::vector<float>> column_weights;
    std::vector<float> scale_row, shift_row;  // normalisation of a row of bytes
    MemorySizes memory;
};

// Index of the first of `count` items in the share of `thread`; the share ends where that of the next thread begins.
inline int share(int count, int thread, int threads) { return int(long(count) * thread / threads); }

// Nearest neighbour, as in torch.nn.functional.interpolate: the input pixel of output pixel `index`.
inline int nearest(int index, int in_size, int out_size) {
    const int source = int(float(index) * (float(in_size) / float(out_size)));
    return source < in_size ? source : in_size - 1;
}

// Bilinear interpolation, as in torch: the two input pixels of output pixel `index`, and the weight of the second.
struct Between {
    int first, second;
    float weight;
};
inline Between between(int index, int in_size, int out_size, bool aligns_corners) {
    float source = 0;
    if (!aligns_corners) source = (float(index) + 0.5f) * (float(in_size) / float(out_size)) - 0.5f;
    else if (out_size > 1) source = float(index) * (float(in_size - 1) / float(out_size - 1));
    if (source < 0) source = 0;
    const int first = int(source) < in_size ? int(source) : in_size - 1;
    return {first, first + 1 < in_size ? first + 1 : first, source - float(first)};
}

// The first pixel and the end of the window of adaptive pooling for output pixel `index`.
struct Interval {
    int first, end;
};
inline Interval adaptive_window(int index, int in_size, int out_size) {
    const long first = long(index) * in_size / out_size, end = (long(index + 1) * in_size + out_size - 1) / out_size;
    return {int(first), int(end)};
}

}  // namespace ghostnets
