/// Running and resting: start, quiesce, pause, and the end of a guest.

#include "machine/machine_impl.h"

#include <algorithm>
#include <utility>

namespace godwit::machine {

void Machine::Impl::stop(StopReason reason, std::string detail) {
    if (ended.exchange(true)) {
        return;
    }
    if (built) {
        for (const auto& vcpu : vcpus) {
            vcpu->request_pause();
        }
    }
    if (events.stopped) {
        events.stopped(reason, std::move(detail));
    }
}

Status Machine::start() {
    Impl& m = *impl_;
    if (!m.ready) {
        return Error(ErrorCode::conflict, "the machine has neither booted nor been restored");
    }
    m.collection.reset();
    m.off_vcpus = {};
    if (m.ended) {
        m.held_loops.clear();
        return Error(ErrorCode::conflict, "the guest has ended");
    }
    if (m.running) {
        // Undo of quiesce_devices() alone: the vCPUs never stopped.
        if (!std::exchange(m.devices_awake, true)) {
            m.platform->wake();
            m.devices->wake();
        }
        m.held_loops.clear();
        return ok();
    }
    if (m.stood_still) {
        for (const auto& vcpu : m.vcpus) {
            vcpu->tell_it_stood_still();
        }
    }
    m.first_entry.reset();
    m.running = true;
    m.stood_still = true;
    // The guest first: what it asks of devices meanwhile waits in their doorbells.
    for (const auto& vcpu : m.vcpus) {
        vcpu->resume();
    }
    m.held_loops.clear();
    m.platform->wake();
    m.devices->wake();
    m.devices_awake = true;
    m.back_ends->open_layers();
    if (std::exchange(m.announce_due, false)) {
        m.devices->announce();
    }
    m.doorbells->drop_unused();
    return ok();
}

Status Machine::quiesce_devices(std::chrono::milliseconds limit) {
    Impl& m = *impl_;
    if (m.devices_awake) {
        const sys::Moment deadline = m.clock.now() + limit;
        GODWIT_TRY(m.devices->quiesce_until(deadline));
        // What deltas do not say by now a successor, or the next start, would not find.
        Status committed = m.back_ends->commit_layers(deadline);
        if (!committed.has_value()) {
            m.devices->wake();
            return committed;
        }
        m.platform->quiesce();
        m.devices_awake = false;
    }
    return ok();
}

Status Machine::pause(std::chrono::milliseconds limit) {
    if (!impl_->running) {
        return ok();
    }
    const sys::Moment deadline = impl_->clock.now() + limit;
    GODWIT_TRY(quiesce_devices(limit));
    return stop_vcpus(deadline, Collect::nothing);
}

Status Machine::pause_to_save(std::chrono::milliseconds limit) {
    Impl& m = *impl_;
    const sys::Moment deadline = m.clock.now() + limit;
    GODWIT_TRY(quiesce_devices(limit));
    if (m.held_loops.empty()) {
        m.held_loops = m.back_ends->hold_loops();
    }
    return stop_vcpus(deadline, Collect::vcpu_state);
}

void Machine::stay_paused() noexcept {
    impl_->held_loops.clear();
    impl_->collection.reset();
    impl_->off_vcpus = {};
}

Status Machine::stop_vcpus(sys::Moment deadline, Collect collect) {
    Impl& m = *impl_;
    if (collect == Collect::vcpu_state) {
        m.off_vcpus = stay_off_vcpus();
        m.begin_collecting();
    } else {
        for (const auto& vcpu : m.vcpus) {
            vcpu->request_pause();
        }
    }
    m.stopped_at = {};
    for (const auto& vcpu : m.vcpus) {
        if (!vcpu->wait_parked_until(deadline)) {
            // m.running still stands: this only wakes the devices.
            m.give_up_collecting();
            for (const auto& paused : m.vcpus) {
                paused->resume();
            }
            GODWIT_TRY(start());
            return Error(ErrorCode::timeout,
                         "vcpu" + std::to_string(vcpu->vcpu().id()) +
                             " does not leave the guest in time");
        }
        m.stopped_at = std::max(m.stopped_at, vcpu->parked_at());
    }
    m.running = false;
    return ok();
}

bool Machine::running() const noexcept {
    return impl_->running && !impl_->ended;
}

sys::Moment Machine::vcpus_stopped_at() const noexcept {
    return impl_->stopped_at;
}

sys::Moment Machine::first_entry_at() const noexcept {
    return impl_->running ? impl_->first_entry.at() : sys::Moment();
}

} // namespace godwit::machine
