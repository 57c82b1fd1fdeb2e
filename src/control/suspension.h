#pragma once

/// The end of a suspend-mode exchange, as the godwitd sees it that is there then: waits until each
/// machine runs in its new VMM or is known to stay frozen, and writes the report.
///
/// What the old godwitd knew stands in a note in the run directory, what each keeper knew in a file
/// beside its machine; both are small and hold nothing of a guest. Control thread only.

#include "control/supervisor.h"

#include <memory>
#include <string>

namespace godwit::control {

class Suspension {
  public:
    static constexpr std::uint64_t operation_none = 0;
    /// `operation`: the one to end, of this godwitd; none if another began it.
    Suspension(Supervisor& supervisor, std::unique_ptr<Json> note, std::uint64_t operation);
    Suspension(const Suspension&) = delete;
    Suspension& operator=(const Suspension&) = delete;
    ~Suspension();

    [[nodiscard]] static Status write_note(const RunDirectory& run, const Json& note);
    /// The note an earlier godwitd has left; null if there is none or it makes no sense.
    [[nodiscard]] static std::unique_ptr<Json> read_note(const RunDirectory& run);

    void begin();
    /// A process has news or has ended.
    void look();

  private:
    [[nodiscard]] bool settled(const Json& machine) const;
    void complete(Json& machine) const;
    static void discard_file(const std::string& path);
    void finish();

    Supervisor& supervisor_;
    std::unique_ptr<Json> note_;
    const std::uint64_t operation_;
    bool over_ = false;
    sys::EventLoop::Handle timer_;
};

} // namespace godwit::control
