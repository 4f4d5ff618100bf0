// The kernels of one instruction set; compiled once for each, with the flags of CMakeLists.txt.
#include "kernels.hpp"

#include "dense.hpp"
#include "depthwise.hpp"
#include "depthwise_groups.hpp"
#include "elementwise.hpp"
#include "simd.hpp"

namespace ghostnets {

namespace GHOSTNETS_ISA {

inline void depthwise(const DepthwiseTask& task) {
    if (task.type == Type::f32) return depthwise_of<float>(task);
    if (task.type == Type::u8) return depthwise_by_groups<Byte>(task);
    if constexpr (kGroupsBf16) return depthwise_by_groups<BFloat16>(task);
    else return depthwise_of<BFloat16>(task);
}

}  // namespace GHOSTNETS_ISA

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
extern const Kernels kAvx512Bf16Kernels;
const Kernels kAvx512Bf16Kernels
#elif defined(__AVX512F__)
extern const Kernels kAvx512Kernels;
const Kernels kAvx512Kernels
#elif defined(__AVX2__)
extern const Kernels kAvx2Kernels;
const Kernels kAvx2Kernels
#else
extern const Kernels kBaselineKernels;
const Kernels kBaselineKernels
#endif
    = {
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
        "avx512_bf16",
#elif defined(__AVX512F__)
        "avx512",
#elif defined(__AVX2__)
        "avx2",
#elif defined(__aarch64__)
        "neon",
#elif defined(__x86_64__)
        "sse2",
#else
        "generic",
#endif
        GHOSTNETS_ISA::kWidth,   GHOSTNETS_ISA::kGroupsBf16, GHOSTNETS_ISA::dense,    GHOSTNETS_ISA::depthwise,
        GHOSTNETS_ISA::combine,  GHOSTNETS_ISA::average,     GHOSTNETS_ISA::max_pool, GHOSTNETS_ISA::enlarge,
        GHOSTNETS_ISA::activate, GHOSTNETS_ISA::sum,         GHOSTNETS_ISA::mean,     GHOSTNETS_ISA::normalize,
};

}  // namespace ghostnets
