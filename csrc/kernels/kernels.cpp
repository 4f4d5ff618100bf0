// The engine's kernels for one instruction set; compiled once for each, with the flags in CMakeLists.txt.
#include "kernels/kernels.hpp"

#include "common/simd.hpp"
#include "kernels/depthwise.hpp"
#include "kernels/depthwise_groups.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"
#include "kernels/planes.hpp"

namespace ghostnets {

namespace GHOSTNETS_ISA {

inline void depthwise(const DepthwiseTask& task) {
    if (task.type == Type::f32) return depthwise_of<float>(task);
    if (task.type == Type::u8) return depthwise_by_groups<Byte>(task);
    if constexpr (kGroupsBf16) return depthwise_by_groups<BFloat16>(task);
    else return depthwise_of<BFloat16>(task);
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
#else
const Kernels kBaselineKernels = GHOSTNETS_ISA::kernel_table(Isa::baseline);
#endif

}  // namespace ghostnets
