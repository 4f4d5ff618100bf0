// Replaces operator new of the stress test, and of the module that scripts/fail_allocations.py builds: one
// allocation, chosen by fail_allocation, fails.
#include "engine/stress_memory.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long> left{-1};  // allocations that still succeed; negative: all

void* allocate(std::size_t size, std::size_t alignment) {
    if (left.load() >= 0 && left.fetch_sub(1) == 0) throw std::bad_alloc();
    void* memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (!memory) throw std::bad_alloc();
    return memory;
}

}  // namespace

namespace ghostnets {

void fail_allocation(long after) { left = after; }

}  // namespace ghostnets

extern "C" {
__attribute__((visibility("default"))) void ghostnets_fail_allocation(long after) { ghostnets::fail_allocation(after); }
}

void* operator new(std::size_t size) { return allocate(size ? size : 1, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) { return allocate(size, std::size_t(alignment)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
