#include "engine/plan.hpp"

#include <array>

#include "engine/node_fields.hpp"

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

Activation activation_named(const std::string& name) {
    if (name == "none") return Activation::none;
    if (name == "relu") return Activation::relu;
    if (name == "sigmoid") return Activation::sigmoid;
    if (name == "hard_sigmoid") return Activation::hard_sigmoid;
    if (name == "clamp") return Activation::clamp;
    if (name == "relu6") return Activation::relu6;
    if (name == "leaky_relu") return Activation::leaky_relu;
    if (name == "hard_swish") return Activation::hard_swish;
    if (name == "silu") return Activation::silu;
    throw std::invalid_argument("the plan is damaged: it has an unknown activation " + name);
}

Type type_named(const std::string& name) {
    if (name == "f32") return Type::f32;
    if (name == "bf16") return Type::bf16;
    if (name == "int8") return Type::u8;
    throw std::invalid_argument("the plan is damaged: it has an unknown precision " + name);
}

}  // namespace ghostnets
