// A network ready to run: its weights, its threads, its memory, and a program for every shape it has seen lately.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "common/thread_pool.hpp"
#include "engine/network.hpp"
#include "engine/planner.hpp"
#include "engine/profile.hpp"

namespace ghostnets {

class Session {
public:
    Session(const PlanSource& plan, const Kernels& kernels, int threads);
    // Beside another one, on the same weights.
    Session(const Session& other, int threads);

    // images -> the outputs of the network: a vector for each image, or maps (count, channels, H', W'); C order. Calls
    // from several threads take turns.
    void run(const Images& images, int count, int height, int width, const std::vector<float*>& outputs);

    // As `run`, with the time of every node; the last row, "waiting", is the time at barriers. A clock at every row of
    // an operation costs some per cent.
    std::vector<NodeProfile> profile(const Images& images, int count, int height, int width,
                                     const std::vector<float*>& outputs);

    // Height and width of each output for images of this size; of a vector 1 and 1.
    std::vector<std::pair<int, int>> output_sizes(int count, int height, int width);

    // Runs one image through a float32 network and returns the values of every map, (pixels, segments * channels), by
    // its index; nothing for the images and for what squeeze-and-excitation squeezes. For sessions of one thread.
    std::vector<std::vector<float>> observe(const Images& images, int height, int width);

    const Network& network() const { return *network_; }
    int threads() const { return pool_.size(); }

private:
    // How a batch is cut: each thread takes images of its own, a few at a time; all work together on those left over.
    struct Piece {
        const Program* program;
        int image;
    };
    struct Schedule {
        std::vector<std::unique_ptr<Program>> programs;
        std::vector<std::vector<Piece>> alone;  // of each thread
        std::vector<Piece> together;
        std::size_t shared_alone = 0, shared_together = 0, own = 0, zeros = 0, pointers = 0;
    };
    using Shape = std::tuple<int, int, int>;

    Schedule& schedule(int count, int height, int width);
    void reserve(const Schedule& schedule, int count);
    template <class Done>
    void run_all(const Schedule& plan, const Images& images, int count, int height, int width,
                 const std::vector<float*>& outputs, const Done& done);
    template <class Done>
    void run_head(int thread, int count, const Done& done);
    void copy_vectors(int count, float* to) const;

    const std::shared_ptr<const Network> network_;
    ThreadPool pool_;
    std::mutex turn_;
    std::list<std::pair<Shape, Schedule>> schedules_;  // the latest first
    std::size_t size_alone_ = 0, size_together_ = 0, size_own_ = 0, size_zeros_ = 0, size_pointers_ = 0, size_head_ = 0;
    std::vector<Buffer> alone_, own_;  // of each thread
    Buffer together_, zeros_, pooled_;
    std::vector<Buffer> head_;         // outputs of each linear layer
    std::vector<std::vector<const void*>> pointers_;
};

}  // namespace ghostnets
