// A pool of threads that run phases of shares together.
//
// A share is not bound to a thread: each thread begins with its own and then takes over those that no other thread has
// begun, so that the caller finishes a phase alone where the others are late. A phase begins when all shares of the one
// before have finished; nobody waits for a thread, only for a share that a thread has begun.
//
// A waiting thread spins for a bounded time and then sleeps (std::atomic::wait, a futex on Linux). The bound adapts: it
// grows while waits are shorter than the longest bound, as on an idle machine, and shrinks where they are longer, as
// the other thread was preempted and may need this core, or nobody calls.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace ghostnets {

class ThreadPool {
public:
    // Work of one share in a phase; `thread` is the thread that runs it, 0 being the caller's.
    using Work = std::function<void(int phase, int share, int thread)>;

    explicit ThreadPool(int threads);  // throws std::system_error if threads cannot be created
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    // Whether this is a forked child of the process that made the pool: it does not have the threads.
    bool is_orphan() const { return process_ != getpid(); }

    int size() const { return size_; }

    // Runs `phases` phases of size() shares each, and returns when all have finished. One caller at a time. `work` must
    // not throw.
    void run(int phases, const Work& work);

private:
    // The number of the last phase in which a share was begun; phases are counted over all runs.
    struct alignas(64) Begun {
        std::atomic<std::uint64_t> phase{0};
    };

    void serve(int thread);
    void run_shares(std::uint64_t phase, int thread);
    void wait(std::uint32_t seen, std::chrono::nanoseconds& bound) const;
    void signal();
    void stop();

    const int size_;
    const std::unique_ptr<Begun[]> begun_;  // of each share
    alignas(64) std::atomic<std::uint64_t> current_{1}, end_{1};  // phase that runs, and the first that is not to run
    alignas(64) std::atomic<int> finished_{0};  // shares of the current phase
    alignas(64) std::atomic<std::uint32_t> signal_{0};  // changes whenever there may be something to do
    std::atomic<bool> stops_{false};
    const Work* work_ = nullptr;
    std::uint64_t first_ = 1;  // first phase of the current run
    std::chrono::nanoseconds caller_bound_{100'000};
    const pid_t process_ = getpid();
    std::vector<std::thread> workers_;
};

}  // namespace ghostnets
