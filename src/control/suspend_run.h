#pragma once

// clang-format off
/// The exchange of a host's hypervisor with its machines suspended in memory: the old godwitd's part.
///
///   #  step     what is done                                           undo when a later step fails
///   1  plan     blockers of the host and of every machine are gathered  nothing was touched
///   2  start    a keeper and a new VMM per machine                      they end
///   3  prepare  new VMMs build their machines, the guests run           as 2
///      then for some machines at a time, one for two processors:
///   4  hold     they are paused and held by their keepers               keepers give back, all guests go on
///   5  commit   their keepers are told to own them                      none: POINT OF NO RETURN, per machine
///   6  retire   the old VMMs report and end, the keepers go on and      none; who hangs is killed, who does not
///               the machines run in their new VMMs                      run by then is not waited for
///      and when all have:
///   7  note     what the next godwitd must know is written              none
///   8  replace  this process becomes the new godwitd                    if it cannot be executed the old program
///                                                                       starts again; one that took its arguments
///                                                                       in the plan and does not serve stays: no
///                                                                       machine waits for it
///
/// Numbers stand in fault points ("control.suspend.5"). Nothing is held before every machine has shown that it
/// can be. Until the first commit a machine that fails stops all; from then on machines are independent of each
/// other, and one that fails stays where it is. A group is small so that a machine stands still no longer than
/// its own way takes. The keepers go on when the pipe breaks that this process holds: at step 6, or by its
/// death. docs/formats/keeper.md has the keepers' side.
///
/// Control thread only.
// clang-format on

#include "control/supervisor.h"

#include <memory>
#include <string>
#include <vector>

namespace godwit::control {

class SuspendRun : public std::enable_shared_from_this<SuspendRun> {
  public:
    SuspendRun(Supervisor& supervisor, Supervisor::SuspendRequest request);
    SuspendRun(const SuspendRun&) = delete;
    SuspendRun& operator=(const SuspendRun&) = delete;
    ~SuspendRun();

    void start(std::uint64_t operation);
    /// conflict once machines may have changed their owner.
    [[nodiscard]] Status cancel();
    void keeper_reached(const VmmInstance& vmm, const std::string& step);
    void instance_ended(const VmmInstance& vmm);
    [[nodiscard]] bool concerns(const std::string& machine) const;

  private:
    enum class Step : std::uint8_t {
        plan,
        prepare,
        hold,
        commit,
        retire,
        release,
        giving_up,
        over
    };
    struct Member;

    void plan();
    // daemon_check.cpp
    enum class DaemonKind : std::uint8_t { present, older };
    void check_daemon();
    void ask_daemon(std::vector<std::string> arguments, DaemonKind kind);
    void daemon_answered(DaemonKind kind);
    void daemon_checked();
    void start_members();
    [[nodiscard]] Status launch(Member& member);
    void member_ready(Member& member, const Status& outcome);
    [[nodiscard]] Status connect(Member& member);
    void source_answered(Member& member, Result<Json> answer);
    void member_failed(Member& member, const Error& why);
    // suspend_groups.cpp
    void look();
    [[nodiscard]] std::size_t group_size() const;
    void next_group();
    void hold();
    void commit();
    void committed(Member& member, const Result<Json>& answer);
    void retire();
    void release();

    void note_and_replace();
    void give_up(const Error& why);
    void reclaim(Member& member);
    void not_reclaimed(Member& member, const std::string& why);
    void finish_given_up();
    [[nodiscard]] Json report() const;
    void enter(Step step, std::string_view phase, int number);
    void arm(std::chrono::milliseconds delay, std::move_only_function<void()> action);
    [[nodiscard]] std::vector<std::string> blockers() const;

    Supervisor& supervisor_;
    const Supervisor::SuspendRequest request_;
    std::uint64_t operation_ = 0;
    Step step_ = Step::plan;
    std::vector<std::unique_ptr<Member>> members_;
    std::vector<Member*> group_; ///< Those that steps 4 to 6 are about.
    bool any_committed_ = false; ///< Or may be by now.
    bool last_wait_ = false;     ///< For machines that failed, when all others are through.
    std::vector<std::string> host_blockers_;
    std::optional<sys::Process> daemon_check_;
    sys::EventLoop::Handle daemon_watch_;
    std::optional<Error> why_; ///< Why it is given up.
    sys::Moment entered_at_;
    std::string phase_;
    std::unique_ptr<Json> phases_; ///< Never null.
    sys::EventLoop::Handle timer_;
};

} // namespace godwit::control
