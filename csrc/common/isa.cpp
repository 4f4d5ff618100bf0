#include "common/isa.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace ghostnets {

#if defined(__x86_64__)
namespace {

// AVX-VNNI, for which not all compilers have a built-in.
bool has_avx_vnni() {
#if defined(GHOSTNETS_ASSUME_AVX_VNNI)  // scripts/check_avx_vnni
    return true;
#else
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#endif
}

}  // namespace
#endif

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx512_bf16: return "avx512_bf16";
        case Isa::avx512_vnni: return "avx512_vnni";
        case Isa::avx512: return "avx512";
        case Isa::avx2_vnni: return "avx2_vnni";
        case Isa::avx2: return "avx2";
        case Isa::neon_bf16: return "neon_bf16";
        case Isa::neon_dot: return "neon_dot";
        case Isa::baseline: break;
    }
#if defined(__aarch64__)
    return "neon";
#elif defined(__x86_64__)
    return "sse2";
#else
    return "generic";
#endif
}

std::vector<Isa> supported_isas() {
    std::vector<Isa> found;
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool avx512_vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    if (avx512_vnni && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi"))
        found.push_back(Isa::avx512_bf16);
    if (avx512_vnni) found.push_back(Isa::avx512_vnni);
    if (avx512) found.push_back(Isa::avx512);
    if (avx2 && has_avx_vnni()) found.push_back(Isa::avx2_vnni);
    if (avx2) found.push_back(Isa::avx2);
#elif defined(__aarch64__) && defined(__linux__)  // bits of the kernel's interface, which older headers do not name
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    const bool dot = first >> 20 & 1, i8mm = second >> 13 & 1, bf16 = second >> 14 & 1;
    if (dot && i8mm && bf16) found.push_back(Isa::neon_bf16);
    if (dot) found.push_back(Isa::neon_dot);
#endif
    found.push_back(Isa::baseline);
    return found;
}

}  // namespace ghostnets
