// The engine's kernels for one instruction set; compiled once for each, with the flags in CMakeLists.txt.
#include "kernels/kernels.hpp"

#include "common/simd.hpp"
#include "kernels/depthwise.hpp"
#include "kernels/depthwise_groups.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"
#include "kernels/planes.hpp"

// Instruction sets that add products of bytes, or of bytes and bfloat16, share the other large kernels with a smaller
// one, which alone compiles them.
#if defined(__AVX512F__)
#define GHOSTNETS_F32 avx512
#elif defined(__AVX2__)
#define GHOSTNETS_F32 avx2
#else
#define GHOSTNETS_F32 baseline
#endif
#if defined(__AVX512BF16__)
#define GHOSTNETS_BF16 avx512_bf16
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define GHOSTNETS_BF16 neon_bf16
#else
#define GHOSTNETS_BF16 GHOSTNETS_F32
#endif
#if !defined(__AVX512VNNI__) && !defined(__AVXVNNI__) && !defined(__ARM_FEATURE_DOTPROD)
#define GHOSTNETS_SHARED
#endif

namespace ghostnets {

namespace GHOSTNETS_F32 {
void depthwise_f32(const DepthwiseTask& task);
void gemm_f32(const GemmTask& task);
}  // namespace GHOSTNETS_F32

namespace GHOSTNETS_BF16 {
void depthwise_bf16(const DepthwiseTask& task);
void gemm_bf16(const GemmTask& task);  // bfloat16 in or out
}  // namespace GHOSTNETS_BF16

namespace GHOSTNETS_ISA {

#if defined(GHOSTNETS_SHARED)
void depthwise_f32(const DepthwiseTask& task) { depthwise_of<float>(task); }

void gemm_f32(const GemmTask& task) {
    task.out_type == Type::f32 ? gemm_of<float, float>(task) : gemm_of<float, Byte>(task);
}
#endif

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC) || defined(GHOSTNETS_SHARED)
void depthwise_bf16(const DepthwiseTask& task) {
    if constexpr (kGroupsBf16) depthwise_by_groups<BFloat16>(task);
    else depthwise_of<BFloat16>(task);
}

void gemm_bf16(const GemmTask& task) {
    if (task.in == Type::f32) gemm_of<float, BFloat16>(task);
    else task.out_type == Type::f32 ? gemm_of<BFloat16, float>(task) : gemm_of<BFloat16, BFloat16>(task);
}
#endif

inline void depthwise(const DepthwiseTask& task) {
    switch (task.type) {
        case Type::f32: return GHOSTNETS_F32::depthwise_f32(task);
        case Type::bf16: return GHOSTNETS_BF16::depthwise_bf16(task);
        case Type::u8: return depthwise_by_groups<Byte>(task);
    }
}

inline void gemm(const GemmTask& task) {
    if (task.in == Type::bf16 || task.out_type == Type::bf16) return GHOSTNETS_BF16::gemm_bf16(task);
    if (task.in == Type::f32) return GHOSTNETS_F32::gemm_f32(task);
    task.out_type == Type::f32 ? gemm_of<Byte, float>(task) : gemm_of<Byte, Byte>(task);
}

constexpr Kernels kernel_table(Isa isa) {
    return {.isa = isa,
            .width = kWidth,
            .groups_bf16 = kGroupsBf16,
            .gemm = gemm,
            .depthwise = depthwise,
            .binary = binary,
            .convert = convert,
            .average_pool = average_pool,
            .window_average = window_average,
            .bilinear = bilinear,
            .max_pool = max_pool,
            .upsample_nearest = upsample_nearest,
            .arrange = arrange,
            .copy_planes = copy_planes,
            .interleave = interleave,
            .activate = activate,
            .sum = sum,
            .mean = mean,
            .normalize = normalize};
}

}  // namespace GHOSTNETS_ISA

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
const Kernels kAvx512Bf16Kernels = GHOSTNETS_ISA::kernel_table(Isa::avx512_bf16);
#elif defined(__AVX512VNNI__)
const Kernels kAvx512VnniKernels = GHOSTNETS_ISA::kernel_table(Isa::avx512_vnni);
#elif defined(__AVX512F__)
const Kernels kAvx512Kernels = GHOSTNETS_ISA::kernel_table(Isa::avx512);
#elif defined(__AVXVNNI__)
const Kernels kAvx2VnniKernels = GHOSTNETS_ISA::kernel_table(Isa::avx2_vnni);
#elif defined(__AVX2__)
const Kernels kAvx2Kernels = GHOSTNETS_ISA::kernel_table(Isa::avx2);
#elif defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
const Kernels kNeonBf16Kernels = GHOSTNETS_ISA::kernel_table(Isa::neon_bf16);
#elif defined(__ARM_FEATURE_DOTPROD)
const Kernels kNeonDotKernels = GHOSTNETS_ISA::kernel_table(Isa::neon_dot);
#else
const Kernels kBaselineKernels = GHOSTNETS_ISA::kernel_table(Isa::baseline);
#endif

}  // namespace ghostnets
