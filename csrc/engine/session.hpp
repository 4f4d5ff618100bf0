// A network ready to run: its weights, its threads, its memory, and a batch plan for the latest shapes.
#pragma once

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

class Session {
public:
    Session(const Plan& plan, const Kernels& kernels, int threads);
    // A session with threads and memory of its own on the weights of another one.
    Session(const Session& other, int threads);

    // images -> the outputs of the network: a vector for each image, or maps (count, channels, H', W'); C order. Calls
    // from several threads take turns.
    void run(const Images& images, int count, int height, int width, const std::vector<float*>& outputs);

    // As `run`, with the time of every node; the last row, "waiting", is the time at barriers. Reading the clock at
    // every item costs some per cent.
    std::vector<NodeProfile> profile(const Images& images, int count, int height, int width,
                                     const std::vector<float*>& outputs);

    // Height and width of each output for images of this size; 1 and 1 for a vector.
    std::vector<std::pair<int, int>> output_sizes(int count, int height, int width);

    // Runs one image through a float32 network and returns the values of every map, (pixels, segments * channels), by
    // its index; empty for the images and inside squeeze-and-excitation. For sessions of one thread.
    std::vector<std::vector<float>> observe(const Images& images, int height, int width);

    const Network& network() const { return *network_; }
    int threads() const { return pool_.size(); }

private:
    // Some images of a batch that one schedule runs.
    struct SubBatch {
        const Schedule* schedule;
        int first_image;
    };
    // How a batch is split: each thread runs images of its own, a few at a time; all work together on the remainder.
    struct BatchPlan {
        std::vector<std::unique_ptr<const Schedule>> schedules;
        std::vector<std::vector<SubBatch>> separate;  // of each thread
        std::vector<SubBatch> joint;
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
    template <class Done>
    void run_head(int thread, int count, const Done& done);
    void copy_vectors(int count, float* to) const;

    const std::shared_ptr<const Network> network_;
    ThreadPool pool_;
    std::mutex turn_;
    std::list<std::pair<Shape, BatchPlan>> batch_plans_;  // the latest first
    MemorySizes reserved_;
    std::size_t reserved_joint_ = 0, reserved_images_ = 0;
    std::vector<Buffer> separate_, own_;  // of each thread
    Buffer joint_, zeros_, pooled_;
    std::vector<Buffer> head_;  // outputs of each linear layer
    std::vector<std::vector<const void*>> pointers_;
};

}  // namespace ghostnets
