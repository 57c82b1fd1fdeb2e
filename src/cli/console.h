#pragma once

/// A console of a machine on this terminal or on pipes.
///
/// On a terminal: raw mode, left with Ctrl-] and then '.'; Ctrl-] twice sends one. On pipes: stdin
/// goes to the guest until its end, stdout gets what the guest prints until it ends. The connection
/// is made anew by itself when the VMM is exchanged. One thread.

#include "base/result.h"
#include "cli/daemon_client.h"

#include <string>
#include <string_view>

namespace godwit::cli {

enum class ConsoleEnd : int { left, machine_gone };

/// Attaches to the console `port` ("serial" or "virtio") of a machine until the user leaves or the
/// machine is gone.
[[nodiscard]] Result<ConsoleEnd>
attach_console(const DaemonClient& daemon, const std::string& machine, const std::string& port);

/// Finds the escape sequence in what is typed. Holds no more than one byte back.
class EscapeFilter {
  public:
    static constexpr char escape = 0x1D; ///< Ctrl-]
    /// Adds what goes to the guest to `out`; true when the user wants to leave.
    [[nodiscard]] bool feed(std::string_view typed, std::string& out);

  private:
    bool pending_ = false;
};

} // namespace godwit::cli
