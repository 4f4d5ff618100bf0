// Checks a plan before anything is computed from it: a plan may come from an untrusted file. What holds after this is
// relied upon everywhere else; sizes that depend on the images are checked by Planner::check_work and check_memory.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>

#include "engine/plan.hpp"

namespace ghostnets {

namespace {

// Limits far above any network of the package, so that products of a few numbers fit in an int.
constexpr int kMaxNodes = 4096, kMaxMaps = 8192, kMaxSegments = 1024, kMaxChannels = 1 << 20;
constexpr int kMaxKernel = 63, kMaxStride = 64, kMaxDilation = 64, kMaxPad = 4096, kMaxOutput = 1 << 14;
constexpr std::int64_t kMaxValues = std::int64_t(1) << 28;  // per tensor
constexpr float kMaxMagnitude = 1e18f;                      // products of two are finite

bool within(int value, int low, int high) { return low <= value && value <= high; }

bool is_finite(const std::vector<float>& values) {
    for (const float value : values)
        if (!std::isfinite(value)) return false;
    return true;
}

std::string described(const Node& node) { return std::string(node_kind_name(node.kind)) + " node " + node.name; }

class PlanCheck {
public:
    explicit PlanCheck(const Plan& plan) : plan_(plan), written_(plan.layouts.size()), is_float_(plan.layouts.size()) {}

    void check() {
        check_header();
        for (const int map : plan_.floats) is_float_[map] = true;
        for (const Tensor& range : plan_.ranges)
            if (range.data) check_tensor(range, "a range");
        require(!plan_.nodes.empty() && plan_.nodes.front().kind == NodeKind::stem, "it does not begin with a stem");
        for (const Node& node : plan_.nodes) check(node);
    }

private:
    void check_header() const {
        const std::size_t channels = std::size_t(plan_.in_channels);
        require(within(plan_.in_channels, 1, 4096), "its images have an impossible number of channels");
        require(plan_.scale.size() == channels && plan_.shift.size() == channels,
                "its normalisation has a different number of channels");
        require(is_finite(plan_.scale) && is_finite(plan_.shift), "its normalisation has a non-finite value");
        require(plan_.nodes.size() <= kMaxNodes && plan_.layouts.size() <= kMaxMaps, "it has too many nodes or maps");
        for (const int map : plan_.floats)
            require(within(map, 0, int(plan_.layouts.size()) - 1), "it stores a map in float32 that it does not have");
        for (const Layout& layout : plan_.layouts) {
            require(within(layout.segments, 1, kMaxSegments) && within(layout.channels, 1, kMaxChannels) &&
                        std::int64_t(layout.segments) * round_up(layout.channels, kChannelBlock) <= kMaxChannels,
                    "a map has an impossible number of channels");
        }
    }

    // Each tensor belongs to one place, so that the memory of a network is bounded by the size of its file.
    void check_tensor(const Tensor& tensor, const std::string& owner) {
        std::int64_t values = 1;
        for (const int side : tensor.shape) {
            require(side >= 1, owner + " has a tensor without values");
            values *= side;
            require(values <= kMaxValues, owner + " has a tensor that is too large");
        }
        require(!tensor.shape.empty() && tensor.shape.size() <= 4, owner + " has a tensor of impossible shape");
        require(tensors_.insert(tensor.data).second, owner + " shares a tensor with another node");
        // The message is composed once, not for each of the millions of values.
        const bool is_bounded = std::all_of(tensor.data, tensor.data + values,
                                            [](float value) { return std::abs(value) <= kMaxMagnitude; });
        require(is_bounded, owner + " has a value that is not finite, or above 1e18");
    }

    void check_tensors(const Node& node) {
        const bool has_weights = node.kind == NodeKind::stem || node.kind == NodeKind::ghost ||
                                 node.kind == NodeKind::conv || node.kind == NodeKind::depthwise ||
                                 node.kind == NodeKind::squeeze_excite || node.kind == NodeKind::mix ||
                                 node.kind == NodeKind::linear;
        const bool has_second = !node.second_weight.shape.empty();
        require(has_weights == !node.weight.shape.empty() && has_weights == !node.bias.shape.empty() &&
                    has_second == !node.second_bias.shape.empty(),
                described(node) + " has missing or surplus weights");
        for (const Tensor* tensor : {&node.weight, &node.bias, &node.second_weight, &node.second_bias})
            if (!tensor->shape.empty()) check_tensor(*tensor, described(node));
    }

