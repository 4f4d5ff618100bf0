#include "common/thread_pool.hpp"

#include <algorithm>

namespace ghostnets {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::nanoseconds kLongestSpin{200'000}, kShortestSpin{10'000};
constexpr int kPauses = 8;  // between two readings of the clock

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

// Returns when the signal differs from `seen`; `bound` is how long this thread spins before it sleeps.
void ThreadPool::wait(std::uint32_t seen, std::chrono::nanoseconds& bound) const {
    const Clock::time_point start = Clock::now();
    const auto changed = [&] { return signal_.load(std::memory_order_acquire) != seen; };
    while (!changed() && Clock::now() - start < bound)
        for (int i = 0; i < kPauses && !changed(); ++i) pause();
    while (!changed()) signal_.wait(seen);
    bound =
        Clock::now() - start < kLongestSpin ? std::min(2 * bound, kLongestSpin) : std::max(bound / 2, kShortestSpin);
}

ThreadPool::ThreadPool(int threads) : size_(threads), begun_(std::make_unique<Begun[]>(std::size_t(threads))) {
    try {
        for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { serve(t); });
    } catch (...) {
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    if (is_orphan()) {  // nothing to join; the handles of threads that do not exist are never destroyed
        new std::vector<std::thread>(std::move(workers_));
        return;
    }
    stop();
}

void ThreadPool::stop() {
    stops_ = true;
    signal();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::signal() {
    signal_.fetch_add(1, std::memory_order_release);
    signal_.notify_all();
}

// Begins and finishes shares of a phase until none is left, the thread's own first. A late thread finds that all
// have begun: the phase of a share only grows, so a share of a finished phase cannot be begun again.
void ThreadPool::run_shares(std::uint64_t phase, int thread) {
    for (int i = 0; i < size_; ++i) {
        const int share = (thread + i) % size_;
        std::uint64_t before = phase - 1;
        if (!begun_[share].phase.compare_exchange_strong(before, phase, std::memory_order_acq_rel)) continue;
        (*work_)(int(phase - first_), share, thread);
        if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 < size_) continue;
        finished_.store(0, std::memory_order_relaxed);
        current_.store(phase + 1, std::memory_order_release);
        if (size_ > 1) signal();
    }
}

void ThreadPool::run(int phases, const Work& work) {
    work_ = &work;
    first_ = current_.load(std::memory_order_relaxed);
    const std::uint64_t end = first_ + std::uint64_t(phases);
    end_.store(end, std::memory_order_release);
    if (size_ > 1) signal();
    for (;;) {
        const std::uint32_t seen = signal_.load(std::memory_order_acquire);
        const std::uint64_t phase = current_.load(std::memory_order_acquire);
        if (phase == end) return;
        run_shares(phase, 0);
        if (current_.load(std::memory_order_acquire) == phase) wait(seen, caller_bound_);
    }
}

void ThreadPool::serve(int thread) {
    std::chrono::nanoseconds bound = kLongestSpin;
    while (!stops_.load(std::memory_order_acquire)) {
        const std::uint32_t seen = signal_.load(std::memory_order_acquire);
        const std::uint64_t phase = current_.load(std::memory_order_acquire);
        if (phase < end_.load(std::memory_order_acquire)) run_shares(phase, thread);
        if (current_.load(std::memory_order_acquire) == phase && !stops_) wait(seen, bound);
    }
}

}  // namespace ghostnets
