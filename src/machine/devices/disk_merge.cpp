#include "machine/devices/disk_merge.h"

#include "base/log.h"
#include "machine/resources.h"

#include <nlohmann/json.hpp>

#include <algorithm>
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
    GODWIT_TRY(made->fold());
    if (made->due_ == Due::nothing) {
        made->alarm_->set(made->args_.clock.now() + tick_distance);
    }
    return made;
}

Status DiskMerge::fold() {
    block::OverlayDevice* const top = args_.layers.top();
    GODWIT_ASSERT(top != nullptr); // As many as the document says; checked by the machine.
    {
        const std::lock_guard lock(mutex_);
        published_.phase = "folding";
        published_.total_bytes = mapped_bytes(*top);
        published_.left_bytes = published_.total_bytes;
    }
    return top->fold([this](Status status) { folded(std::move(status)); });
}

/// Called by the overlay, which must not go now.
void DiskMerge::folded(Status status) {
    if (abandoned_) {
        return;
    }
    if (!status.has_value()) {
        end_soon(std::move(status.error()));
        return;
    }
    due_ = Due::take_away;
    alarm_->set(args_.clock.now());
}

void DiskMerge::taken_away(Result<sys::Nanoseconds> pause) {
    if (abandoned_) {
        return;
    }
    if (!pause.has_value()) {
        args_.spec.deltas = args_.layers.specs();
        end_soon(std::move(pause.error())
                     .with_context("the delta is merged, but could not be taken away"));
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        ++published_.merged;
        folded_before_ += published_.total_bytes;
        published_.pause = std::max(published_.pause, *pause);
    }
    if (args_.spec.deltas.empty() || cancelled_.has_value()) {
        end_soon(args_.spec.deltas.empty() ? std::nullopt : std::move(cancelled_));
        return;
    }
    due_ = Due::fold;
    alarm_->set(args_.clock.now());
}

void DiskMerge::end_soon(std::optional<Error> reason) {
    reason_ = std::move(reason);
    due_ = Due::end;
    alarm_->set(args_.clock.now());
}

void DiskMerge::tick() {
    if (abandoned_ || over()) {
        return;
    }
    publish();
    const Due due = std::exchange(due_, Due::nothing);
    Status begun;
    if (due == Due::take_away) {
        {
            const std::lock_guard lock(mutex_);
            published_.phase = "switching";
        }
        args_.spec.deltas.pop_back();
        begun = args_.layers.take_top_away(
            args_.spec, [this](Result<sys::Nanoseconds> pause) { taken_away(std::move(pause)); });
        if (!begun.has_value()) {
            args_.spec.deltas = args_.layers.specs();
        }
    } else if (due == Due::fold) {
        begun = cancelled_.has_value() ? Status(std::move(*cancelled_)) : fold();
    } else if (due == Due::end) {
        {
            const std::lock_guard lock(mutex_);
            published_.phase = "finished";
            published_.over = true;
            published_.reason = std::move(reason_);
            published_.duration = args_.clock.now() - begun_;
        }
        over_ = true;
        if (args_.events.disk_move_ended) {
            args_.events.disk_move_ended(published_.disk);
        }
        return;
    }
    if (!begun.has_value()) {
        end_soon(std::move(begun.error()));
        return;
    }
    if (due_ == Due::nothing) {
        alarm_->set(args_.clock.now() + tick_distance);
    }
}

void DiskMerge::publish() {
    const block::OverlayDevice* const top = args_.layers.top();
    const std::lock_guard lock(mutex_);
    if (top != nullptr && published_.phase == "folding") {
        published_.left_bytes = mapped_bytes(*top);
    }
    const bool folds = published_.phase == "folding";
    published_.folded_bytes =
        folded_before_ + (folds ? published_.total_bytes - published_.left_bytes : 0);
    published_.duration = args_.clock.now() - begun_;
}

Status DiskMerge::cancel() {
    if (over()) {
        return Error(ErrorCode::conflict, "the merge is over already");
    }
    cancelled_ = Error(ErrorCode::cancelled, "the merge was cancelled");
    if (args_.layers.top() != nullptr) {
        discard(args_.layers.top()->cancel_fold(*cancelled_), "between two, taken_away() sees it");
    }
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
                  {"merged", state.merged},
                  {"folded_bytes", state.folded_bytes},
                  {"duration_us", microseconds(state.duration)},
                  {"safe", true}};
    if (!state.over) {
        document["total_bytes"] = state.total_bytes;
        document["left_bytes"] = state.left_bytes;
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
