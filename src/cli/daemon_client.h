#pragma once

/// The way from the command line to godwitd: finds the one of this run directory, starts one if
/// none runs, and speaks HTTP with it. One thread.

#include "base/result.h"
#include "base/units.h"
#include "control/json_text.h"
#include "control/run_directory.h"

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace godwit::cli {

class DaemonClient {
  public:
    /// Reaches godwitd; starts it in a session of its own if nobody listens.
    [[nodiscard]] static Result<DaemonClient> connect(const std::string& run_directory);

    /// Asks and gives the body of a good answer; the error is godwitd's. peer_closed if it went
    /// away.
    [[nodiscard]] Result<control::Json> call(std::string_view method,
                                             const std::string& path,
                                             const control::Json& body,
                                             std::chrono::milliseconds timeout) const;
    [[nodiscard]] Result<control::Json> get(const std::string& path) const;
    [[nodiscard]] Result<control::Json> put(const std::string& path,
                                            const control::Json& body) const;
    /// Gives each event (a JSON text) to `event` until it returns false or the stream ends.
    [[nodiscard]] Status events(const std::string& query,
                                const std::function<bool(const std::string& json)>& event) const;

    [[nodiscard]] const control::RunDirectory& run() const noexcept { return run_; }

  private:
    explicit DaemonClient(control::RunDirectory run) : run_(std::move(run)) {}
    control::RunDirectory run_;
};

/// Cuts a stream of server-sent events into the data of each event.
class EventStreamParser {
  public:
    /// Longest line that is kept; longer ones end the stream with an error.
    static constexpr std::size_t line_bytes_max = 256 * kib;
    [[nodiscard]] Status feed(std::string_view bytes,
                              const std::function<void(const std::string&)>& data);

  private:
    std::string line_;
};

} // namespace godwit::cli
