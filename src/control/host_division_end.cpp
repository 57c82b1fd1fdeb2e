/// How the old godwitd's part of a divided host ends: it leaves everything to the new one, or takes
/// everything back.

#include "base/fault_point.h"
#include "base/log.h"
#include "control/division_words.h"
#include "control/host_division.h"
#include "control/supervisor.h"

#include <nlohmann/json.hpp>

#include <csignal>

namespace godwit::control {

namespace partition = exchange::partition;
using std::chrono::milliseconds;

namespace {
constexpr milliseconds leave_time_max{3'000};
/// What a process may take to be gone after SIGKILL.
constexpr milliseconds kill_time_max{2'000};
} // namespace

Status HostDivision::write_testament(const Json& report) {
    const std::string text = json_text(report);
    if (text.size() > division::testament_bytes_max) {
        return Error(ErrorCode::resource_exhausted, "the report is too long to be left behind");
    }
    const std::uint64_t at = own_memory_.front().run.first * memory::pool_frame_bytes;
    GODWIT_TRY(
        sys::pwrite_all(supervisor_.pool_.pool()->memory_fd(), std::as_bytes(std::span(text)), at));
    return socket_->send(
        json_text({{"message", "testament"}, {"offset", at}, {"bytes", text.size()}}));
}

/// Free memory is not needed to the end: it goes over like a CPU, so that the estate is short.
Status HostDivision::give_free_memory() {
    memory::ExtentTable& table = supervisor_.pool_.pool()->table();
    const auto all = GODWIT_TRY(table.snapshot());
    for (const memory::Extent& extent :
         memory::extents_of(all, supervisor_.pool_.self(), memory::Purpose::free, 0)) {
        GODWIT_TRY(table.claim(extent, old_->mover().peer_owner()));
        frames_given_ += extent.run.frames;
    }
    return ok();
}

Status HostDivision::seal_estate(const Json& report) {
    if (!heir_lives_) {
        return Error(ErrorCode::peer_closed, "the new godwitd has ended");
    }
    GODWIT_TRY(old_->drain());
    const auto cpus = region_->cpus_of(region_->names().old_instance);
    if (!cpus.empty()) {
        GODWIT_TRY(own_cpus_->set_cpus({cpus.front()}));
    }
    for (std::size_t i = 1; i < cpus.size(); ++i) {
        GODWIT_TRY(old_->mover().give_cpu(cpus[i]));
    }
    GODWIT_TRY(give_free_memory());
    GODWIT_TRY(write_testament(report));
    fault_point("control.division.6");
    GODWIT_TRY(old_->write_estate(division::estate_notice));
    return old_->seal();
}

void HostDivision::bequeath(const Json& report, Reply<void> failed) {
    failed_ = std::move(failed);
    Status sealed = seal_estate(report);
    if (!sealed.has_value()) {
        failed_(std::move(sealed));
        return;
    }
    log::info("estate_sealed", {{"notice_ms", division::estate_notice.count()}});
    Result<sys::EventLoop::Handle> timer =
        supervisor_.parts_.loop.schedule(division::refusal_time_max, {}, [weak = weak_from_this()] {
            if (const auto self = weak.lock(); self != nullptr && self->failed_.pending()) {
                self->failed_.dismiss();
                fault_point("control.division.7");
                self->supervisor_.parts_.succession.leave();
            }
        });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    } else {
        supervisor_.parts_.succession.leave();
    }
}

void HostDivision::abort(Reply<void> done) {
    aborting_ = true;
    timer_.reset();
    aborted_ = std::move(done);
    launch_failed(Error(ErrorCode::cancelled, "the exchange was given up"));
    if (!heir_lives_) {
        heir_ended();
        return;
    }
    const Status told = old_->abort();
    if (!told.has_value()) {
        log::warn("goodbye_not_told", {{"reason", told.error().to_string()}});
    }
    if (!heir_watch_.active()) {
        end_unwatched_heir();
        return;
    }
    Result<sys::EventLoop::Handle> timer = supervisor_.parts_.loop.schedule(
        told.has_value() ? leave_time_max : milliseconds(0), {}, [weak = weak_from_this()] {
            if (const auto self = weak.lock(); self != nullptr && self->heir_lives_) {
                discard(self->heir_->signal(SIGKILL), "it may be gone already");
            }
        });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    } else {
        discard(heir_->signal(SIGKILL), "it may be gone already");
    }
}

/// Its end would not be noticed by itself: it could not even be watched.
void HostDivision::end_unwatched_heir() {
    discard(heir_->signal(SIGKILL), "it may be gone already");
    const auto ended = heir_->wait(kill_time_max);
    if (ended.has_value() && ended->has_value()) {
        heir_lives_ = false;
        heir_ended();
        return;
    }
    aborted_(Error(ErrorCode::timeout, "the new godwitd does not die; its part stays divided off"));
}

void HostDivision::heir_ended() {
    if (heir_lives_) {
        const auto ended = heir_->wait(milliseconds(0));
        if (ended.has_value() && !ended->has_value()) {
            return;
        }
        heir_lives_ = false;
        heir_watch_.reset();
        socket_watch_.reset();
        log::info("heir_ended",
                  {{"how", ended.has_value() ? (*ended)->to_string() : std::string("unknown")}});
    }
    if (!aborting_) {
        fail(Error(ErrorCode::peer_closed, "the new godwitd has ended"));
        return;
    }
    tick_.reset();
    bell_watch_.reset();
    timer_.reset();
    aborted_(take_everything_back());
}

/// The new instance has ended: whatever was its own is ours. Its VMMs run on, as VMMs do.
Status HostDivision::take_everything_back() {
    if (!old_.has_value()) {
        // Not even begun, but memory for it may be there.
        return own_memory_.empty() ? ok()
                                   : supervisor_.pool_.pool()->free(std::exchange(own_memory_, {}));
    }
    memory::Pool& pool = *supervisor_.pool_.pool();
    old_->heir_ended();
    partition::Legacy legacy = GODWIT_TRY(old_->reclaim());
    GODWIT_TRY(partition::scrub_memory(pool, legacy));
    GODWIT_TRY(pool.table().unregister_owner(old_->mover().peer_owner()));
    GODWIT_TRY(pool.free(std::exchange(own_memory_, {})));
    if (!own_cpus_.has_value()) {
        return ok();
    }
    for (const auto& [name, entry] : supervisor_.machines_) {
        if (entry->owner != nullptr && entry->owner->alive()) {
            GODWIT_TRY(own_cpus_->add_process(entry->owner->pid()));
        }
    }
    // Before we take its CPUs: two partitions cannot have the same one.
    heir_cpus_.reset();
    partition::CpuPartition::remove_left(
        division::cpu_partition_name(region_->names().new_instance.value));
    GODWIT_TRY(own_cpus_->set_cpus(host_cpus_));
    partition::CpuPartition::remove_left(
        division::cpu_partition_name(region_->names().old_instance.value));
    return ok();
}

} // namespace godwit::control
