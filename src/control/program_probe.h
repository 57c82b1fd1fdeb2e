#pragma once

/// Asks a godwit-vmm program what it is (`--describe`, docs/formats/vmm-control.md), without a
/// machine. The program is somebody else's: its time and its output are limited. Control thread
/// only.

#include "base/units.h"
#include "control/reply.h"
#include "sys/event_loop.h"
#include "sys/process.h"

#include <chrono>
#include <memory>
#include <string>

namespace godwit::control {

class ProgramProbe : public std::enable_shared_from_this<ProgramProbe> {
  public:
    static constexpr std::size_t output_bytes_max = 64 * kib;
    static constexpr std::chrono::milliseconds time_max{10'000};

    /// Starts the program. `reply` gets its description, the text of an object, or why there is
    /// none; if this fails it is left to the caller. Dropping the probe kills the program.
    [[nodiscard]] static Result<std::shared_ptr<ProgramProbe>>
    start(sys::EventLoop& loop, const std::string& program, Reply<std::string>& reply);
    ProgramProbe(const ProgramProbe&) = delete;
    ProgramProbe& operator=(const ProgramProbe&) = delete;
    ~ProgramProbe();

  private:
    ProgramProbe(std::string program, sys::Process process, sys::Fd output);
    void read();
    void decide(const Error* why);

    const std::string program_;
    sys::Process process_;
    sys::Fd output_;
    std::string text_;
    Reply<std::string> reply_;
    sys::EventLoop::Handle watch_;
    sys::EventLoop::Handle timer_;
};

} // namespace godwit::control
