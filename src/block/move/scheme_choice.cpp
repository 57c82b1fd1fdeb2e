#include "block/move/scheme_choice.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <string>
#include <utility>

namespace godwit::block {

double wear_weight_of(const sys::Fd& image) {
    struct stat info{};
    struct statfs system{};
    if (::fstat(image.raw(), &info) != 0 || ::fstatfs(image.raw(), &system) != 0) {
        return 1;
    }
    const bool block = S_ISBLK(info.st_mode);
    if (!block && (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC)) {
        return 0;
    }
    const dev_t device = block ? info.st_rdev : info.st_dev;
    const std::string place =
        "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
    // A partition has its queue one folder up.
    for (const char* queue : {"/queue/rotational", "/../queue/rotational"}) {
        const Result<std::string> text = sys::read_file(place + queue, 16);
        if (text.has_value()) {
            return text->starts_with('1') ? 0 : 1;
        }
    }
    return 1;
}

SchemeChooser::SchemeChooser(const Args& args) : args_(args) {
    situation_.disk_bytes = args.disk.geometry().bytes;
    situation_.gamma = args.gamma;
    situation_.limit_bytes_per_second = args.limit_bytes_per_second;
    situation_.allows_lr = false;
}

Status SchemeChooser::start(Answer answer) {
    alarm_ = GODWIT_TRY(args_.clock.create_alarm([this] { look(); }));
    GODWIT_TRY(args_.disk.observe({}));
    answer_ = std::move(answer);
    before_ = args_.disk.traffic();
    watched_since_ = args_.clock.now();
    alarm_->set(watched_since_ + look_period);
    return ok();
}

void SchemeChooser::stop() {
    stopped_ = true;
    if (probe_.has_value()) {
        probe_->stop();
    } else {
        alarm_->set(args_.clock.now());
    }
}

void SchemeChooser::abandon() noexcept {
    answer_ = nullptr;
    if (probe_.has_value()) {
        probe_->abandon();
    }
}

std::string_view SchemeChooser::phase() const noexcept {
    return step_ == Step::watching ? "watching" : "measuring";
}

void SchemeChooser::look() {
    const GuestTraffic now = args_.disk.traffic();
    const std::uint64_t seen = now.reads + now.changes - before_.reads - before_.changes;
    if (step_ == Step::watching && !stopped_ && seen < enough_requests &&
        args_.clock.now() - watched_since_ < watching_time) {
        alarm_->set(args_.clock.now() + look_period);
        return;
    }
    watched();
}

void SchemeChooser::watched() {
    if (stopped_) {
        finish(Error(ErrorCode::cancelled, "the move was cancelled"));
        return;
    }
    if (step_ == Step::measuring_source) {
        probe_.emplace(args_.disk.current(), args_.clock, SpeedProbe::May::read);
        probe_->start([this](Result<DeviceSpeed> speed) { measured(std::move(speed)); });
        return;
    }
    situation_.workload = workload_between(
        before_, args_.disk.traffic(), args_.clock.now() - watched_since_, args_.disk.observed());
    step_ = Step::measuring_destination;
    probe_.emplace(args_.destination, args_.clock, SpeedProbe::May::read_and_write);
    probe_->start([this](Result<DeviceSpeed> speed) { measured(std::move(speed)); });
}

void SchemeChooser::measured(Result<DeviceSpeed> speed) {
    const bool of_destination = step_ == Step::measuring_destination;
    if (!speed.has_value()) {
        finish(std::move(speed.error())
                   .with_context(of_destination ? "the destination could not be measured"
                                                : "the source could not be measured"));
        return;
    }
    if (of_destination) {
        situation_.destination = *speed;
        situation_.destination.wear_weight = args_.destination_wear;
        step_ = Step::measuring_source;
        alarm_->set(args_.clock.now()); // This probe is still at work until we return.
        return;
    }
    situation_.source = *speed;
    situation_.source.wear_weight = args_.source_wear;
    SchemeFindings findings{.situation = situation_};
    findings.estimates = estimate_all(situation_);
    findings.choice = choose(findings.estimates, situation_);
    finish(std::move(findings));
}

/// The answer may destroy this.
void SchemeChooser::finish(Result<SchemeFindings> findings) {
    if (Answer answer = std::exchange(answer_, nullptr); answer) {
        answer(std::move(findings));
    }
}

} // namespace godwit::block
