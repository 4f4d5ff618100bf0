// Values of a JSON text, which may come from an untrusted file.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ghostnets {

struct Json {
    enum class Kind { null, boolean, number, text, list, mapping };

    Kind kind = Kind::null;
    double number = 0;  // of a boolean 0 or 1
    bool is_integer = false;  // whether a number is written without fraction and exponent
    std::string text;
    std::vector<Json> items;  // of a list, or the values of a mapping
    std::vector<std::string> keys;

    // Value of a key; null if there is none. Of several the first.
    const Json* find(std::string_view key) const {
        for (std::size_t i = 0; i < keys.size(); ++i)
            if (keys[i] == key) return &items[i];
        return nullptr;
    }

    // Throws std::invalid_argument for a text that is not JSON, is nested deeper than 32 levels or has more than two
    // million values.
    static Json parse(std::string_view text);
};

}  // namespace ghostnets
