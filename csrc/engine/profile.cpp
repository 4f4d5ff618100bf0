#include "engine/profile.hpp"

namespace ghostnets {

double total_macs(const Schedule& schedule, const Op& op) {
    const Allocation& out = schedule.allocations[op.out];
    return op.macs * schedule.images * out.height * out.width;
}

double total_map_bytes(const Network& network, const Schedule& schedule, const Op& op) {
    double bytes = 0;
    for (const int map : {op.in, op.out, op.reads_other() ? op.other : -1}) {
        if (map < 0) continue;
        const Allocation& allocation = schedule.allocations[map];
        const Layout& layout = network.layouts[map];
        const double channels = op.is_gemm() && map == op.in ? op.gemm.segments * layout.padded() : op.channels;
        bytes += channels * allocation.height * allocation.width * size_of(layout.type);
    }
    return bytes * schedule.images;
}

}  // namespace ghostnets
