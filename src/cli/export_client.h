#pragma once

/// Talking to a godwit-blk about the disk it exports (docs/formats/blk-control.md). One thread.

#include "base/result.h"
#include "control/json_text.h"
#include "sys/unix_socket.h"

#include <chrono>
#include <string>

namespace godwit::cli {

class ExportClient {
  public:
    /// `name`: of an export, or the path of its control socket, with a '/' in it. `run_directory`
    /// may be empty: the default.
    [[nodiscard]] static Result<ExportClient> connect(const std::string& run_directory,
                                                      const std::string& name);
    /// Whether such an export has a socket there, or had one.
    [[nodiscard]] static bool is_known(const std::string& run_directory, const std::string& name);

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// The "result" member of the answer, or the error it brought.
    [[nodiscard]] Result<control::Json>
    call(const std::string& method,
         const control::Json& params,
         std::chrono::milliseconds timeout = std::chrono::milliseconds(10'000)) const;
    /// From now on wait() tells of events, and nothing is asked here any more.
    [[nodiscard]] Status subscribe() const;
    /// Waits until something happens, or for `timeout`; peer_closed if the server has gone.
    [[nodiscard]] Status wait(std::chrono::milliseconds timeout) const;

  private:
    ExportClient(std::string name, sys::MessageSocket socket)
        : name_(std::move(name)), socket_(std::move(socket)) {}
    std::string name_;
    sys::MessageSocket socket_;
};

} // namespace godwit::cli
