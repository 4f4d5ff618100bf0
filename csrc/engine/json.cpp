#include "engine/json.hpp"

#include <locale>
#include <sstream>

namespace ghostnets {

namespace {

constexpr int kMaxDepth = 32, kMaxValues = 2'000'000;

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json parse() {
        Json value = read(0);
        skip_space();
        demand(at_ == text_.size());
        return value;
    }

private:
    static void demand(bool condition) {
        if (!condition) throw std::invalid_argument("its description is not JSON");
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    bool take(char expected) {
        if (peek() != expected || at_ >= text_.size()) return false;
        ++at_;
        return true;
    }
    void skip_space() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
    }

    Json read(int depth) {
        demand(depth < kMaxDepth && ++values_ <= kMaxValues);
        skip_space();
        Json value;
        const char first = peek();
        if (first == '{' || first == '[') {
            read_items(value, depth);
        } else if (first == '"') {
            value.kind = Json::Kind::text;
            value.text = read_text();
        } else if (first == '-' || (first >= '0' && first <= '9')) {
            read_number(value);
        } else {
            read_word(value);
        }
        return value;
    }

    void read_items(Json& value, int depth) {
        const bool is_mapping = take('{');
        if (!is_mapping) demand(take('['));
        const char end = is_mapping ? '}' : ']';
        value.kind = is_mapping ? Json::Kind::mapping : Json::Kind::list;
        skip_space();
        if (take(end)) return;
        do {
            if (is_mapping) {
                skip_space();
                value.keys.push_back(read_text());
                skip_space();
                demand(take(':'));
            }
            value.items.push_back(read(depth + 1));
            skip_space();
        } while (take(','));
        demand(take(end));
    }

    void read_word(Json& value) {
        for (const std::string_view word : {"null", "true", "false"}) {
            if (text_.substr(at_, word.size()) != word) continue;
            at_ += word.size();
            value.kind = word == "null" ? Json::Kind::null : Json::Kind::boolean;
            value.number = word == "true";
            return;
        }
        demand(false);
    }

    void read_number(Json& value) {
        const std::size_t start = at_;
        while (at_ < text_.size() && std::string_view("+-.eE0123456789").find(text_[at_]) != std::string_view::npos)
            ++at_;
        const std::string digits(text_.substr(start, at_ - start));
        demand(digits.size() <= 400);
        std::istringstream stream(digits);
        stream.imbue(std::locale::classic());
        value.kind = Json::Kind::number;
        demand(bool(stream >> value.number) && stream.peek() == std::istringstream::traits_type::eof());
        value.is_integer = digits.find_first_of(".eE") == std::string::npos;
    }

    unsigned read_hex() {
        unsigned code = 0;
        for (int i = 0; i < 4; ++i) {
            const std::size_t digit = std::string_view("0123456789abcdef").find(char(peek() | 0x20));
            demand(at_++ < text_.size() && digit != std::string_view::npos);
            code = code * 16 + unsigned(digit);
        }
        return code;
    }

    void append(std::string& to, unsigned code) {
        if (code < 0x80) {
            to += char(code);
            return;
        }
        const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        to += char((more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0) | (code >> (6 * more)));
        for (int i = more - 1; i >= 0; --i) to += char(0x80 | ((code >> (6 * i)) & 0x3f));
    }

    std::string read_text() {
        demand(take('"'));
        std::string found;
        while (!take('"')) {
            demand(at_ < text_.size() && static_cast<unsigned char>(peek()) >= 0x20);
            const char next = text_[at_++];
            if (next != '\\') {
                found += next;
                continue;
            }
            const char escape = peek();
            ++at_;
            const std::size_t plain = std::string_view("\"\\/bfnrt").find(escape);
            if (escape == 'u') {
                unsigned code = read_hex();
                if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
                    at_ += 2;
                    code = 0x10000 + ((code - 0xd800) << 10) + ((read_hex() - 0xdc00) & 0x3ff);
                }
                append(found, code);
            } else {
                demand(escape != '\0' && plain != std::string_view::npos);
                found += "\"\\/\b\f\n\r\t"[plain];
            }
        }
        return found;
    }

    const std::string_view text_;
    std::size_t at_ = 0;
    int values_ = 0;
};

}  // namespace

Json Json::parse(std::string_view text) { return Parser(text).parse(); }

}  // namespace ghostnets
