// The gemm of AMX, compiled with its flags and those of avx512_bf16, whose other kernels it is used with.
#include "kernels/gemm_tiles.hpp"

namespace ghostnets {

void gemm_amx(const GemmTask& task) {
    const bool has_tiles = task.in != Type::f32;
    has_tiles&& GHOSTNETS_ISA::gains_by_tiles(task) ? GHOSTNETS_ISA::gemm_in_tiles(task)
                                                    : kAvx512Bf16Kernels.gemm(task);
}

}  // namespace ghostnets
