// From the nodes of a plan to operations: what Network's constructor does.
#pragma once

#include <stdexcept>

#include "engine/network.hpp"
#include "engine/pack.hpp"

namespace ghostnets {

inline void require(bool condition, const std::string& what) {
    if (!condition) throw std::invalid_argument("the plan is damaged: " + what);
}

class Lowering {
public:
    Lowering(Network& network, const PlanSource& source)
        : net_(network), source_(source), width_(network.kernels.width), written_(network.layouts.size()) {
        for (std::size_t map = 0; map < net_.layouts.size(); ++map)
            net_.quantizations.push_back(quantization(int(map)));
    }

    void lower(const Node& node);

    bool starts_part_ = false;  // whether the next node does

private:
    const Layout& layout(int map) const;
    int new_map(Layout shape, Type type);
    int new_map(const Layout& shape) { return new_map(shape, shape.type); }
    // Squeeze-and-excitation is a small part of the work, and its gates touch whole maps: it is never in bytes.
    Type fine_type() const { return source_.precision == Type::u8 ? Type::bf16 : source_.precision; }
    Quantization quantization(int map) const;
    Map map(int index) const;
    // A convolution with one group: weights (outputs, terms) or (outputs, terms, kernel_h, kernel_w), over the segments
    // of the input from `first_segment` on that have so many channels.
    Op gemm(const Node& node, int in, int out, const Layout& to, int first_segment, const Tensor& weight,
            const Tensor& bias) const;
    // Any convolution, groups of channels being segments of the maps. What is beside the map is stored as zeros; what
    // is above and below it is left to the pointers to its rows.
    void conv(const Node& node, int in, int out, Layout to, int dilation);
    static Tensor rows_of(const Tensor& tensor, int first, int count);
    void binary(const Node& node, int in, int other, int out, BinaryOp kind);
    void max_pool(const Node& node);
    void output(const Node& node);
    void stem(const Node& node);
    void depthwise(const Node& node, int in, int in_segment, int out, int out_segment, const Tensor& weight,
                   const Tensor& bias, int weight_segment, int other = -1, BinaryOp binary = BinaryOp::none);
    // The primary convolution writes the first segment, the cheap operations the others. Where something is added or
    // multiplied at the end, the cheap operations need the maps without it, so these go to a map of their own.
    void ghost(const Node& node);
    void cheap(const Node& node, int intrinsic, int other, BinaryOp binary);
    void each_segment(int in, int out, OpKind kind, int like = -1, BinaryOp binary = BinaryOp::none,
                      Activation activation = Activation::none);
    // The means of some maps over all pixels, one map after the other.
    void pool(const std::vector<int>& maps, int out);
    // Two linear layers on the means of some maps, ReLU between; `input` is multiplied by the result, or it is added.
    void squeeze(const Node& node, const std::vector<int>& pooled, Activation gate, BinaryOp binary, Activation after);

    Network& net_;
    const PlanSource& source_;
    const int width_;
    std::vector<bool> written_;  // maps of the plan
};

}  // namespace ghostnets
