// Parts of training that do not depend on the instruction set: normalisation, threads, memory.
#include <dlfcn.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>

#include "common/thread_pool.hpp"
#include "training/kernels.hpp"

namespace ghostnets::training {

template <class T>
void finish_statistics(const Norm<T>& norm, std::ptrdiff_t row, const double* sums, int channels, double count) {
    for (int c = 0; c < channels; ++c) {
        const double mean = sums[c] / count;
        const double spread = sums[channels + c] / count - mean * mean;
        const double variance = spread < 0 ? 0 : spread;  // NaN stays
        const double scale = 1 / std::sqrt(variance + norm.eps);
        T* to = norm.statistics + c;
        to[0] = T(mean);
        to[row] = T(scale);
        to[2 * row] = T(scale * norm.gamma[c]);
        to[3 * row] = T(norm.beta[c] - mean * scale * norm.gamma[c]);
        const double unbiased = variance * count / (count - 1);
        norm.running_mean[c] = T(norm.running_mean[c] + norm.momentum * (mean - norm.running_mean[c]));
        norm.running_var[c] = T(norm.running_var[c] + norm.momentum * (unbiased - norm.running_var[c]));
    }
}

template <class T>
void finish_gradient(const NormGradient<T>& norm, const T* statistics, std::ptrdiff_t row, const double* sums,
                     int channels, double count) {
    for (int c = 0; c < channels; ++c) {
        const double mean = statistics[c], scale = statistics[row + c], gamma = norm.gamma[c];
        const double beta_gradient = sums[c], gamma_gradient = sums[channels + c] * scale;
        norm.beta_gradient[c] = T(beta_gradient);
        norm.gamma_gradient[c] = T(gamma_gradient);
        const double a = gamma * scale, b = -a * scale * gamma_gradient / count;
        norm.coefficients[c] = T(a);
        norm.coefficients[norm.row + c] = T(b);
        norm.coefficients[2 * norm.row + c] = T(-a * beta_gradient / count - b * mean);
    }
}

template void finish_statistics<float>(const Norm<float>&, std::ptrdiff_t, const double*, int, double);
template void finish_statistics<double>(const Norm<double>&, std::ptrdiff_t, const double*, int, double);
template void finish_gradient<float>(const NormGradient<float>&, const float*, std::ptrdiff_t, const double*, int,
                                     double);
template void finish_gradient<double>(const NormGradient<double>&, const double*, std::ptrdiff_t, const double*, int,
                                      double);

const KernelTable* find_kernels(const std::string& name) {
    return find_kernel_table(name, [](Isa isa) -> const KernelTable* {
        switch (isa) {
#if defined(__x86_64__)
            case Isa::avx512: return &kAvx512Kernels;
            case Isa::avx2: return &kAvx2Kernels;
#endif
            case Isa::baseline: return &kBaselineKernels;
            default: return nullptr;
        }
    });
}

namespace {

struct Job {
    void (*work)(void*, int);
    void* context;
    int shares;
    std::atomic<int> next{0};
};

// Threads take shares dynamically; the result of a share does not depend on its thread.
void take_shares(Job& job) {
    for (int share; (share = job.next.fetch_add(1, std::memory_order_relaxed)) < job.shares;)
        job.work(job.context, share);
}

using OpenMp = void (*)(void (*)(void*), void*, unsigned, unsigned);

// The entry point of `#pragma omp parallel` in the OpenMP library that torch has loaded.
OpenMp open_mp() {
    static const OpenMp found = reinterpret_cast<OpenMp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
}

}  // namespace

void run_shares(int shares, void (*work)(void*, int), void* context) {
    Job job{work, context, shares};
    if (shares == 1) {
        work(context, 0);
    } else if (const OpenMp run = open_mp()) {
        run([](void* given) { take_shares(*static_cast<Job*>(given)); }, &job, unsigned(shares), 0);
    } else {
        static std::mutex mutex;
        static std::unique_ptr<ThreadPool> pool;
        const std::lock_guard lock(mutex);
        if (!pool || pool->size() != shares) pool = nullptr, pool = std::make_unique<ThreadPool>(shares);
        pool->run(1, [&](int, int share, int) { job.work(job.context, share); });
    }
}

void* workspace(int slot, std::size_t bytes) {
    struct Memory {
        void* start = nullptr;
        std::size_t size = 0;
        ~Memory() { std::free(start); }
    };
    thread_local Memory memories[2];
    Memory& memory = memories[slot];
    if (memory.size < bytes) {
        std::free(memory.start);
        memory.size = (bytes + 4095) / 4096 * 4096;
        memory.start = std::aligned_alloc(4096, memory.size);
        if (!memory.start) {
            memory.size = 0;
            throw std::bad_alloc();
        }
    }
    return memory.start;
}

}  // namespace ghostnets::training
