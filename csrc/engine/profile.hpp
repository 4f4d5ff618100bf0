// Time, multiply-adds and traffic of a run, by node of the plan.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "engine/network.hpp"
#include "engine/schedule.hpp"

namespace ghostnets {

// Times of the operations of one thread: stop(index) adds the time since the previous start or stop to operation
// `index`.
class StopWatch {
public:
    explicit StopWatch(std::size_t count) : seconds(count) {}
    void start() { last_ = Clock::now(); }
    void stop(std::size_t index) {
        const Clock::time_point now = Clock::now();
        seconds[index] += std::chrono::duration<double>(now - last_).count();
        last_ = now;
    }

    std::vector<double> seconds;

private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point last_;
};

// A node of the plan in one run.
struct NodeProfile {
    std::string name, kind;
    double macs = 0;          // multiply-adds, without padding
    double weight_bytes = 0;  // as packed
    double map_bytes = 0;     // read and written by its operations
    double seconds = 0;       // mean over the threads
};

// Multiply-adds of an operation for all images of a schedule.
double total_macs(const Schedule& schedule, const Op& op);

// Bytes that an operation reads and writes, without weights, for all images of a schedule.
double total_map_bytes(const Network& network, const Schedule& schedule, const Op& op);

}  // namespace ghostnets
