#pragma once

/// Named moments in the order they came, for what must be quick and is to be explained afterwards.
/// Allocates nothing while it is filled. One thread.

#include "sys/clock.h"

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace godwit::sys {

class TimeLine {
  public:
    static constexpr std::size_t marks_max = 16;
    struct Mark {
        std::string_view name; ///< Lives as long as the program.
        Moment at;
    };

    explicit TimeLine(const Clock& clock) : clock_(&clock) {}
    /// What ends now. Beyond marks_max nothing is kept.
    void mark(std::string_view name) noexcept {
        if (count_ < marks_max) {
            marks_[count_++] = {.name = name, .at = clock_->now()};
        }
    }
    [[nodiscard]] std::span<const Mark> marks() const noexcept {
        return std::span(marks_).first(count_);
    }

  private:
    const Clock* clock_;
    std::array<Mark, marks_max> marks_{};
    std::size_t count_ = 0;
};

} // namespace godwit::sys
