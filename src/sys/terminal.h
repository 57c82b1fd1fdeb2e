#pragma once

/// The terminal a person sits at. Owner thread only.

#include "base/result.h"
#include "sys/fd.h"

#include <memory>

namespace godwit::sys {

[[nodiscard]] bool is_terminal(const Fd& fd) noexcept;
/// Width in columns, 80 if unknown.
[[nodiscard]] unsigned terminal_columns(const Fd& fd) noexcept;
/// A second descriptor of standard input (0), output (1) or error (2).
[[nodiscard]] Result<Fd> standard_stream(int number);

/// Puts a terminal into raw mode and back: on destruction and, while it lives, when SIGHUP,
/// SIGTERM, SIGINT or SIGQUIT ends the process. At most one at a time.
class RawTerminal {
  public:
    [[nodiscard]] static Result<RawTerminal> enter(const Fd& fd);
    RawTerminal(RawTerminal&&) noexcept;
    RawTerminal& operator=(RawTerminal&&) noexcept;
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;
    ~RawTerminal();

  private:
    struct Saved;
    explicit RawTerminal(std::unique_ptr<Saved> saved) noexcept;
    std::unique_ptr<Saved> saved_;
};

} // namespace godwit::sys
