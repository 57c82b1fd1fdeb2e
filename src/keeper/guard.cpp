/// The second holder: a keeper that only keeps, until the first one is gone.

#include "base/fault_point.h"
#include "base/log.h"
#include "keeper/keeper.h"
#include "sys/entropy.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>

#include <filesystem>

namespace godwit::keeper {

namespace {

using std::chrono::milliseconds;

constexpr int incoming_fd_number = 4;
/// How often a guard without its keeper looks whether a claimed machine is run.
constexpr milliseconds look_period{200};

} // namespace

Status Keeper::start_guard() {
    auto [near, far] = GODWIT_TRY(sys::MessageSocket::pair());
    std::uint32_t number = 0;
    GODWIT_TRY(sys::system_random().random_bytes(std::as_writable_bytes(std::span(&number, 1))));
    number |= 1U;
    std::error_code error;
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
    if (error) {
        return Error(ErrorCode::internal, "the keeper does not find its own program");
    }
    guard_process_ = GODWIT_TRY(
        sys::Process::spawn({.program = self.string(),
                             .arguments = {"--guard",
                                           "--machine",
                                           options_.machine,
                                           "--run-dir",
                                           options_.run_directory,
                                           "--instance",
                                           handover::to_string(handover::InstanceId{number}),
                                           "--incoming-fd",
                                           std::to_string(incoming_fd_number)},
                             .fds = {{.fd = &far.fd(), .number = incoming_fd_number}},
                             .standard_error = nullptr,
                             .new_session = true}));
    return connect(guard_, std::move(near).take(), &Keeper::from_guard);
}

/// The guard answers each of the two halves of the parcel with Prepared.
void Keeper::from_guard(Result<exchange::WireMessage> message) {
    if (!message.has_value()) {
        guard_.close();
        if (step_ < Step::held) {
            give_back(Error(message.error()).with_context("the keeper's guard"));
        } else if (step_ != Step::over) {
            log::warn("guard_lost", {{"reason", message.error().to_string()}});
        }
        return;
    }
    if (std::holds_alternative<exchange::Hello>(*message)) {
        tell_ready(ok());
    } else if (std::holds_alternative<exchange::Prepared>(*message) && !guard_prepared_) {
        guard_prepared_ = true;
        prepared_somewhere();
    } else if (std::holds_alternative<exchange::Prepared>(*message) && !guard_keeps_ &&
               step_ == Step::sharing) {
        guard_keeps_ = true;
        const Status claimed = claim();
        if (!claimed.has_value()) {
            give_back(claimed.error());
        }
    }
}

/// In the guard: what its keeper says.
void Keeper::from_keeper(Result<exchange::WireMessage> message) {
    Status done = ok();
    if (!message.has_value()) {
        done = std::move(message.error());
    } else if (auto* offer = std::get_if<exchange::Offer>(&*message);
               offer != nullptr && !parcel_.has_value()) {
        fault_point("guard.3");
        auto parcel = Parcel::of_offer(std::move(*offer));
        done = parcel.has_value() ? ok() : Status(parcel.error());
        if (parcel.has_value()) {
            parcel_ = std::move(*parcel);
            report_.machine = options_.machine;
            report_.before = parcel_->origin();
        }
    } else if (auto* take_over = std::get_if<exchange::TakeOver>(&*message);
               take_over != nullptr && parcel_.has_value()) {
        fault_point("guard.6");
        done = parcel_->complete(std::move(*take_over));
    } else {
        done = Error(ErrorCode::corrupt, "the keeper sent a message out of order");
    }
    if (done.has_value()) {
        done = exchange::send(*source_.socket, exchange::Prepared{});
    }
    if (!done.has_value()) {
        keeper_gone(done.error());
    }
}

/// The keeper is gone or has nothing more to say: whether anything is left to do, the record knows.
void Keeper::keeper_gone(const Error& why) {
    source_.close();
    if (!parcel_.has_value() || !parcel_->complete() || why.code() == ErrorCode::cancelled) {
        end(0);
        return;
    }
    look_at_record();
}

void Keeper::look_at_record() {
    handover::OwnerRecord& record = parcel_->record();
    const handover::Ownership now = record.read();
    const handover::Ownership& origin = parcel_->origin();
    if (now.owner == origin.owner && now.tenure == handover::Tenure::running) {
        fault_point("guard.8");
        if (!record.transfer(now, options_.instance).has_value()) {
            look_at_record(); // The new VMM has just claimed it, or godwitd has bumped the epoch.
            return;
        }
        log::warn("guard_keeps_the_machine",
                  {{"machine", options_.machine}, {"epoch", record.read().epoch}});
        timer_.reset();
        step_ = Step::kept;
        kept_at_ = clock_.now();
        announce();
        return;
    }
    // Still the old VMM's (it keeps everything itself), or run by a new one.
    if (now.epoch <= origin.epoch || now.tenure == handover::Tenure::running) {
        timer_.reset();
        end(0);
        return;
    }
    // Claimed by the new VMM: it goes on, or a recovery takes the machine back from it to here.
    step_ = Step::kept;
    announce();
    auto timer = loop_->schedule(look_period, {}, [this] { look_at_record(); });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    }
}

} // namespace godwit::keeper
