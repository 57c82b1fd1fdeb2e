#pragma once

/// Result<T>: a value or an Error, and the macros that pass it on.
///
///     Result<Fd> open_image(const std::string& path) {
///         Fd fd = GODWIT_TRY(sys::open(path, O_RDWR));
///         GODWIT_TRY(lock(fd));
///         return fd;
///     }
///
/// A derived class of std::expected, because GCC 12's is not [[nodiscard]] and a dropped error
/// would compile without a word.

#include "base/error.h"

#include <expected>
#include <string_view>
#include <type_traits>
#include <utility>

namespace godwit {

template <typename T>
class [[nodiscard]] Result : public std::expected<T, Error> {
  public:
    using Base = std::expected<T, Error>;
    using Base::Base;

    // NOLINTNEXTLINE(google-explicit-constructor): `return Error(...)` is how functions fail.
    Result(Error error) : Base(std::unexpect, std::move(error)) {}

    /// Adds a context to the error, if there is one.
    [[nodiscard]] Result with_context(std::string_view context) && {
        if (!this->has_value()) {
            return std::move(this->error()).with_context(context);
        }
        return std::move(*this);
    }
};

using Status = Result<void>;

/// The value for "done" of a function that returns Status.
[[nodiscard]] inline Status ok() {
    return {};
}

/// Drops a result on purpose; the reason is for the reader and for searching.
template <typename T>
void discard([[maybe_unused]] Result<T>&& result, [[maybe_unused]] std::string_view reason) {}

[[noreturn]] void abort_with(const char* what, const char* file, int line) noexcept;
[[noreturn]] void abort_with(const Error& error, const char* file, int line) noexcept;

namespace detail {
template <typename T>
struct Take {
    static T from(Result<T>& result) { return std::move(*result); }
};
template <>
struct Take<void> {
    static void from(Result<void>&) {}
};
template <typename T>
auto take(Result<T>& result) {
    return Take<T>::from(result);
}
} // namespace detail

} // namespace godwit

#define GODWIT_CONCAT2(a, b) a##b
#define GODWIT_CONCAT(a, b) GODWIT_CONCAT2(a, b)
#define GODWIT_TRY_IMPL(name, expr)                                                                \
    __extension__({                                                                                \
        auto name = (expr);                                                                        \
        if (!name.has_value()) [[unlikely]] {                                                      \
            return std::move(name.error());                                                        \
        }                                                                                          \
        ::godwit::detail::take(name);                                                              \
    })
/// The value of `expr`, or return its error from this function. The value is moved, never copied.
#define GODWIT_TRY(expr) GODWIT_TRY_IMPL(GODWIT_CONCAT(godwit_try_, __COUNTER__), expr)

#define GODWIT_MUST_IMPL(name, expr)                                                               \
    __extension__({                                                                                \
        auto name = (expr);                                                                        \
        if (!name.has_value()) [[unlikely]] {                                                      \
            ::godwit::abort_with(name.error(), __FILE__, __LINE__);                                \
        }                                                                                          \
        ::godwit::detail::take(name);                                                              \
    })
/// The value of an expression that cannot fail; a comment beside it must say why it cannot.
#define GODWIT_MUST(expr) GODWIT_MUST_IMPL(GODWIT_CONCAT(godwit_must_, __COUNTER__), expr)

/// Our own invariants only, never data from outside. Always on.
#define GODWIT_ASSERT(condition)                                                                   \
    do {                                                                                           \
        if (!(condition)) [[unlikely]] {                                                           \
            ::godwit::abort_with(#condition, __FILE__, __LINE__);                                  \
        }                                                                                          \
    } while (false)
