#pragma once

/// The life of one godwit-blk process: it opens the image and its doors, serves its control socket
/// (docs/formats/blk-control.md) and ends on a signal, once no disk moves.
///
///     serving -> ending (a signal; a move that goes on is cancelled) -> over
///     serving -> exchanging -> over (a successor serves), or serving again
///
/// Thread rule: create() and run() on the thread that wires the process, the control loop's.

#include "base/result.h"
#include "doors/exchange/source.h"
#include "doors/exported_disk.h"
#include "doors/nbd/server.h"
#include "doors/serve_options.h"
#include "doors/vhost/door.h"
#include "sys/clock.h"
#include "sys/control_server.h"
#include "sys/end_signals.h"
#include "sys/event_loop.h"

#include <memory>
#include <optional>
#include <string>
#include <thread>

namespace godwit::doors {

class Service {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Service>> create(ServeOptions options,
                                                                 const sys::Clock& clock);
    /// Takes over what the godwit-blk at the other end of `predecessor` serves, with its users.
    [[nodiscard]] static Result<std::unique_ptr<Service>>
    take_over(sys::MessageSocket predecessor, std::string log_level, const sys::Clock& clock);
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
    [[nodiscard]] Status prepare_process();
    [[nodiscard]] Status watch_signals();
    [[nodiscard]] Status open_control();
    [[nodiscard]] Status open_doors();
    [[nodiscard]] vhost::Door::Args door_args();
    static void tell_manager(const std::string& lines);
    void end(Status outcome);
    void move_ended();

    // Exchanges (service_exchange.cpp).
    [[nodiscard]] Status check_exchange() const;
    [[nodiscard]] Status start_exchange(const sys::ControlServer::Request& request);
    void exchange_ended(exchange::Ended ended, const sys::ControlServer::Reply& reply);
    struct Inheritance;
    [[nodiscard]] Status inherit(Inheritance& inheritance);
    [[nodiscard]] Status receive_users(Inheritance& inheritance);
    void take_control(sys::Fd listening);
    [[nodiscard]] Status begin(Inheritance& inheritance);

    // Answering requests (service_requests.cpp).
    void handle(const sys::ControlServer::Request& request);
    [[nodiscard]] nlohmann::json status_json() const;
    [[nodiscard]] Result<nlohmann::json> start_move(const nlohmann::json& params);

    ServeOptions options_;
    const sys::Clock& clock_;
    sys::Moment started_at_;
    std::unique_ptr<sys::EventLoop> loop_;
    std::unique_ptr<sys::EndSignals> end_signals_;
    bool ending_ = false;
    Status outcome_;
    std::unique_ptr<ExportedDisk> disk_;
    std::unique_ptr<nbd::Server> nbd_;
    std::unique_ptr<vhost::Door> vhost_;
    std::unique_ptr<sys::ControlServer> control_; ///< First to go: its answers need the rest.
    std::string own_program_;                     ///< Where it lay when this process began.
    bool exchanging_ = false;
    std::jthread exchange_;
};

} // namespace godwit::doors
