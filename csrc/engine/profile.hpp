// Where the time of a run goes, node by node of the plan.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace ghostnets {

// Of one thread: the time since the last stop goes to what has just been done.
class StopWatch {
public:
    explicit StopWatch(std::size_t things) : seconds(things) {}
    void start() { last_ = Clock::now(); }
    void stop(std::size_t thing) {
        const Clock::time_point now = Clock::now();
        seconds[thing] += std::chrono::duration<double>(now - last_).count();
        last_ = now;
    }

    std::vector<double> seconds;

private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point last_;
};

// A node of the plan in one run of some images.
struct NodeProfile {
    std::string name, kind;
    double macs = 0;          // multiply-adds; padding is not counted
    double weight_bytes = 0;  // as they are packed
    double map_bytes = 0;     // of what its operations read and write
    double seconds = 0;       // the mean over the threads
};

}  // namespace ghostnets