    void check_window(const Node& node) const {
        const std::string owner = described(node);
        require(within(node.stride, 1, kMaxStride) && within(node.dilation_h, 1, kMaxDilation) &&
                    within(node.dilation_w, 1, kMaxDilation) && within(node.primary_dilation, 1, kMaxDilation),
                owner + " has an impossible stride or dilation");
        require(within(node.kernel, 1, 15) && within(node.pad, 0, node.dilation_h * node.kernel - 1) &&
                    within(node.pad_end, 0, node.dilation_h * node.kernel),
                owner + " has an impossible kernel or padding");
        require(node.pads.empty() ||
                    (node.pads.size() == 4 &&
                     std::all_of(node.pads.begin(), node.pads.end(), [](int pad) { return within(pad, 0, kMaxPad); })),
                owner + " has an impossible padding");
        for (const Tensor* tensor : {&node.weight, &node.second_weight}) {
            if (tensor->shape.size() != 4) continue;
            const int height = tensor->size(2), width = tensor->size(3);
            require(within(height, 1, kMaxKernel) && within(width, 1, kMaxKernel),
                    owner + " has a kernel of an impossible side");
            const bool is_same = tensor == &node.second_weight || node.pads.empty();
            require(!is_same || (height % 2 && width % 2), owner + " has a kernel of an even side, and no padding");
        }
    }

    void check_kind(const Node& node) const {
        const std::string owner = described(node);
        require(node.pads.empty() || node.kind == NodeKind::conv || node.kind == NodeKind::depthwise ||
                    node.kind == NodeKind::stem,
                owner + " has padding");
        require(has_activation(node.kind) || node.activation == Activation::none, owner + " has an activation");
        // A Ghost module and a mix apply ReLU as they store.
        const bool is_fused =
            node.kind == NodeKind::ghost || node.kind == NodeKind::mix || !node.second_weight.shape.empty();
        require(!is_fused || node.kind == NodeKind::squeeze_excite || node.activation <= Activation::relu,
                owner + " has an activation that it does not support");
        require(std::isfinite(node.slope) && within_slope(node.slope), owner + " has an impossible slope");
        require(node.kind == NodeKind::conv || node.groups == 1, owner + " has groups");
        const bool reads_list = node.kind == NodeKind::mix || node.kind == NodeKind::arrange;
        require(reads_list == !node.pooled.empty() && node.pooled.size() <= 256,
                owner + " has an impossible number of maps");
        require((node.kind == NodeKind::arrange) == !node.sources.empty() && node.sources.size() <= kMaxChannels &&
                    std::all_of(node.sources.begin(), node.sources.end(),
                                [](int source) { return within(source, -1, 256 * kMaxChannels); }),
                owner + " has impossible sources");
        require(node.gate < 0 || node.kind == NodeKind::ghost, owner + " has a gate");
        require(node.residual < 0 || node.kind == NodeKind::ghost || is_binary(node.kind), owner + " has a residual");
        const bool is_vector =
            node.kind == NodeKind::linear || node.kind == NodeKind::squeeze_excite || node.kind == NodeKind::mix;
        require(!is_vector || node.weight.shape.size() == 2, owner + " has weights of impossible shape");
        require(!is_vector || node.kind == NodeKind::linear || node.second_weight.shape.size() == 2,
                owner + " has weights of impossible shape");
        check_size(node);
    }

    static bool is_binary(NodeKind kind) {
        return kind == NodeKind::add || kind == NodeKind::multiply || kind == NodeKind::scale;
    }

    static bool within_slope(float slope) { return slope >= 0 && slope <= 1; }

    static bool has_activation(NodeKind kind) {
        return is_binary(kind) || kind == NodeKind::stem || kind == NodeKind::ghost || kind == NodeKind::conv ||
               kind == NodeKind::depthwise || kind == NodeKind::linear || kind == NodeKind::squeeze_excite ||
               kind == NodeKind::mix;
    }

