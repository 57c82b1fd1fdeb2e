#pragma once

/// The life of one godwit-blk process: it opens the image and its doors, serves its control socket
/// (docs/formats/blk-control.md) and ends on a signal, once no disk moves.
///
///     serving -> ending (a signal; a move that goes on is cancelled) -> over
///
/// Thread rule: create() and run() on the thread that wires the process, the control loop's.

#include "base/result.h"
#include "doors/exported_disk.h"
#include "doors/nbd/server.h"
#include "doors/vhost/door.h"
#include "sys/clock.h"
#include "sys/control_server.h"
#include "sys/event_loop.h"
#include "virtio/blk/blk_config.h"

#include <memory>
#include <string>

namespace godwit::doors {

struct ServeOptions {
    DiskOptions disk;
    std::string vhost_socket; ///< Empty: no such door.
    std::string nbd_address;  ///< Empty: no such door.
    std::string name;         ///< Of the NBD export, and of this one for `godwit`.
    /// Where requests come in; empty: under the run directory, by name.
    std::string control;
    virtio::BlkOptions blk{.instance = 0, .serial = "", .queues = 16, .queue_size = 128};
};

/// What `godwit` calls the export: its name, or the image's without its ending.
[[nodiscard]] std::string export_name(const ServeOptions& options);

class Service {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Service>> create(ServeOptions options,
                                                                 const sys::Clock& clock);
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;
    ~Service();

    /// Serves until a signal says otherwise, or a door cannot let anybody in any more.
    [[nodiscard]] Status run();

    [[nodiscard]] const ExportedDisk& disk() const noexcept { return *disk_; }
    /// Empty without that door.
    [[nodiscard]] std::string nbd_uri() const { return nbd_ ? nbd_->uri() : std::string(); }
    /// Empty if there is none.
    [[nodiscard]] const std::string& control_path() const noexcept { return options_.control; }

  private:
    Service(ServeOptions options, const sys::Clock& clock)
        : options_(std::move(options)), clock_(clock) {}
    [[nodiscard]] Status watch_signals();
    [[nodiscard]] Status open_control();
    [[nodiscard]] Status open_doors();
    void end(Status outcome);
    void end_when_settled();
    void move_ended();

    // Answering requests (service_requests.cpp).
    void handle(const sys::ControlServer::Request& request);
    [[nodiscard]] nlohmann::json status_json() const;
    [[nodiscard]] Result<nlohmann::json> start_move(const nlohmann::json& params);

    ServeOptions options_;
    const sys::Clock& clock_;
    sys::Moment started_at_;
    std::unique_ptr<sys::EventLoop> loop_;
    sys::Fd signal_fd_;
    sys::EventLoop::Handle signal_watch_;
    bool ending_ = false;
    Status outcome_;
    std::unique_ptr<ExportedDisk> disk_;
    std::unique_ptr<nbd::Server> nbd_;
    std::unique_ptr<vhost::Door> vhost_;
    std::unique_ptr<sys::ControlServer> control_; ///< First to go: its answers need the rest.
};

} // namespace godwit::doors
