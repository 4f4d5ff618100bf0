// A team of threads that runs one function together and meets at barriers.
//
// Parts of a network take microseconds, so whoever waits spins first. After a while it falls asleep (std::atomic::wait,
// a futex on Linux): a spinning thread would steal a core from the rest of the machine.
#pragma once

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
    bool arrive();  // without waiting; true for the last, who opens it

private:
    const std::uint32_t threads_;
    const int spins_;
    alignas(64) std::atomic<std::uint32_t> arrived_{0};
    alignas(64) std::atomic<std::uint32_t> generation_{0};
};

class ThreadPool {
public:
    explicit ThreadPool(int threads);  // throws std::system_error where the system gives no more threads
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return int(workers_.size()) + 1; }

    // Calls work(thread) on every thread, 0 being the caller's, and returns when all have. One caller at a time.
    // `work` must not throw.
    void run(const std::function<void(int)>& work);

    Barrier& barrier() { return barrier_; }

private:
    void serve(int thread);

    Barrier barrier_;  // for the work
    Barrier gate_;  // before and after it
    const std::function<void(int)>* work_ = nullptr;
    bool stops_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace ghostnets
