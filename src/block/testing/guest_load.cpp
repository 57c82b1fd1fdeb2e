#include "block/testing/guest_load.h"

#include <algorithm>

namespace godwit::block::testing {

GuestLoad::GuestLoad(BlockDevice& disk,
                     SimulatedTime& time,
                     BlockOracle& oracle,
                     GuestLoadOptions options)
    : disk_(disk), time_(time), oracle_(oracle), options_(options),
      block_bytes_(disk.geometry().logical_block_bytes),
      blocks_(disk.geometry().bytes / block_bytes_), slots_(options.depth),
      left_(options.requests) {
    for (Slot& slot : slots_) {
        slot.load = this;
        slot.alarm = GODWIT_MUST( // Simulated alarms never fail.
            time.create_alarm([this, &slot] { ask(slot); }));
        think(slot);
    }
}

void GuestLoad::think(Slot& slot) {
    slot.alarm->set(time_.now() + sys::Nanoseconds(time_.below(
                                      static_cast<std::uint64_t>(options_.think.count()) + 1)));
}

void GuestLoad::choose(Slot& slot) {
    BlockRequest& request = slot.request;
    request = {.done = &GuestLoad::done, .owner = &slot};
    const std::uint64_t die = time_.below(100);
    const std::uint64_t writes = options_.writes_per_hundred;
    request.operation = die < writes        ? BlockOperation::write
                        : die < writes + 5  ? BlockOperation::write_zeroes
                        : die < writes + 8  ? BlockOperation::discard
                        : die < writes + 15 ? BlockOperation::flush
                                            : BlockOperation::read;
    if (request.operation == BlockOperation::flush) {
        return;
    }
    const std::uint64_t place =
        options_.hot_blocks > 0 && time_.one_in(2) ? options_.hot_blocks : blocks_;
    const std::uint64_t first = time_.below(place);
    const std::uint64_t count = std::min(blocks_ - first, 1 + time_.below(options_.blocks_max));
    request.offset = first * block_bytes_;
    request.bytes = count * block_bytes_;
    request.force_unit_access = time_.one_in(8);
    request.may_unmap = time_.one_in(2);
}

void GuestLoad::ask(Slot& slot) {
    if (left_ == 0) {
        return;
    }
    --left_;
    ++running_;
    choose(slot);
    BlockRequest& request = slot.request;
    const BlockRange range{.first = request.offset / block_bytes_,
                           .end = (request.offset + request.bytes) / block_bytes_};
    if (changes_data(request.operation)) {
        slot.number = oracle_.begin(
            request.operation == BlockOperation::write     ? BlockOracle::Change::write
            : request.operation == BlockOperation::discard ? BlockOracle::Change::discard
                                                           : BlockOracle::Change::zeroes,
            range);
    }
    if (request.operation == BlockOperation::read || request.operation == BlockOperation::write) {
        slot.memory.assign(request.bytes, std::byte{0xdd});
        const std::uint64_t cut = time_.below(request.bytes + 1);
        slot.segments.clear();
        slot.segments.push_back({.iov_base = slot.memory.data(), .iov_len = cut});
        slot.segments.push_back(
            {.iov_base = slot.memory.data() + cut, .iov_len = request.bytes - cut});
        request.segments = slot.segments;
        if (request.operation == BlockOperation::write) {
            oracle_.fill(slot.number, slot.memory);
        }
    }
    slot.since = oracle_.now();
    disk_.submit(request);
    disk_.kick();
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): the interface passes it by value.
void GuestLoad::done(BlockRequest& request, Status status) noexcept {
    Slot& slot = *static_cast<Slot*>(request.owner);
    slot.load->answered(slot, status);
}

void GuestLoad::answered(Slot& slot, const Status& status) {
    --running_;
    errors_ += status.has_value() ? 0U : 1U;
    const BlockRequest& request = slot.request;
    if (changes_data(request.operation)) {
        oracle_.end(slot.number,
                    status.has_value(),
                    request.force_unit_access ? BlockOracle::Durable::yes
                                              : BlockOracle::Durable::no);
    } else if (request.operation == BlockOperation::flush) {
        flushes_ += status.has_value() ? 1U : 0U;
        status.has_value() ? oracle_.flushed(slot.since) : oracle_.flush_failed(slot.since);
    } else if (status.has_value() && violation_.empty()) {
        violation_ = oracle_.check(request.offset / block_bytes_, slot.memory, slot.since);
        if (!violation_.empty()) {
            violation_ = "a read gave " + violation_;
        }
    }
    std::ranges::fill(slot.memory, std::byte{0xee});
    think(slot);
}

} // namespace godwit::block::testing
