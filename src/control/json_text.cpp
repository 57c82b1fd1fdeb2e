#include "control/json_text.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

namespace {

constexpr std::size_t lenient_text_bytes_max = 1024;

/// Deepest nesting of brackets outside strings; exact for valid JSON, harmless for anything else.
std::size_t depth_of(std::string_view text) noexcept {
    std::size_t depth = 0;
    std::size_t deepest = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') {
                ++i;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            deepest = std::max(deepest, ++depth);
        } else if ((c == ']' || c == '}') && depth > 0) {
            --depth;
        }
    }
    return deepest;
}

/// A number not below 0; the library keeps parsed ones unsigned and assigned ones signed.
std::optional<std::uint64_t> whole_number(const Json& value) {
    if (value.is_number_unsigned()) {
        return value.get<std::uint64_t>();
    }
    if (value.is_number_integer() && value.get<std::int64_t>() >= 0) {
        return static_cast<std::uint64_t>(value.get<std::int64_t>());
    }
    return std::nullopt;
}

std::string shortened(std::string text) {
    constexpr std::size_t shown_bytes_max = 80;
    if (text.size() > shown_bytes_max) {
        text.resize(shown_bytes_max);
        text += "...";
    }
    return text;
}

} // namespace

Result<Json> parse_json(std::string_view text, JsonLimits limits) {
    if (text.size() > limits.bytes_max) {
        return Error(ErrorCode::invalid_argument,
                     "the JSON text has " + std::to_string(text.size()) + " bytes, " +
                         std::to_string(limits.bytes_max) + " is the limit");
    }
    if (depth_of(text) > limits.depth_max) {
        return Error(ErrorCode::invalid_argument,
                     "the JSON text is nested deeper than " + std::to_string(limits.depth_max));
    }
    Json value = Json::parse(text, nullptr, false);
    if (value.is_discarded()) {
        return Error(ErrorCode::invalid_argument,
                     "not JSON: '" + shortened(std::string(text)) + "'");
    }
    return value;
}

std::string json_text(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<JsonObject> JsonObject::of(const Json& value, std::string path) {
    if (!value.is_object()) {
        return Error(ErrorCode::invalid_argument,
                     "request: " + path + (path.empty() ? "" : " ") + "must be an object, not " +
                         shortened(json_text(value)));
    }
    return JsonObject(value, std::move(path));
}

const Json* JsonObject::find(std::string_view name) {
    asked_.emplace(name);
    const auto found = value_->find(name);
    return found == value_->end() || found->is_null() ? nullptr : &*found;
}

Error JsonObject::wrong(std::string_view name, std::string_view expected) const {
    const auto found = value_->find(name);
    const std::string shown = found == value_->end() ? "nothing" : shortened(json_text(*found));
    return Error(ErrorCode::invalid_argument,
                 "request: " + path_ + "/" + std::string(name) + " is " + shown + ": must be " +
                     std::string(expected));
}

Error JsonObject::missing(std::string_view name) const {
    return Error(ErrorCode::invalid_argument,
                 "request: " + path_ + "/" + std::string(name) + ": is missing");
}

Result<std::optional<std::string>> JsonObject::text(std::string_view name, std::size_t bytes_max) {
    const Json* const value = find(name);
    if (value == nullptr) {
        return std::optional<std::string>();
    }
    const auto* const text = value->get_ptr<const std::string*>();
    if (text == nullptr || text->size() > bytes_max || text->find('\0') != std::string::npos) {
        return wrong(name, "a text of at most " + std::to_string(bytes_max) + " bytes");
    }
    return std::optional(*text);
}

Result<std::string> JsonObject::required_text(std::string_view name, std::size_t bytes_max) {
    std::optional<std::string> value = GODWIT_TRY(text(name, bytes_max));
    if (!value.has_value()) {
        return missing(name);
    }
    return std::move(*value);
}

Result<std::optional<std::uint64_t>> JsonObject::number(std::string_view name, Range range) {
    const Json* const value = find(name);
    if (value == nullptr) {
        return std::optional<std::uint64_t>();
    }
    const std::optional<std::uint64_t> number = whole_number(*value);
    if (!number.has_value() || *number < range.min || *number > range.max) {
        return wrong(name,
                     "a whole number from " + std::to_string(range.min) + " to " +
                         std::to_string(range.max));
    }
    return number;
}

Result<std::uint64_t> JsonObject::required_number(std::string_view name, Range range) {
    const std::optional<std::uint64_t> value = GODWIT_TRY(number(name, range));
    if (!value.has_value()) {
        return missing(name);
    }
    return *value;
}

Result<std::optional<double>> JsonObject::fraction(std::string_view name) {
    const Json* const value = find(name);
    if (value == nullptr) {
        return std::optional<double>();
    }
    if (!value->is_number() || !(value->get<double>() >= 0 && value->get<double>() <= 1)) {
        return wrong(name, "a number from 0 to 1");
    }
    return std::optional(value->get<double>());
}

Result<bool> JsonObject::flag(std::string_view name, bool otherwise) {
    const Json* const value = find(name);
    if (value == nullptr) {
        return otherwise;
    }
    if (!value->is_boolean()) {
        return wrong(name, "true or false");
    }
    return value->get<bool>();
}

Status JsonObject::finish() const {
    for (const auto& [name, value] : value_->items()) {
        if (!asked_.contains(name)) {
            return Error(ErrorCode::invalid_argument,
                         "request: " + path_ + "/" + shortened(name) + ": is not known here");
        }
    }
    return ok();
}

std::string text_member(const Json& object, std::string_view name, std::string_view otherwise) {
    if (!object.is_object()) {
        return std::string(otherwise);
    }
    const auto found = object.find(name);
    if (found == object.end() || !found->is_string()) {
        return std::string(otherwise);
    }
    return found->get_ref<const std::string&>().substr(0, lenient_text_bytes_max);
}

std::uint64_t number_member(const Json& object, std::string_view name, std::uint64_t otherwise) {
    if (!object.is_object()) {
        return otherwise;
    }
    const auto found = object.find(name);
    return found == object.end() ? otherwise : whole_number(*found).value_or(otherwise);
}

namespace {

/// The JSON pointer (RFC 6901) with which errors about documents begin, if this is one.
std::string_view pointer_in(std::string_view message) {
    for (const std::string_view subject : {"request: ", "machine document: "}) {
        const std::size_t found = message.find(subject);
        if (found == std::string_view::npos) {
            continue;
        }
        const std::string_view rest = message.substr(found + subject.size());
        return rest.starts_with('/') ? rest.substr(0, rest.find_first_of(" :")) : "";
    }
    return {};
}

} // namespace

Json json_of(const Error& error) {
    Json body{{"code", name_of(error.code())}, {"message", error.to_string()}};
    const std::string_view pointer = pointer_in(error.to_string());
    if (!pointer.empty()) {
        body["path"] = pointer;
    }
    return body;
}

Error error_of(const Json& object) {
    return Error(error_code_named(text_member(object, "code")),
                 text_member(object, "message", "an error without a message"));
}

ErrorCode error_code_named(std::string_view name) noexcept {
    for (int number = 1; number <= static_cast<int>(ErrorCode::internal); ++number) {
        const auto code = static_cast<ErrorCode>(number);
        if (name_of(code) == name) {
            return code;
        }
    }
    return ErrorCode::internal;
}

} // namespace godwit::control
