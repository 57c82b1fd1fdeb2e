#pragma once

/// Reading and writing JSON that comes from, or goes to, somebody else.
///
/// parse_json() refuses text over its limits before anything recursive sees it; JsonObject reads
/// the members of one object strictly and names the place in its
/// errors ("request: /timeout_s is 0: ...").
/// Answers of a VMM are read leniently with text_member() and number_member(). Any thread; values.

#include "base/result.h"
#include "base/units.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace godwit::control {

using Json = nlohmann::json;

struct JsonLimits {
    std::size_t bytes_max = 128 * kib;
    std::size_t depth_max = 32;
};

/// invalid_argument if it is not JSON or exceeds the limits.
[[nodiscard]] Result<Json> parse_json(std::string_view text, JsonLimits limits = {});
/// One line; bytes that are not UTF-8 are replaced.
[[nodiscard]] std::string json_text(const Json& value);

/// Strict reader of one object.
class JsonObject {
  public:
    /// `path` names the object in errors. invalid_argument if `value` is not an object; it must
    /// outlive the reader.
    [[nodiscard]] static Result<JsonObject> of(const Json& value, std::string path = "");

    [[nodiscard]] Result<std::optional<std::string>> text(std::string_view name,
                                                          std::size_t bytes_max);
    [[nodiscard]] Result<std::string> required_text(std::string_view name, std::size_t bytes_max);
    struct Range {
        std::uint64_t min = 0;
        std::uint64_t max = std::numeric_limits<std::uint64_t>::max();
    };
    [[nodiscard]] Result<std::optional<std::uint64_t>> number(std::string_view name, Range range);
    [[nodiscard]] Result<std::uint64_t> required_number(std::string_view name, Range range);
    /// A number from 0 to 1.
    [[nodiscard]] Result<std::optional<double>> fraction(std::string_view name);
    [[nodiscard]] Result<bool> flag(std::string_view name, bool otherwise);
    /// Refuses members nobody asked for.
    [[nodiscard]] Status finish() const;

  private:
    JsonObject(const Json& value, std::string path) : value_(&value), path_(std::move(path)) {}
    const Json* find(std::string_view name);
    [[nodiscard]] Error wrong(std::string_view name, std::string_view expected) const;
    [[nodiscard]] Error missing(std::string_view name) const;

    const Json* value_;
    std::string path_;
    std::set<std::string, std::less<>> asked_;
};

/// A text member of an object, or `otherwise` if it is absent or something else; at most 1 KiB of
/// it.
[[nodiscard]] std::string
text_member(const Json& object, std::string_view name, std::string_view otherwise = {});
[[nodiscard]] std::uint64_t
number_member(const Json& object, std::string_view name, std::uint64_t otherwise = 0);

/// {"code","message"} and "path" when the message begins with one.
[[nodiscard]] Json json_of(const Error& error);
/// The error inside {"code","message"} as somebody sent it; internal if it makes no sense.
[[nodiscard]] Error error_of(const Json& object);
/// The code with this name, internal if there is none.
[[nodiscard]] ErrorCode error_code_named(std::string_view name) noexcept;

} // namespace godwit::control
