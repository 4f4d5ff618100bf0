#include "common/isa.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
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

// AMX with bytes and bfloat16. Its registers are large, so that Linux saves them, from version 5.16 on, for processes
// that ask; other systems are not asked.
bool may_use_amx() {
#if defined(GHOSTNETS_EMULATED_TILES)  // scripts/check_amx
    return true;
#elif defined(__linux__)
    constexpr unsigned kTiles = 1u << 24, kInt8 = 1u << 25, kBf16 = 1u << 22, kAll = kTiles | kInt8 | kBf16;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, and the component of its state
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAll) == kAll &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

}  // namespace
#endif

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx512_amx: return "avx512_amx";
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
    const bool avx512_bf16 =
        avx512_vnni && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
    static const bool amx = avx512_bf16 && may_use_amx();
    if (amx) found.push_back(Isa::avx512_amx);
    if (avx512_bf16) found.push_back(Isa::avx512_bf16);
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
