#include "machine/devices/disk_merge.h"

#include "base/log.h"
#include "machine/resources.h"

#include <nlohmann/json.hpp>

#include <utility>

namespace godwit::machine {

namespace {
/// How often the state is published.
constexpr std::chrono::milliseconds tick_distance(250);

std::uint64_t mapped_bytes(const block::OverlayDevice& overlay) {
    return overlay.status().clusters_mapped * overlay.header().cluster_bytes;
}
} // namespace

DiskMerge::DiskMerge(Args args) : args_(std::move(args)), begun_(args_.clock.now()) {
    published_.id = static_cast<std::uint64_t>(args_.clock.unix_nanoseconds() / 1000);
    published_.disk = disk_resource_name(args_.index);
    published_.base = args_.spec.path;
    published_.deltas = static_cast<std::uint32_t>(args_.spec.deltas.size());
}

Result<std::unique_ptr<DiskMerge>> DiskMerge::start(Args args) {
    std::unique_ptr<DiskMerge> made(new DiskMerge(std::move(args)));
    made->alarm_ = GODWIT_TRY(made->args_.clock.create_alarm([raw = made.get()] { raw->tick(); }));
    made->fold_all();
    made->publish();
    if (made->due_ == Due::nothing) {
        made->alarm_->set(made->args_.clock.now() + tick_distance);
    }
    return made;
}

void DiskMerge::fold_all() {
    const std::vector<block::OverlayDevice*>& overlays = args_.layers.overlays();
    folding_ = overlays.size();
    for (block::OverlayDevice* const overlay : overlays) {
        published_.total_bytes += mapped_bytes(*overlay);
    }
    published_.phase = "folding";
    for (block::OverlayDevice* const overlay : overlays) {
        Status begun = overlay->fold([this](Status status) { folded(std::move(status)); });
        if (!begun.has_value()) {
            folded(std::move(begun));
        }
    }
}

/// Called by an overlay, which must not go now.
void DiskMerge::folded(Status status) {
    if (abandoned_) {
        return;
    }
    --folding_;
    if (!status.has_value() && !reason_.has_value()) {
        end_folds(status.error());
    }
    if (folding_ == 0) {
        soon(reason_.has_value() ? Due::end : Due::take_away);
    }
}

void DiskMerge::end_folds(const Error& reason) {
    reason_ = reason;
    for (block::OverlayDevice* const overlay : args_.layers.overlays()) {
        discard(overlay->cancel_fold(reason), "it has ended before");
    }
}

void DiskMerge::taken_away(Result<sys::Nanoseconds> pause) {
    if (abandoned_) {
        return;
    }
    if (pause.has_value()) {
        args_.spec.deltas.clear();
        const std::lock_guard lock(mutex_);
        published_.pause = *pause;
    } else {
        reason_ = std::move(pause.error())
                      .with_context("the deltas are merged, but could not be taken away");
    }
    soon(Due::end);
}

void DiskMerge::soon(Due due) {
    due_ = due;
    alarm_->set(args_.clock.now());
}

void DiskMerge::tick() {
    if (abandoned_ || over()) {
        return;
    }
    publish();
    switch (std::exchange(due_, Due::nothing)) {
    case Due::take_away:
        take_away();
        break;
    case Due::end:
        end();
        return;
    case Due::nothing:
        break;
    }
    if (due_ == Due::nothing) {
        alarm_->set(args_.clock.now() + tick_distance);
    }
}

void DiskMerge::take_away() {
    {
        const std::lock_guard lock(mutex_);
        published_.phase = "switching";
    }
    DiskSpec without = args_.spec;
    without.deltas.clear();
    Status begun = args_.layers.take_all_away(
        without, [this](Result<sys::Nanoseconds> pause) { taken_away(std::move(pause)); });
    if (!begun.has_value()) {
        reason_ = std::move(begun.error());
        soon(Due::end);
    }
}

void DiskMerge::end() {
    {
        const std::lock_guard lock(mutex_);
        published_.phase = "finished";
        published_.over = true;
        published_.reason = std::move(reason_);
    }
    over_ = true;
    if (args_.events.disk_move_ended) {
        args_.events.disk_move_ended(published_.disk);
    }
}

void DiskMerge::publish() {
    std::uint64_t left = 0;
    for (const block::OverlayDevice* const overlay : args_.layers.overlays()) {
        left += mapped_bytes(*overlay);
    }
    const std::lock_guard lock(mutex_);
    published_.left_bytes = left;
    published_.duration = args_.clock.now() - begun_;
}

Status DiskMerge::cancel() {
    if (over() || due_ != Due::nothing || folding_ == 0) {
        return Error(ErrorCode::conflict, "the merge of " + published_.disk + " is over already");
    }
    end_folds(Error(ErrorCode::cancelled, "the merge was cancelled"));
    return ok();
}

void DiskMerge::abandon() noexcept {
    abandoned_ = true;
    alarm_->clear();
}

DiskMergeState DiskMerge::state() const {
    const std::lock_guard lock(mutex_);
    return published_;
}

std::string to_json(const DiskMergeState& state) {
    using Json = nlohmann::json;
    const auto microseconds = [](sys::Nanoseconds time) {
        return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
    };
    Json document{{"id", state.id},
                  {"disk", state.disk},
                  {"base", state.base},
                  {"phase", state.phase},
                  {"deltas", state.deltas},
                  {"total_bytes", state.total_bytes},
                  {"left_bytes", state.left_bytes},
                  {"duration_us", microseconds(state.duration)},
                  {"safe", true}};
    if (!state.over) {
        return document.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    document["operation"] = "disk-merge";
    document["pause_us"] = microseconds(state.pause);
    document["outcome"] = "merged";
    if (state.reason.has_value()) {
        const bool asked = state.reason->code() == ErrorCode::cancelled;
        document["outcome"] = asked ? "cancelled" : "failed";
        document["reason"] = state.reason->to_string();
        document["error_code"] = godwit::name_of(state.reason->code());
    }
    return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace godwit::machine
