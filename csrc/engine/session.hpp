// A network ready to run: its weights, its threads, its memory, and a batch plan for the latest shapes.
#pragma once

#include <array>
#include <list>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "common/thread_pool.hpp"
#include "engine/executor.hpp"
#include "engine/network.hpp"
#include "engine/profile.hpp"
#include "engine/schedule.hpp"

namespace ghostnets {

// Arrays that a run writes, and the number of values of each, which is checked.
struct Outputs {
    std::vector<float*> data;
    std::vector<std::size_t> sizes;
};

class Session {
public:
    Session(const Plan& plan, const Kernels& kernels, int threads);
    // A session with its own threads and memory that shares the weights of another.
    Session(const Session& other, int threads);
    ~Session();

    // images -> the outputs of the network: a vector for each image, or maps (count, channels, H', W'); C order. Calls
    // from several threads take turns. After an exception (std::bad_alloc, std::length_error for images that are too
    // large) the session is as before.
    void run(const Images& images, int count, int height, int width, const Outputs& outputs);

    // As `run`, with the time of every node; the last row, "waiting", is the time between shares. Reading the clock at
    // every item costs some per cent.
    std::vector<NodeProfile> profile(const Images& images, int count, int height, int width, const Outputs& outputs);

    // Height and width of each output for images of this size; 1 and 1 for a vector.
    std::vector<std::pair<int, int>> output_sizes(int count, int height, int width);

    // Runs one image through a float32 network and returns the values of every map, (pixels, segments * channels), by
    // its index; empty for the images and inside squeeze-and-excitation. For sessions of one thread.
    std::vector<std::vector<float>> observe(const Images& images, int height, int width);

    // Bytes of maps that are reserved. A buffer set that is more than kKeptFactor times what the latest kRecentCalls
    // calls needed, and more than kKeptBytes, is given back.
    std::size_t memory_bytes();

    // To be called first in every process that may be a forked child, by one thread at a time: a child has a copy of
    // the memory, perhaps in the middle of a run, but none of the threads. It continues with threads, memory and
    // schedules of its own on the same weights.
    void adopt_after_fork();

    const Network& network() const { return *network_; }
    int threads() const { return threads_; }

private:
    static constexpr std::size_t kRecentCalls = 16, kKeptFactor = 4, kKeptBytes = std::size_t(64) << 20;

    // Some images of a batch that one schedule runs.
    struct SubBatch {
        const Schedule* schedule;
        int first_image;
    };
    // How a batch is split: each thread runs its own images, a few at a time; all work together on the remainder.
    struct BatchPlan {
        std::vector<std::unique_ptr<const Schedule>> schedules;
        std::vector<std::vector<SubBatch>> separate;  // of each share
        std::vector<SubBatch> joint;  // at most one
        MemorySizes memory;             // of the separate schedules
        std::size_t joint_shared = 0;  // shared memory of the joint ones
    };
    using Shape = std::tuple<int, int, int>;

    const BatchPlan& batch_plan(int count, int height, int width);
    BatchPlan make_batch_plan(int count, int height, int width) const;
    void reserve(const MemorySizes& sizes, std::size_t joint_shared, int count);
    template <class Done>
    void run_batch(const BatchPlan& batch, const Images& images, int count, int height, int width,
                   const std::vector<float*>& outputs, const Done& done);
    void run_head(int layer, int share, int count);
    void copy_vectors(int count, float* to) const;

    // Sizes of what is reserved, or needed.
    struct Needs {
        MemorySizes sizes;
        std::size_t joint = 0, images = 0;
        void include(const Needs& other);
    };
    // All that a run changes.
    struct State {
        explicit State(int threads) : pool(threads), pointers(threads) {}
        ThreadPool pool;
        std::mutex turn;
        std::list<std::pair<Shape, BatchPlan>> batch_plans;  // the latest first
        Needs reserved;
        std::array<Needs, kRecentCalls> recent;
        std::size_t calls = 0;
        std::vector<Buffer> separate, own;  // of each share
        Buffer joint, zeros, pooled;
        std::vector<Buffer> head;  // outputs of each linear layer
        std::vector<std::vector<const void*>> pointers;
    };

    std::size_t bytes_of(const Needs& needs) const;
    void give_back(const Needs& needed);
    void reserve_images(std::size_t count);
    void check_outputs(const BatchPlan& batch, int count, const std::vector<std::size_t>& sizes) const;

    const std::shared_ptr<const Network> network_;
    const int threads_;
    std::unique_ptr<State> state_;
};

}  // namespace ghostnets