    // An output size is given in one way.
    void check_size(const Node& node) const {
        const std::string owner = described(node);
        const bool has_size = node.out_h != 0 || node.out_w != 0;
        require(!has_size || (within(node.out_h, 1, kMaxOutput) && within(node.out_w, 1, kMaxOutput)),
                owner + " has an output of an impossible size");
        if (node.kind == NodeKind::adaptive_pool) {
            require(has_size && node.like == -1 && node.factor == 0, owner + " has no size");
        } else if (node.kind == NodeKind::resize) {
            require(int(has_size) + int(node.like != -1) + int(node.factor != 0) == 1 && within(node.factor, 0, 64),
                    owner + " has no size, or two");
        } else {
            require(!has_size && node.like == -1 && node.factor == 0, owner + " has a size");
        }
    }

    void check_maps(const Node& node) {
        const std::string owner = described(node);
        const int maps = int(written_.size());
        require(within(node.output, 0, maps - 1) && !written_[node.output],
                owner + " writes no map, or a map that is already written");
        std::vector<int> read = node.pooled;
        for (const int map : {node.residual, node.gate})
            if (map != -1) read.push_back(map);
        if (node.like != -1 && node.like != images_) read.push_back(node.like);
        if (node.kind == NodeKind::stem) {
            require(&node == &plan_.nodes.front(), "it has two stems");
            require(within(node.input, 0, maps - 1) && node.input != node.output &&
                        plan_.layouts[node.input].segments == 1 &&
                        plan_.layouts[node.input].channels == plan_.in_channels,
                    owner + " reads a map other than the images");
            images_ = node.input;
        } else if (node.kind != NodeKind::arrange) {
            read.push_back(node.input);
        } else {
            require(node.input == -1, owner + " has an input in addition to its maps");
        }
        for (const int map : read)
            require(within(map, 0, maps - 1) && written_[map] && map != images_,
                    owner + " reads a map before it is written");
        // The mean and linear layers read one type and write another; so does a stem, which reads the images.
        const bool may_convert = node.kind == NodeKind::convert || node.kind == NodeKind::stem ||
                                 node.kind == NodeKind::pool || node.kind == NodeKind::linear ||
                                 node.kind == NodeKind::output;
        require(may_convert || std::all_of(read.begin(), read.end(),
                                           [&](int map) {
                                               return (map == node.like && map != node.input) ||
                                                      is_float_[map] == is_float_[node.output];
                                           }),
                owner + " reads and writes maps of different types");
        written_[node.output] = true;
        written_[images_] = true;
        check_order(node);
    }

    // After the mean over all pixels there are linear layers alone, each on the output of the one before.
    void check_order(const Node& node) {
        const std::string owner = described(node);
        if (node.kind == NodeKind::linear)
            require(pooled_ >= 0 && node.input == pooled_, owner + " does not follow the mean");
        else require(pooled_ < 0, owner + " follows the mean over all pixels");
        if (node.kind == NodeKind::pool || node.kind == NodeKind::linear) pooled_ = node.output;
        for (const int map : node.pooled) require(outputs_.count(map) == 0, owner + " reads an output");
        require(outputs_.count(node.input) == 0 && outputs_.count(node.residual) == 0 &&
                    outputs_.count(node.gate) == 0 && outputs_.count(node.like) == 0,
                owner + " reads an output");
        if (node.kind == NodeKind::output) {
            require(plan_.layouts[node.output].matches(plan_.layouts[node.input]),
                    owner + " has a different shape from its map");
            outputs_.insert(node.output);
        }
    }

    void check(const Node& node) {
        require(node.name.size() <= 4096, "a name is too long");
        check_tensors(node);
        check_window(node);
        check_kind(node);
        check_maps(node);
    }

    const Plan& plan_;
    std::vector<bool> written_, is_float_;
    std::set<const float*> tensors_;
    std::set<int> outputs_;  // maps that only the caller reads
    int images_ = -1, pooled_ = -1;
};

}  // namespace

void check_plan(const Plan& plan) { PlanCheck(plan).check(); }

}  // namespace ghostnets
