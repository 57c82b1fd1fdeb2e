#include "keeper/keeper.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "base/version.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>

namespace godwit::keeper {

Result<std::unique_ptr<Keeper>> Keeper::create(Options options, const sys::Clock& clock) {
    std::unique_ptr<Keeper> keeper(new Keeper(std::move(options), clock));
    keeper->started_at_ = clock.now();
    keeper->loop_ = GODWIT_TRY(sys::EventLoop::create());
    keeper->control_ = GODWIT_TRY(sys::ControlServer::create(
        *keeper->loop_,
        GODWIT_TRY(
            sys::Listener::create(keeper->options_.control_path(), sys::SocketKind::messages)),
        [raw = keeper.get()](auto request) { raw->handle(std::move(request)); }));
    return keeper;
}

int Keeper::run() {
    const bool guarding = options_.part == Part::guard;
    Status begun = connect(source_,
                           sys::Fd(std::exchange(options_.incoming_fd, -1)),
                           guarding ? &Keeper::from_keeper : &Keeper::from_source);
    if (begun.has_value() && guarding) {
        begun = exchange::send(*source_.socket,
                               exchange::Hello{.instance = options_.instance.value,
                                               .version = {},
                                               .build_id = std::string(build_id()),
                                               .sections = {}});
    } else if (begun.has_value()) {
        begun = start_guard();
    }
    if (begun.has_value()) {
        begun = loop_->run();
    }
    if (!begun.has_value()) {
        log::error("keeper_failed", {{"reason", begun.error().to_string()}});
        tell_ready(begun);
        return 1;
    }
    return exit_code_;
}

Status Keeper::connect(Link& link, sys::Fd fd, OnMessage handler) {
    link.socket.emplace(std::move(fd));
    GODWIT_TRY(sys::set_nonblocking(link.socket->fd()));
    link.watch =
        GODWIT_TRY(loop_->watch(link.socket->fd(), EPOLLIN, [this, &link, handler](std::uint32_t) {
            (this->*handler)(exchange::receive(*link.socket, std::chrono::milliseconds(0)));
        }));
    return ok();
}

/// The guard has numbers of its own, so that a test can tell whom it kills.
void Keeper::pass(int number) const {
    fault_point((options_.part == Part::guard ? "guard." : "keeper.") + std::to_string(number));
}

void Keeper::reach(Step step, int number) {
    pass(number);
    step_ = step;
    announce();
}

void Keeper::from_source(Result<exchange::WireMessage> message) {
    Status done = ok();
    if (!message.has_value()) {
        source_.close();
        if (step_ < Step::sharing) {
            give_back(Error(message.error()).with_context("the old VMM"));
        } else if (step_ == Step::kept) {
            // It has ended, as it should.
            resume_wanted_ = resume_wanted_ || driver_gone_;
            try_resume();
        }
        return;
    }
    if (auto* offer = std::get_if<exchange::Offer>(&*message);
        offer != nullptr && step_ == Step::offering) {
        done = take_offer(std::move(*offer));
    } else if (auto* take_over = std::get_if<exchange::TakeOver>(&*message);
               take_over != nullptr && step_ == Step::holding) {
        done = take_parcel(std::move(*take_over));
    } else if (std::holds_alternative<exchange::Settle>(*message) && step_ >= Step::kept) {
        // No frames are compared here: guest memory is not mapped. The new VMM compares them.
        discard(exchange::send(*source_.socket, exchange::SettleAnswer{}), "it is about to end");
    } else {
        done =
            Error(ErrorCode::corrupt,
                  "the old VMM sent message " + std::to_string(message->index()) + " out of order");
    }
    if (!done.has_value()) {
        give_back(done.error());
    }
}

Status Keeper::take_offer(exchange::Offer offer) {
    pass(3);
    parcel_ = GODWIT_TRY(Parcel::of_offer(std::move(offer)));
    if (parcel_->machine_name() != options_.machine) {
        return Error(ErrorCode::corrupt,
                     "the offer is of machine '" + parcel_->machine_name() + "'");
    }
    const handover::Ownership now = parcel_->record().read();
    if (now != parcel_->origin()) {
        return Error(ErrorCode::conflict, "the offer is not its owner's");
    }
    report_.machine = options_.machine;
    report_.before = now;
    const std::uint32_t epoch = now.epoch + 1; // As it will be when it is ours.
    GODWIT_TRY(parcel_->send_offer(*guard_.socket, options_.instance, epoch));
    GODWIT_TRY(parcel_->send_offer(*successor_.socket, options_.instance, epoch));
    step_ = Step::building;
    return ok();
}

void Keeper::prepared_somewhere() {
    if (step_ == Step::building && guard_prepared_ && successor_stands_) {
        reach(Step::ready, 4);
    }
}

Status Keeper::take_parcel(exchange::TakeOver take_over) {
    pass(6);
    GODWIT_TRY(parcel_->complete(std::move(take_over)));
    step_ = Step::sharing;
    return parcel_->send_take_over(*guard_.socket);
}

Status Keeper::claim() {
    pass(7);
    GODWIT_TRY(parcel_->record().claim(parcel_->origin(), options_.instance));
    step_ = Step::held;
    announce();
    return ok();
}

void Keeper::give_back(const Error& why) {
    if (step_ >= Step::kept) {
        log::warn("keeper_complaint", {{"reason", why.to_string()}});
        return;
    }
    if (parcel_.has_value() && parcel_->complete() && !source_.alive()) {
        keep_alone();
        return;
    }
    log::warn("suspension_given_up", {{"machine", options_.machine}, {"reason", why.to_string()}});
    if (step_ == Step::held) {
        const auto back =
            parcel_->record().transfer(parcel_->record().read(), parcel_->origin().owner);
        if (!back.has_value()) {
            log::error("give_back_failed", {{"reason", back.error().to_string()}});
        }
    }
    step_ = Step::over;
    if (source_.alive()) {
        discard(exchange::send(*source_.socket,
                               exchange::Failed{.code = why.code(), .message = why.to_string()}),
                "it may be gone");
    }
    for (Link* link : {&successor_, &guard_}) {
        if (link->alive()) {
            discard(exchange::send(*link->socket, exchange::Abort{.reason = why.to_string()}),
                    "it may be gone");
        }
    }
    announce();
    end(1);
}

/// The old VMM has died after its offer: there is nobody to give the machine back to, and it is
/// complete here. It goes on in the new VMM.
void Keeper::keep_alone() {
    handover::OwnerRecord& record = parcel_->record();
    if (step_ < Step::held) {
        const Status claimed = claim();
        if (!claimed.has_value()) {
            log::error("claim_failed", {{"reason", claimed.error().to_string()}});
            end(1);
            return;
        }
    }
    const auto mine = record.confirm(record.read());
    if (!mine.has_value() || mine->owner != options_.instance) {
        end(1);
        return;
    }
    log::warn("old_vmm_died", {{"machine", options_.machine}});
    confirmed(*mine);
    resume_wanted_ = true;
    try_resume();
}

/// The machine is ours, and whoever holds it complete may give it on.
void Keeper::confirmed(const handover::Ownership& mine) {
    kept_at_ = clock_.now();
    step_ = Step::kept;
    if (source_.alive()) {
        const std::int64_t now = kept_at_.time_since_epoch().count();
        // To the old VMM its part of the blackout ends here.
        discard(exchange::send(*source_.socket,
                               exchange::Running{.epoch = mine.epoch,
                                                 .claimed_at_ns = now,
                                                 .first_entry_ns = parcel_->paused() ? 0 : now}),
                "it may be gone; the machine is kept here");
    }
    announce();
}

void Keeper::end(int exit_code) {
    exit_code_ = exit_code;
    step_ = Step::over;
    tell_ready(Error(ErrorCode::cancelled, "the keeper ends"));
    // After the answers and events posted so far.
    loop_->post([this] { loop_->stop(); });
}

} // namespace godwit::keeper
