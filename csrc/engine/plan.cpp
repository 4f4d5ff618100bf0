#include "engine/plan.hpp"

#include <array>

namespace ghostnets {

namespace {

// In the order of NodeKind.
constexpr std::array kNames{"stem",           "ghost",         "conv",     "depthwise", "add",
                            "squeeze_excite", "mix",           "average",  "max_pool",  "pool",
                            "linear",         "output",        "multiply", "scale",     "arrange",
                            "average_pool",   "adaptive_pool", "resize",   "convert"};

}  // namespace

const char* node_kind_name(NodeKind kind) { return kNames[std::size_t(kind)]; }

NodeKind node_kind_named(const std::string& name) {
    for (std::size_t i = 0; i < kNames.size(); ++i)
        if (name == kNames[i]) return NodeKind(i);
    throw std::invalid_argument("the plan is damaged: it has a node of unknown kind " + name);
}

}  // namespace ghostnets
