#include "engine/plan_file.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>

#include "engine/json.hpp"
#include "engine/node_fields.hpp"

namespace ghostnets {

namespace {

constexpr std::uint64_t kMaxHeader = 16 << 20;
constexpr const char* kPlanKey = "ghostnets.engine";
constexpr int kFormatVersion = 2, kMaxCount = 8192, kMaxChannels = 1 << 20, kMaxNumber = 1 << 15;
constexpr long kMaxOutputChannels = 1 << 22;

int integer(const Json& value, int low, int high) {
    require(value.kind == Json::Kind::number && value.is_integer && value.number >= low && value.number <= high,
            "a number of it is no integer from " + std::to_string(low) + " to " + std::to_string(high));
    return int(value.number);
}

float real(const Json& value) {
    require(value.kind == Json::Kind::number && std::abs(value.number) <= 1e6, "a number of it is above a million");
    return float(value.number);
}

const std::string& text(const Json& value) {
    require(value.kind == Json::Kind::text, "a name of it is no text");
    return value.text;
}

const Json& field(const Json& of, const char* name) {
    const Json* found = of.find(name);
    require(found, std::string("it has no field ") + name);
    return *found;
}

const std::vector<Json>& list(const Json& value, std::size_t longest) {
    require(value.kind == Json::Kind::list && value.items.size() <= longest, "a list of it is none, or too long");
    return value.items;
}

// The tensors of a safetensors file. Each is read when it is named, and once.
class Tensors {
public:
    Tensors(const std::string& path, PlanFile& to) : file_(path, std::ios::binary), to_(to) {
        static_assert(std::endian::native == std::endian::little);
        if (!file_) throw std::invalid_argument("there is no file " + path + ", or it cannot be read");
        file_.seekg(0, std::ios::end);
        const std::uint64_t size = std::uint64_t(file_.tellg());
        std::uint64_t length = 0;
        file_.seekg(0);
        file_.read(reinterpret_cast<char*>(&length), sizeof length);
        require(bool(file_) && length <= kMaxHeader && length + 8 <= size, "its header is longer than the file");
        std::string text(length, '\0');
        file_.read(text.data(), std::streamsize(length));
        require(bool(file_), "it ends within its header");
        header = Json::parse(text);
        require(header.kind == Json::Kind::mapping, "its header is no mapping");
        start_ = 8 + length;
        bytes_ = left_ = size - start_;
    }

    Tensor named(const std::string& name) {
        require(name != "__metadata__" && names_.insert(name).second, "it uses a tensor twice");
        const Json& entry = field(header, name.c_str());
        require(text(field(entry, "dtype")) == "F32", "a tensor of it is not float32");
        const std::vector<Json>& offsets = list(field(entry, "data_offsets"), 2);
        require(offsets.size() == 2, "a tensor of it has no place");
        const auto offset = [&](const Json& value) {
            require(value.kind == Json::Kind::number && value.is_integer && value.number >= 0 &&
                        value.number <= double(bytes_),
                    "a tensor of it lies outside of the file");
            return std::uint64_t(value.number);
        };
        const std::uint64_t from = offset(offsets[0]), to = offset(offsets[1]);
        Tensor tensor;
        std::uint64_t values = 1;
        for (const Json& side : list(field(entry, "shape"), 4)) {
            tensor.shape.push_back(integer(side, 1, 1 << 30));
            values *= std::uint64_t(tensor.shape.back());
            require(values <= bytes_ / 4, "a tensor of it is larger than the file");
        }
        require(from <= to && to - from == 4 * values && to - from <= left_, "a tensor of it has another size");
        left_ -= to - from;  // tensors that overlap would need more memory than the file has bytes
        std::vector<float>& data = to_.tensors.emplace_back(values);
        file_.seekg(std::streamoff(start_ + from));
        file_.read(reinterpret_cast<char*>(data.data()), std::streamsize(to - from));
        require(bool(file_), "it ends within a tensor");
        tensor.data = data.data();
        return tensor;
    }

    Json header;

private:
    std::ifstream file_;
    PlanFile& to_;
    std::set<std::string> names_;
    std::uint64_t start_ = 0, bytes_ = 0, left_ = 0;
};

// The fields of a node, for node_from.
struct NodeFields {
    const Json& json;
    Tensors& tensors;

