#include "common/thread_pool.hpp"

namespace ghostnets {

namespace {

// Between two barriers of a schedule threads are a few microseconds apart, unless one was preempted by another process:
// then it needs this core. Between two calls of a session a caller takes some tens of microseconds.
constexpr int kWorkSpins = 500, kIdleSpins = 4000;

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

bool Barrier::arrive() {
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < threads_) return false;
    arrived_.store(0, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    return true;
}

void Barrier::wait() {
    if (threads_ == 1) return;
    const std::uint32_t generation = generation_.load(std::memory_order_acquire);
    if (arrive()) return;
    for (int i = 0; i < spins_; ++i) {
        if (generation_.load(std::memory_order_acquire) != generation) return;
        pause();
    }
    while (generation_.load(std::memory_order_acquire) == generation) generation_.wait(generation);
}

ThreadPool::ThreadPool(int threads) : barrier_(threads, kWorkSpins), gate_(threads, kIdleSpins) {
    try {
        for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { serve(t); });
    } catch (...) {  // started threads wait for the missing ones: arrive in their place, and join
        stops_ = true;
        for (int t = int(workers_.size()); t < threads; ++t) gate_.arrive();
        for (std::thread& worker : workers_) worker.join();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    if (is_orphan()) {  // nothing to join; the handles of threads that do not exist are never destroyed
        new std::vector<std::thread>(std::move(workers_));
        return;
    }
    stops_ = true;
    gate_.wait();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(const std::function<void(int)>& work) {
    work_ = &work;
    gate_.wait();
    work(0);
    gate_.wait();
}

void ThreadPool::serve(int thread) {
    for (;;) {
        gate_.wait();
        if (stops_) return;
        (*work_)(thread);
        gate_.wait();
    }
}

}  // namespace ghostnets
