// Lowers the nodes of a plan to operations; used by Network's constructor.
#pragma once

#include "engine/network.hpp"
#include "engine/pack.hpp"

namespace ghostnets {

class Lowering {
public:
    Lowering(Network& network, const Plan& plan) : net_(network), plan_(plan), width_(network.kernels.width) {
        for (std::size_t map = 0; map < net_.layouts.size(); ++map)
            net_.quantizations.push_back(quantization(int(map)));
    }

    void lower(const Node& node);

    bool next_starts_group = false;  // whether the next node starts a fusion group

private:
    // The segments of two maps that an operation on single channels connects, and its other operand.
    struct Segments {
        int in, in_segment, out, out_segment;
        int other = -1;
        BinaryOp binary = BinaryOp::none;
    };

    const Layout& layout(int map) const;
    int new_map(Layout shape, Type type);
    int new_map(const Layout& shape) { return new_map(shape, shape.type); }
    // Squeeze-and-excitation is cheap, and its gates scale whole maps, so it is never quantised.
    static Type fine_type(const Layout& map) { return map.type == Type::u8 ? Type::bf16 : map.type; }
    Quantization quantization(int map) const;
    Map map(int index) const;
    // An ungrouped convolution: weights (outputs, terms) or (outputs, terms, kernel_h, kernel_w), over the segments of
    // the input from `first_segment` on that have that many channels.
    Op gemm(const Node& node, int in, int out, const Layout& to, int first_segment, const Tensor& weight,
            const Tensor& bias) const;
    // Any convolution; groups of channels are segments of the maps. Padding is stored, as zeros.
    void conv(const Node& node, int in, int out, Layout to, int dilation_h, int dilation_w);
    static Tensor rows_of(const Tensor& tensor, int first, int count);
    // The sum or product of two maps, or of a map and one pixel.
    void binary(const Node& node, OpKind kind, BinaryOp binary);
    Window window_of(const Node& node, int kernel_h, int kernel_w, int dilation_h, int dilation_w) const;

    // lowering_maps.cpp
    void max_pool(const Node& node);
    void average(const Node& node);
    void resize(const Node& node);
    void arrange(const Node& node);
    void output(const Node& node);
    void convert(const Node& node);
    void stem(const Node& node);
    void depthwise(const Node& node, const Segments& maps, const Tensor& weight, const Tensor& bias,
                   int weight_segment);
    // The primary convolution writes the first segment, the cheap operations the others. If a residual is added or a
    // gate multiplied at the end, the cheap operations read the maps before that, so these are stored separately.
    void ghost(const Node& node);
    void cheap(const Node& node, int intrinsic, int other, BinaryOp binary);
    // The same operation on each segment.
    void each_segment(const Op& prototype);
    // The means of some maps over all pixels, concatenated.
    void pool(const std::vector<int>& maps, int out);
    // Two linear layers on the means of some maps, with ReLU between; the result is multiplied by `input` or added.
    void squeeze(const Node& node, const std::vector<int>& pooled, Activation gate, BinaryOp binary, Activation after);
    void emit(Op&& op) { net_.ops.push_back(with_activation(std::move(op))); }
    // The same operation with the way in which its kernel activates results: the byte at which it clamps them, or other
    // functions than ReLU.
    Op with_activation(Op&& op) const;
    // Whether the values of two maps are represented in the same way.
    bool share_quantization(int a, int b) const;

    Network& net_;
    const Plan& plan_;
    const int width_;
};

}  // namespace ghostnets
