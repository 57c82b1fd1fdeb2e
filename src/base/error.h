#pragma once

/// The one error type of the project: a plain, owning value that travels up inside Result<T>.
///
/// It holds what failed (code), what the kernel said (errno), a text for the operator and the chain
/// of contexts added on the way up. It is printed once, at the top, by to_string(). Thread rule: a
/// value.

#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>

namespace godwit {

/// What kind of failure it is; decides exit codes and HTTP statuses. Numbers are never reused.
enum class ErrorCode : std::uint8_t {
    invalid_argument = 1,   ///< The caller's or operator's input is wrong.
    not_found = 2,          ///< A named thing does not exist.
    already_exists = 3,     ///< A name is taken.
    permission_denied = 4,  ///< The kernel or a policy refuses.
    busy = 5,               ///< In use by someone else (a locked image, a running operation).
    resource_exhausted = 6, ///< Memory, space, descriptors or a named limit is used up.
    corrupt = 7,            ///< Bytes from outside are not what their format says.
    unsupported = 8,        ///< This build, kernel or machine cannot do it.
    timeout = 9,            ///< A deadline passed.
    cancelled = 10,         ///< Someone asked to stop.
    peer_closed = 11,       ///< The other side went away.
    io = 12,                ///< A device or the kernel failed an operation.
    conflict = 13, ///< The state of things does not allow it now (wrong phase, lost owner record).
    internal = 14, ///< Our own mistake, reported instead of crashing.
};

/// The code's name as it stands in JSON ("not_found").
[[nodiscard]] std::string_view name_of(ErrorCode code) noexcept;

class [[nodiscard]] Error {
  public:
    /// `message` is a sentence for the operator without a full stop: what failed and what to do.
    Error(ErrorCode code,
          std::string message,
          std::source_location where = std::source_location::current());

    /// An error of a system call: `message` plus the text of `os_errno`; the code follows from it.
    [[nodiscard]] static Error
    from_errno(int os_errno,
               std::string message,
               std::source_location where = std::source_location::current());

    [[nodiscard]] ErrorCode code() const noexcept { return code_; }
    /// The errno behind it, 0 when there is none.
    [[nodiscard]] int os_errno() const noexcept { return os_errno_; }
    [[nodiscard]] const std::string& message() const noexcept { return message_; }
    [[nodiscard]] const std::source_location& where() const noexcept { return where_; }

    /// Puts "context: " in front of the message. Add it only where the caller knows something new.
    [[nodiscard]] Error with_context(std::string_view context) &&;

    /// The text shown to a person: contexts and message.
    [[nodiscard]] const std::string& to_string() const noexcept { return message_; }

  private:
    ErrorCode code_;
    int os_errno_ = 0;
    std::string message_;
    std::source_location where_;
};

} // namespace godwit
