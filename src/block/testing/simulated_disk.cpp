#include "block/testing/simulated_disk.h"

#include "block/segments.h"

#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>

namespace godwit::block::testing {

SimulatedDisk::SimulatedDisk(Medium& medium, SimulatedTime& time, SimulatedDiskOptions options)
    : medium_(medium), time_(time), options_(std::move(options)),
      geometry_{.bytes = medium.current.size(),
                .logical_block_bytes = options_.block_bytes,
                .can_discard = true,
                .can_write_zeroes = true},
      alarm_(GODWIT_MUST(time.create_alarm([this] { ring(); }))) {} // Simulated alarms never fail.

void SimulatedDisk::submit(BlockRequest& request) {
    const auto spread =
        static_cast<std::uint64_t>((options_.latency_max - options_.latency_min).count() + 1);
    sys::Nanoseconds latency = options_.latency_min + sys::Nanoseconds(time_.below(spread));
    if (time_.one_in(options_.slow_one_in)) {
        latency *= 50;
    }
    Journey& journey = on_their_way_.emplace_back();
    journey.request = &request;
    journey.due = time_.now() + latency;
    journey.fails = time_.one_in(options_.fail_one_in);
    if (request.operation == BlockOperation::flush) {
        journey.flushes = medium_.unsynced;
        journey.forgets_all = std::exchange(loses_next_flush_, false);
        journey.fails =
            journey.fails || journey.forgets_all || time_.one_in(options_.fail_flush_one_in);
    } else if (validate(request, geometry_).has_value() && time_.one_in(2) && !journey.fails) {
        apply(request, request.bytes); // At the start of its way; else at its end.
        journey.applied = true;
    }
    set_alarm();
}

void SimulatedDisk::apply(const BlockRequest& request, std::uint64_t bytes) {
    const auto place = std::span(medium_.current).subspan(request.offset, bytes);
    if (request.operation == BlockOperation::read) {
        scatter(place, request.segments, 0);
        medium_.read_bytes += bytes;
        return;
    }
    if (request.operation == BlockOperation::write) {
        gather(request.segments, 0, place);
    } else {
        std::ranges::fill(place, std::byte{0});
    }
    mark_unsynced(request, bytes);
}

void SimulatedDisk::mark_unsynced(const BlockRequest& request, std::uint64_t bytes) {
    for (std::uint64_t at = request.offset; at < request.offset + bytes;
         at += options_.block_bytes) {
        medium_.unsynced.insert(at / options_.block_bytes);
    }
}

/// Once a flush has failed, nobody tries again with what it was about.
void SimulatedDisk::forget(const Journey& flush) {
    const bool some = time_.one_in(2);
    for (const std::uint64_t block : flush.flushes) {
        if (flush.forgets_all || (some && time_.one_in(2))) {
            medium_.unsynced.erase(block);
        }
    }
}

void SimulatedDisk::make_durable(const std::set<std::uint64_t>& blocks) {
    for (const std::uint64_t block : blocks) {
        const auto start = static_cast<std::ptrdiff_t>(block * options_.block_bytes);
        std::copy_n(
            medium_.current.begin() + start, options_.block_bytes, medium_.durable.begin() + start);
        medium_.unsynced.erase(block);
    }
}

void SimulatedDisk::finish(Journey journey) {
    BlockRequest& request = *journey.request;
    if (Status valid = validate(request, geometry_); !valid.has_value()) {
        request.done(request, std::move(valid));
        return;
    }
    if (journey.fails) {
        if (changes_data(request.operation) && time_.one_in(2)) {
            const std::uint64_t blocks = request.bytes / options_.block_bytes;
            apply(request, time_.below(blocks + 1) * options_.block_bytes);
        } else if (request.operation == BlockOperation::flush) {
            forget(journey);
        }
        request.done(request, Error::from_errno(EIO, options_.name + ": simulated failure"));
        return;
    }
    if (request.operation == BlockOperation::flush) {
        make_durable(journey.flushes);
    } else if (!journey.applied) {
        apply(request, request.bytes);
    } else if (changes_data(request.operation)) {
        mark_unsynced(request, request.bytes); // A flush that failed meanwhile was not about it.
    }
    if (changes_data(request.operation)) {
        medium_.written_bytes += request.bytes;
        if (request.force_unit_access) {
            std::set<std::uint64_t> blocks;
            for (std::uint64_t at = request.offset; at < request.offset + request.bytes;
                 at += options_.block_bytes) {
                blocks.insert(at / options_.block_bytes);
            }
            make_durable(blocks);
        }
    }
    request.done(request, ok());
}

void SimulatedDisk::ring() {
    const auto next = std::ranges::min_element(on_their_way_, {}, &Journey::due);
    if (next != on_their_way_.end() && next->due <= time_.now()) {
        Journey journey = std::move(*next);
        on_their_way_.erase(next);
        finish(std::move(journey));
    }
    set_alarm();
}

void SimulatedDisk::set_alarm() {
    const auto next = std::ranges::min_element(on_their_way_, {}, &Journey::due);
    next == on_their_way_.end() ? alarm_->clear() : alarm_->set(next->due);
}

void SimulatedDisk::cut_power() {
    for (const Journey& journey : on_their_way_) {
        const BlockRequest& request = *journey.request;
        if (!journey.applied && changes_data(request.operation) &&
            validate(request, geometry_).has_value()) {
            apply(request,
                  time_.below(request.bytes / options_.block_bytes + 1) * options_.block_bytes);
        }
    }
    on_their_way_.clear();
    alarm_->clear();
    std::set<std::uint64_t> kept;
    for (const std::uint64_t block : medium_.unsynced) {
        if (time_.one_in(2)) {
            kept.insert(block);
        }
    }
    make_durable(kept);
    medium_.current = medium_.durable;
    medium_.unsynced.clear();
}

} // namespace godwit::block::testing
