#include "kernels/kernels.hpp"

namespace ghostnets {

#if defined(__x86_64__)
namespace {

// Those of avx512_bf16 with another gemm.
const Kernels& amx_kernels() {
    static const Kernels kernels = [] {
        Kernels made = kAvx512Bf16Kernels;
        made.isa = Isa::avx512_amx;
        made.gemm = gemm_amx;
        return made;
    }();
    return kernels;
}

}  // namespace
#endif

const Kernels* find_kernels(const std::string& name) {
    return find_kernel_table(name, [](Isa isa) -> const Kernels* {
        switch (isa) {
#if defined(__x86_64__)
            case Isa::avx512_amx: return &amx_kernels();
            case Isa::avx512_bf16: return &kAvx512Bf16Kernels;
            case Isa::avx512_vnni: return &kAvx512VnniKernels;
            case Isa::avx512: return &kAvx512Kernels;
            case Isa::avx2_vnni: return &kAvx2VnniKernels;
            case Isa::avx2: return &kAvx2Kernels;
#elif defined(__aarch64__)
            case Isa::neon_bf16: return &kNeonBf16Kernels;
            case Isa::neon_dot: return &kNeonDotKernels;
#endif
            case Isa::baseline: return &kBaselineKernels;
            default: return nullptr;
        }
    });
}

}  // namespace ghostnets
