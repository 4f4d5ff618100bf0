// Failed allocations, for the stress test.
#pragma once

#include <memory>
#include <new>
#include <vector>

#include "engine/session.hpp"

namespace ghostnets {

// Makes one allocation fail after `after` more have succeeded; none if `after` is negative.
void fail_allocation(long after);

// Makes each allocation of compiling and of running fail in turn. Returns whether `run(session)` always gave the same
// values afterwards.
template <class Run>
bool survives_failed_allocations(const Plan& plan, const Run& run) {
    Session kept(plan, *find_kernels(""), 2);
    const std::vector<float> expected = run(kept);
    const auto completes = [&](long allocation, const auto& work) {
        fail_allocation(allocation);
        bool is_complete = true;
        try {
            work();
        } catch (const std::bad_alloc&) {
            is_complete = false;
        }
        fail_allocation(-1);
        return is_complete;
    };
    for (long n = 0; n < 2000; ++n) {
        if (completes(n, [&] { run(*std::make_unique<Session>(plan, *find_kernels(""), 2)); })) break;
        if (run(kept) != expected) return false;
    }
    for (long n = 0; n < 2000; ++n) {
        Session fresh(kept, 2);
        const bool is_last = completes(n, [&] { run(fresh); });
        if (run(fresh) != expected) return false;
        if (is_last) break;
    }
    return true;
}

}  // namespace ghostnets
