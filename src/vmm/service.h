#pragma once

// clang-format off
/// The life of one godwit-vmm process: it makes, restores or takes over a machine, serves its control
/// socket and consoles, hands the machine over, and ends with the guest.
///
///   role       state                          becomes
///   owner      building -> running <-> paused retired after a handover; ends with the guest
///   successor  building                       owner when it has claimed the machine; ends on failure
///   retired    frozen                         ends when the successor says that it runs the guest; stays
///                                             frozen if that is gone without a word; owner again by
///                                             reclaim while the successor's claim is not confirmed
///
/// Thread rule: run() is called once and its thread is the control loop. Long work (exchange, snapshot,
/// takeover) runs on one job thread at a time, which is the machine's control thread meanwhile. The
/// process ends, and the guest reboots, only between jobs.
// clang-format on

#include "base/result.h"
#include "exchange/destination.h"
#include "exchange/source.h"
#include "machine/machine.h"
#include "sys/cancel.h"
#include "sys/clock.h"
#include "sys/control_server.h"
#include "sys/end_signals.h"
#include "sys/event_loop.h"
#include "vmm/consoles.h"
#include "vmm/document_file.h"
#include "vmm/options.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

namespace godwit::vmm {

using sys::ControlServer;

enum class Role : std::uint8_t { owner, successor, retired };
enum class RunState : std::uint8_t { building, running, paused, stopped, frozen };
[[nodiscard]] std::string_view name_of(Role role) noexcept;
[[nodiscard]] std::string_view name_of(RunState state) noexcept;

class Service {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Service>> create(Options options,
                                                                 const sys::Clock& clock);
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;
    ~Service();

    /// Serves until the process has nothing left to do; the value is its exit code.
    [[nodiscard]] int run();

  private:
    Service(Options options, const sys::Clock& clock, sys::Cancel cancel)
        : options_(std::move(options)), clock_(clock), document_(options_.document_path()),
          cancel_(std::move(cancel)) {}

    // Coming into being (service.cpp).
    [[nodiscard]] Status begin();
    [[nodiscard]] Status begin_fresh();
    [[nodiscard]] Status begin_restored();
    [[nodiscard]] Status begin_incoming();
    [[nodiscard]] Status watch_signals();
    [[nodiscard]] Status own_new_machine(machine::MachineSpec spec);
    void tell_ready(const Status& status);
    void taken(Result<std::pair<exchange::TakenMachine, exchange::LateWork>> result,
               std::shared_ptr<sys::MessageSocket> source);
    [[nodiscard]] machine::MachineEvents machine_events();
    void make_consoles(const machine::MachineSpec& spec);
    void listen_consoles();
    void guest_stopped(machine::StopReason reason, const std::string& detail);
    [[nodiscard]] Status reboot();
    void set_state(RunState state);
    /// Ends the process after the job that runs, which is told to stop, and once no disk moves.
    void end(int exit_code);
    void finish();

    // Answering requests (requests.cpp).
    void handle(ControlServer::Request request);
    [[nodiscard]] nlohmann::json status_json() const;
    [[nodiscard]] nlohmann::json info_json() const;
    [[nodiscard]] nlohmann::json plan_json(const nlohmann::json& successor);
    [[nodiscard]] Status pause_guest();
    [[nodiscard]] Status resume_guest();
    [[nodiscard]] Status stop_guest(bool force);
    [[nodiscard]] Status check_owner() const;
    [[nodiscard]] Status check_disks_complete() const;
    void give_record(const ControlServer::Reply& reply) const;
    void give_pool(const ControlServer::Reply& reply) const;
    [[nodiscard]] Status reclaim();

    // In a service partition (partition_requests.cpp).
    [[nodiscard]] Status take_page_map(std::vector<sys::Fd> fds);
    [[nodiscard]] Status leave_partition(const ControlServer::Request& request);

    // Disks that move (disk_moves.cpp).
    [[nodiscard]] Status check_disk_work() const;
    enum class DiskMoveKind : std::uint8_t { move, estimate };
    [[nodiscard]] Result<nlohmann::json> start_disk_move(const nlohmann::json& params,
                                                         DiskMoveKind kind);
    [[nodiscard]] Status cancel_disk_move(const nlohmann::json& params);
    [[nodiscard]] nlohmann::json disks_json(const nlohmann::json& params) const;
    [[nodiscard]] bool disks_move() const;
    void cancel_disk_moves();
    void take_over_disks();
    void settle_disks();

    // Disks that are frozen and merged (disk_layers.cpp).
    void freeze_disk(const ControlServer::Request& request);
    [[nodiscard]] Status begin_freeze(const ControlServer::Request& request);
    [[nodiscard]] Result<nlohmann::json> start_disk_merge(const nlohmann::json& params);
    /// Any thread.
    void tell_pressure(std::string_view disk, std::string_view delta, std::string_view pressure);

    // Long work (jobs.cpp).
    void start_exchange(ControlServer::Request request);
    void start_snapshot(ControlServer::Request request);
    void exchanged(const handover::Report& report,
                   const ControlServer::Reply& reply,
                   std::shared_ptr<sys::MessageSocket> successor);
    void await_successor();
    [[nodiscard]] bool is_reclaimable() const;
    void stop_waiting_for_successor();
    void start_job(std::string name, std::move_only_function<void()> body);
    /// The job has ended, on the loop's thread: what had to wait for it happens now.
    void job_done();

    Options options_;
    const sys::Clock& clock_;
    sys::Moment started_at_;
    std::unique_ptr<sys::EventLoop> loop_;
    std::unique_ptr<sys::EndSignals> end_signals_;
    std::unique_ptr<ControlServer> control_;
    bool confined_ = false; ///< Started in a service partition and not yet let out of it.
    exchange::PageMap page_map_;
    std::optional<handover::OwnerRecord> record_;
    /// Of a successor: the record of the machine it is about to take, only to be shown to others.
    struct ShownRecord {
        std::string machine_id;
        sys::Fd fd;
    };
    std::optional<ShownRecord> record_ahead_;
    Role role_ = Role::owner;
    RunState state_ = RunState::building;
    std::optional<handover::Ownership> lost_to_; ///< Frozen: the claim that took the machine.
    bool ran_before_ = false;                    ///< Frozen: the guest ran before the exchange.
    int exit_code_ = 0;
    std::unique_ptr<Consoles> consoles_;
    DocumentFile document_; ///< Written on disk threads too.
    std::unique_ptr<machine::Machine> machine_;
    /// Of a successor in another hypervisor instance; null otherwise.
    std::unique_ptr<exchange::ForeignMemory> foreign_memory_;
    std::string job_name_; ///< Empty: no job.
    sys::Cancel cancel_;
    std::shared_ptr<sys::MessageSocket> peer_; ///< The other end of the handover that runs.
    bool ending_ = false;                      ///< end() waits for the job, or for disks.
    bool reboot_pending_ = false;
    bool stop_pending_ = false; ///< The power button is pressed after the job.
    std::jthread settle_; ///< Answers the predecessor's last question; reads guest memory only.
    std::jthread job_;    ///< Last: it uses everything above.
};

} // namespace godwit::vmm
