#pragma once

// clang-format off
/// Holds one machine suspended in memory while its hypervisor is exchanged: towards the old VMM it is the
/// destination of a handover, towards the new one its source, with the same conversation on both sides
/// (docs/formats/handover-wire.md, docs/formats/keeper.md). It never maps guest memory and never runs a guest.
///
///   #   step      state after it  what is done                               undo when a later step fails
///   1   attach    greeting        the new VMM's socket is known              end; the guest runs at the old VMM
///   2   introduce offering        its Hello goes to the old VMM, as ours     Abort to the new, Failed to the old
///   3   offer     building        the Offer is kept, passed to guard and new VMM       as 2
///   4   ready     ready           both have answered Prepared                          as 2
///   5   hold      holding         Prepared to the old VMM: it pauses the guest         as 2; it resumes
///   6   parcel    sharing         state kept and sealed, given to the guard            as 5
///   7   claim     held            owner record: ours, claimed                give back: next epoch to the old VMM
///   8   commit    kept            owner record: confirmed. POINT OF NO RETURN for the old side; Running to it
///   9   resume    resuming        old side gone: TakeOver to the new VMM     take back: next epoch to us; kept
///  10   running   settling        the new VMM has confirmed its claim: the point of no return of ours
///  11   end       over            report written, guard told, process ends
///
/// Numbers stand in fault points ("keeper.7", reached before the step is done). Up to 7 the old VMM holds
/// everything too; from 6 on a second keeper, the guard, holds the same parcel and takes the machine over by
/// compare-and-swap when this process dies while it owns it. A machine that stays `kept` without a new VMM is
/// frozen: method "exchange" gives it to the next one.
///
/// Thread rule: one thread, the loop's.
// clang-format on

#include "handover/report.h"
#include "keeper/parcel.h"
#include "sys/clock.h"
#include "sys/control_server.h"
#include "sys/event_loop.h"
#include "sys/process.h"

#include <memory>
#include <optional>
#include <string>

namespace godwit::keeper {

enum class Part : std::uint8_t { keeper, guard };

struct Options {
    std::string machine;
    std::string run_directory;
    handover::InstanceId instance;
    Part part = Part::keeper;
    int ready_fd = -1;    ///< Told in one JSON line how the start went; -1: nowhere.
    int incoming_fd = -1; ///< Socket to the old VMM; the guard's to its keeper.

    [[nodiscard]] std::string machine_directory() const {
        return run_directory + "/machines/" + machine;
    }
    [[nodiscard]] std::string control_path() const {
        return machine_directory() + "/vmm-" + handover::to_string(instance) + ".sock";
    }
    [[nodiscard]] std::string report_path() const {
        return machine_directory() + "/kept-" + handover::to_string(instance) + ".json";
    }
};

class Keeper {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Keeper>> create(Options options,
                                                                const sys::Clock& clock);
    Keeper(const Keeper&) = delete;
    Keeper& operator=(const Keeper&) = delete;
    ~Keeper() = default;

    /// Serves until the machine has a new owner or is given up; the value is the exit code.
    [[nodiscard]] int run();

  private:
    enum class Step : std::uint8_t {
        waiting,
        greeting,
        offering,
        building,
        ready,
        holding,
        sharing,
        held,
        kept,
        resuming,
        settling,
        over,
    };
    /// A peer of the conversation.
    struct Link {
        std::optional<sys::MessageSocket> socket;
        sys::EventLoop::Handle watch;
        [[nodiscard]] bool alive() const noexcept { return socket.has_value(); }
        void close() {
            watch.reset();
            socket.reset();
        }
    };
    using OnMessage = void (Keeper::*)(Result<exchange::WireMessage>);

    Keeper(Options options, const sys::Clock& clock)
        : options_(std::move(options)), clock_(clock) {}

    // keeper.cpp: from the old VMM.
    [[nodiscard]] Status connect(Link& link, sys::Fd fd, OnMessage handler);
    void reach(Step step, int number);
    void pass(int number) const;
    void from_source(Result<exchange::WireMessage> message);
    [[nodiscard]] Status take_offer(exchange::Offer offer);
    [[nodiscard]] Status take_parcel(exchange::TakeOver take_over);
    [[nodiscard]] Status claim();
    void prepared_somewhere();
    /// Before the commit: everything is as it was, the guest runs at the old VMM.
    void give_back(const Error& why);
    void keep_alone();
    void confirmed(const handover::Ownership& mine);

    // successor.cpp: to the new VMM.
    void from_successor(Result<exchange::WireMessage> message);
    [[nodiscard]] Status greeted(exchange::Hello hello);
    [[nodiscard]] Status runs_there(const exchange::Running& running);
    void try_resume();
    void successor_failed(const Error& why);
    void finish(const exchange::SettleAnswer& answer);
    void answer_exchange();
    void write_report() const;

    // guard.cpp: the second holder.
    [[nodiscard]] Status start_guard();
    void from_guard(Result<exchange::WireMessage> message);
    void from_keeper(Result<exchange::WireMessage> message);
    void keeper_gone(const Error& why);
    void look_at_record();

    // requests.cpp.
    void handle(sys::ControlServer::Request request);
    [[nodiscard]] Status attach(std::vector<sys::Fd> fds);
    [[nodiscard]] Status drive(std::vector<sys::Fd> fds);
    [[nodiscard]] Status hold();
    [[nodiscard]] Status commit();
    [[nodiscard]] Status reclaim();
    void start_exchange(sys::ControlServer::Request request);
    void stop(const sys::ControlServer::Reply& reply);
    void give_record(const sys::ControlServer::Reply& reply) const;
    void announce();
    void tell_ready(const Status& status);
    void end(int exit_code);
    [[nodiscard]] std::string_view step_name() const noexcept;
    [[nodiscard]] bool owns() const;

    Options options_;
    const sys::Clock& clock_;
    sys::Moment started_at_;
    std::unique_ptr<sys::EventLoop> loop_;
    std::unique_ptr<sys::ControlServer> control_;
    Step step_ = Step::waiting;
    Link source_;
    Link successor_;
    Link guard_;
    sys::Fd lifeline_; ///< Readable when the godwitd that drives the exchange is gone.
    sys::EventLoop::Handle lifeline_watch_;
    bool driver_gone_ = false;
    bool resume_wanted_ = false; ///< The old side has ended, as far as that can be waited for.
    sys::EventLoop::Handle timer_;
    std::optional<sys::Process> guard_process_;
    bool guard_prepared_ = false;
    bool guard_keeps_ = false;
    std::optional<Parcel> parcel_;
    exchange::Hello hello_; ///< The new VMM's.
    bool successor_stands_ = false;
    handover::Report report_;
    sys::Moment kept_at_;    ///< The commit: from here the old VMM's account of the blackout ends.
    sys::Moment resumed_at_; ///< TakeOver was sent.
    std::optional<sys::ControlServer::Reply> asked_; ///< Who waits for the end of "exchange".
    int exit_code_ = 0;
};

} // namespace godwit::keeper