    bool has(const char* name) const { return json.find(name) != nullptr; }
    int integer(const char* name) const { return ghostnets::integer(field(json, name), -1, kMaxNumber); }
    float real(const char* name) const { return ghostnets::real(field(json, name)); }
    const std::string& text(const char* name) const { return ghostnets::text(field(json, name)); }
    Tensor tensor(const char* name) const { return tensors.named(text(name)); }
    std::vector<int> integers(const char* name) const {
        std::vector<int> found;
        for (const Json& value : list(field(json, name), kMaxChannels))
            found.push_back(ghostnets::integer(value, -1, 256 * kMaxChannels));
        return found;
    }
};

// A layout, and the position of each channel of the network, as Layout in ghostnets/engine/plan.py has them.
struct FileLayout {
    int out_channels, segments;
    bool is_grouped;

    explicit FileLayout(const Json& json) {
        const std::vector<Json>& values = list(json, 3);
        require(values.size() == 3 && values[2].kind == Json::Kind::boolean, "a layout of it is damaged");
        out_channels = integer(values[0], 1, kMaxChannels);
        segments = integer(values[1], 1, 1024);
        is_grouped = values[2].number != 0;
        require(!is_grouped || out_channels % segments == 0, "its groups do not divide its channels");
    }
    int channels() const { return (out_channels + segments - 1) / segments; }
    std::vector<int> positions() const {
        std::vector<int> found(static_cast<std::size_t>(out_channels));
        for (int c = 0; c < out_channels; ++c) {
            const int ghost = c - channels(), others = segments - 1;
            found[c] = is_grouped || ghost < 0 ? c : (1 + ghost % others) * channels() + ghost / others;
        }
        return found;
    }
};

void read_normalisation(const Json& description, PlanFile& file) {
    Plan& plan = file.plan;
    const std::vector<Json>&mean = list(field(description, "mean"), 4096), &std = list(field(description, "std"), 4096);
    plan.in_channels = integer(field(description, "in_channels"), 1, 4096);
    file.takes_bytes = !mean.empty();
    require(mean.size() == std.size() && (mean.empty() || int(mean.size()) == plan.in_channels),
            "its normalisation has a different number of channels");
    for (int c = 0; c < plan.in_channels; ++c) {
        const double deviation = file.takes_bytes ? std[c].number : 1, average = file.takes_bytes ? mean[c].number : 0;
        if (file.takes_bytes) real(std[c]), real(mean[c]);  // throw unless they are numbers
        require(deviation >= 1e-6, "a value of its std is below 1e-6");
        plan.scale.push_back(float(1 / (255 * deviation)));
        plan.shift.push_back(float(-average / deviation));
    }
}

void read_description(const Json& description, Tensors& tensors, PlanFile& file) {
    require(description.kind == Json::Kind::mapping, "its plan is no mapping");
    const Json& version = field(description, "format_version");
    require(version.kind == Json::Kind::number && version.number == kFormatVersion, "it has another plan format");
    Plan& plan = file.plan;
    read_normalisation(description, file);
    const std::string& precision = text(field(description, "precision"));
    plan.precision = precision == "auto" ? Type::f32 : type_named(precision);
    std::vector<FileLayout> layouts;
    for (const Json& layout : list(field(description, "layouts"), kMaxCount)) {
        layouts.emplace_back(layout);
        plan.layouts.push_back({layouts.back().segments, layouts.back().channels()});
    }
    const int maps = int(layouts.size());
    if (const Json* floats = description.find("floats"))
        for (const Json& map : list(*floats, layouts.size())) plan.floats.push_back(integer(map, 0, maps - 1));
    long total = 0;
    for (const Json& output : list(field(description, "outputs"), layouts.size())) {
        const FileLayout& layout = layouts[integer(output, 0, maps - 1)];
        require((total += layout.out_channels) <= kMaxOutputChannels, "its outputs have too many channels");
        plan.orders.push_back(layout.positions());
    }
    for (const Json& node : list(field(description, "nodes"), kMaxCount)) {
        require(node.kind == Json::Kind::mapping, "a node of it is no mapping");
        plan.nodes.push_back(node_from(NodeFields{node, tensors}));
    }
    for (const Json& range : list(field(description, "ranges"), 4 * kMaxCount))
        plan.ranges.push_back(range.kind == Json::Kind::null ? Tensor{} : tensors.named(text(range)));
}

}  // namespace

PlanFile read_plan_file(const std::string& path) {
    PlanFile file;
    Tensors tensors(path, file);
    const Json* metadata = tensors.header.find("__metadata__");
    require(metadata && metadata->kind == Json::Kind::mapping && metadata->find(kPlanKey),
            std::string("its metadata has no ") + kPlanKey);
    for (std::size_t i = 0; i < metadata->keys.size(); ++i)
        if (metadata->keys[i] != kPlanKey) file.metadata[metadata->keys[i]] = text(metadata->items[i]);
    const Json description = Json::parse(text(*metadata->find(kPlanKey)));
    read_description(description, tensors, file);
    return file;
}

}  // namespace ghostnets
