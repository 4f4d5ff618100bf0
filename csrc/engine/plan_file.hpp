// Reads the files that Session.save of ghostnets/engine writes: safetensors, with the plan as JSON in its metadata.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "engine/plan.hpp"

namespace ghostnets {

struct PlanFile {
    Plan plan;  // of the file's precision; float32 where that is "auto"
    bool takes_bytes = false;  // whether it knows the normalisation of uint8 images
    std::map<std::string, std::string> metadata;  // of the file, apart from the plan
    std::deque<std::vector<float>> tensors;       // that the plan points to
};

// Without trust: throws std::invalid_argument with the fault. Plan and weights are checked further by the Network.
PlanFile read_plan_file(const std::string& path);

}  // namespace ghostnets
