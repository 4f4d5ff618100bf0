// A pool of threads that run one function together and synchronise at barriers.
//
// Fusion groups take microseconds, so a waiting thread spins first and then sleeps (std::atomic::wait, a futex on
// Linux), so as not to take a core from other processes.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

namespace ghostnets {

class Barrier {
public:
    Barrier(int threads, int spins) : threads_(threads), spins_(spins) {}
    void wait();
    bool arrive();  // without waiting; true for the last thread, which opens the barrier

private:
    const std::uint32_t threads_;
    const int spins_;
    alignas(64) std::atomic<std::uint32_t> arrived_{0};
    alignas(64) std::atomic<std::uint32_t> generation_{0};
};

class ThreadPool {
public:
    explicit ThreadPool(int threads);  // throws std::system_error if threads cannot be created
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    // Whether this is a forked child of the process that made the pool: the threads do not exist here.
    bool is_orphan() const { return process_ != getpid(); }

    int size() const { return int(workers_.size()) + 1; }

    // Calls work(thread) on every thread, 0 being the caller's, and returns when all have finished. One caller at a
    // time. `work` must not throw.
    void run(const std::function<void(int)>& work);

    Barrier& barrier() { return barrier_; }

private:
    void serve(int thread);

    Barrier barrier_;  // for the work
    Barrier gate_;  // before and after it
    const std::function<void(int)>* work_ = nullptr;
    bool stops_ = false;
    const pid_t process_ = getpid();
    std::vector<std::thread> workers_;
};

}  // namespace ghostnets
