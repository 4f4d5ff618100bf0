// Reads a node from its named fields, of a Python dictionary or of JSON: one list of the fields for both.
#pragma once

#include <string>

#include "engine/plan.hpp"

namespace ghostnets {

Activation activation_named(const std::string& name);  // throws std::invalid_argument for an unknown name
Type type_named(const std::string& name);              // of a precision; throws std::invalid_argument

// Fields has has(name), and for a field that it has integer, real, text, integers and tensor(name).
template <class Fields>
Node node_from(const Fields& fields) {
    const auto number = [&](const char* name, int fallback) {
        return fields.has(name) ? fields.integer(name) : fallback;
    };
    const auto numbers = [&](const char* name) {
        return fields.has(name) ? fields.integers(name) : std::vector<int>();
    };
    const auto tensor = [&](const char* name) { return fields.has(name) ? fields.tensor(name) : Tensor{}; };
    Node node;
    node.kind = node_kind_named(fields.text("kind"));
    node.input = number("input", -1);
    node.output = number("output", -1);
    node.residual = number("residual", -1);
    node.gate = number("gate", -1);
    if (fields.has("name")) node.name = fields.text("name");
    node.pooled = numbers("pooled");
    node.groups = number("groups", 1);
    node.primary_dilation = number("primary_dilation", 1);
    node.kernel = number("kernel", 1);
    node.pad = number("pad", 0);
    node.pad_end = number("pad_end", 0);
    node.stride = number("stride", 1);
    node.dilation_h = number("dilation_h", 1);
    node.dilation_w = number("dilation_w", 1);
    node.like = number("like", -1);
    node.out_h = number("out_h", 0);
    node.out_w = number("out_w", 0);
    node.factor = number("factor", 0);
    node.counts_padding = number("counts_padding", 0) != 0;
    node.is_bilinear = number("is_bilinear", 0) != 0;
    node.aligns_corners = number("aligns_corners", 0) != 0;
    node.ends_group = number("ends_group", 0) != 0;
    node.pads = numbers("pads");
    node.sources = numbers("sources");
    if (fields.has("slope")) node.slope = fields.real("slope");
    if (fields.has("inner_activation")) node.inner_activation = activation_named(fields.text("inner_activation"));
    if (fields.has("activation")) node.activation = activation_named(fields.text("activation"));
    node.weight = tensor("weight");
    node.bias = tensor("bias");
    node.second_weight = tensor("second_weight");
    node.second_bias = tensor("second_bias");
    return node;
}

}  // namespace ghostnets
