#pragma once

/// The duty to answer once. Whoever holds a Reply<T> calls it with a result; if it is destroyed
/// unused, the one who waits is told so (cancelled) instead of waiting for ever. Move-only; the
/// answer is delivered on the thread that gives it.

#include "base/result.h"

#include <functional>
#include <utility>

namespace godwit::control {

template <typename T>
class Reply {
  public:
    using Deliver = std::move_only_function<void(Result<T>)>;

    Reply() = default;
    explicit Reply(Deliver deliver) : deliver_(std::move(deliver)) {}
    Reply(Reply&& other) noexcept : deliver_(std::exchange(other.deliver_, nullptr)) {}
    Reply& operator=(Reply&& other) noexcept {
        if (this != &other) {
            abandon();
            deliver_ = std::exchange(other.deliver_, nullptr);
        }
        return *this;
    }
    Reply(const Reply&) = delete;
    Reply& operator=(const Reply&) = delete;
    ~Reply() { abandon(); }

    /// Answers. A second answer is dropped.
    void operator()(Result<T> result) {
        if (Deliver deliver = std::exchange(deliver_, nullptr); deliver) {
            deliver(std::move(result));
        }
    }
    /// Gives the duty up: the failure is reported in another way.
    void dismiss() noexcept { deliver_ = nullptr; }
    [[nodiscard]] bool pending() const noexcept { return static_cast<bool>(deliver_); }

  private:
    void abandon() noexcept {
        if (deliver_) {
            (*this)(Error(ErrorCode::cancelled, "godwitd ends and gives no answer any more"));
        }
    }
    Deliver deliver_;
};

} // namespace godwit::control
