// The instruction sets that kernels are compiled for, and those that this processor has.
#pragma once

#include <string>
#include <vector>

namespace ghostnets {

// avx2_vnni: with AVX-VNNI; avx512_vnni: with VNNI; avx512_bf16: with BF16, VNNI and VBMI; avx512_amx: with
// that, and AMX for bytes and bfloat16; neon_dot: with the dot product; neon_bf16: with that, I8MM and BF16.
enum class Isa { baseline, avx2, avx2_vnni, avx512, avx512_vnni, avx512_bf16, avx512_amx, neon_dot, neon_bf16 };

// "avx2" and so on; the baseline is "sse2", "neon" or "generic", by processor family.
const char* isa_name(Isa isa);

// Those that this process may use, best first; the baseline is always the last. The first call asks the system for AMX.
std::vector<Isa> supported_isas();

// The best kernel table of this processor, or the one of the instruction set `name` where `name` is not empty; null if
// there is none. `table_of(isa)` is the table compiled for an instruction set, or null.
template <class TableOf>
auto find_kernel_table(const std::string& name, const TableOf& table_of) -> decltype(table_of(Isa::baseline)) {
    for (const Isa isa : supported_isas())
        if (const auto table = table_of(isa); table && (name.empty() || name == isa_name(isa))) return table;
    return nullptr;
}

}  // namespace ghostnets
