#include "block/move/copier.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace godwit::block {

namespace {
/// What a changed limit may make of a wait: a day.
constexpr double wait_max_ns = 86'400e9;
} // namespace

Result<std::unique_ptr<Copier>> Copier::create(Plan& plan,
                                               RangeLocks& locks,
                                               sys::AlarmClock& clock,
                                               const CopierOptions& options) {
    if (options.depth == 0 || options.chunk_bytes == 0 ||
        options.chunk_bytes % options.block_bytes != 0) {
        return Error(ErrorCode::invalid_argument, "a copier needs room for whole blocks");
    }
    std::unique_ptr<Copier> made(new Copier(plan, locks, clock, options));
    for (Unit& unit : made->units_) {
        unit.copier = made.get();
        unit.buffer = AlignedBuffer(options.chunk_bytes);
        if (unit.buffer.size() == 0) {
            return Error(ErrorCode::resource_exhausted, "no memory to copy through");
        }
    }
    made->alarm_ = GODWIT_TRY(clock.create_alarm([raw = made.get()] {
        raw->run();
        raw->plan_.range_finished();
    }));
    return made;
}

Copier::Copier(Plan& plan, RangeLocks& locks, sys::AlarmClock& clock, const CopierOptions& options)
    : plan_(plan), locks_(locks), clock_(clock), options_(options), units_(options.depth) {}

void Copier::start(BlockDevice& from, BlockDevice& to, Claims claims) {
    GODWIT_ASSERT(active_ == 0);
    from_ = &from;
    to_ = &to;
    claims_ = claims;
    stopped_ = false;
    exhausted_ = false;
}

void Copier::stop() {
    stopped_ = true;
    alarm_->clear();
    if (Unit* const waiting = std::exchange(waiting_, nullptr); waiting != nullptr) {
        waiting->taken = false;
        --active_;
        locks_.release(waiting->claim);
    }
}

Copier::Unit* Copier::idle_unit() noexcept {
    const auto unit = std::ranges::find(units_, false, &Unit::taken);
    return unit == units_.end() ? nullptr : &*unit;
}

bool Copier::paced_out() {
    if (options_.limit_bytes_per_second == 0 || next_start_ <= clock_.now()) {
        return false;
    }
    alarm_->set(next_start_);
    return true;
}

void Copier::set_limit(std::uint64_t bytes_per_second) noexcept {
    const std::uint64_t before = std::exchange(options_.limit_bytes_per_second, bytes_per_second);
    const sys::Moment now = clock_.now();
    if (stopped_ || before == 0 || next_start_ <= now) {
        return;
    }
    // What was copied beyond the old limit is waited for by the new one.
    const double slower = bytes_per_second == 0
                              ? 0.0
                              : static_cast<double>(before) / static_cast<double>(bytes_per_second);
    const std::chrono::duration<double, std::nano> left(next_start_ - now);
    const double wait = std::min(left.count() * slower, wait_max_ns);
    next_start_ = now + sys::Nanoseconds(static_cast<std::int64_t>(wait));
    alarm_->set(next_start_);
}

void Copier::run() {
    while (!stopped_ && waiting_ == nullptr) {
        Unit* const unit = idle_unit();
        if (unit == nullptr || paced_out() || !start_next(*unit)) {
            break;
        }
    }
    if (from_ != nullptr) {
        from_->kick();
        to_->kick();
    }
}

bool Copier::start_next(Unit& unit) {
    const auto range = plan_.next_range(options_.chunk_bytes / options_.block_bytes);
    exhausted_ = !range.has_value();
    if (exhausted_) {
        return false;
    }
    unit.taken = true;
    ++active_;
    if (options_.limit_bytes_per_second != 0) {
        const double seconds = static_cast<double>(range->count() * options_.block_bytes) /
                               static_cast<double>(options_.limit_bytes_per_second);
        next_start_ = std::max(next_start_, clock_.now()) +
                      sys::Nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
    }
    unit.claim.range = *range;
    if (claims_ == Claims::taken) {
        unit.claim.holder = RangeLocks::Holder::copier;
        unit.claim.granted = &Copier::granted;
        unit.claim.owner = &unit;
        waiting_ = &unit;
        if (!locks_.acquire(unit.claim)) {
            return true;
        }
        waiting_ = nullptr;
    }
    begin(unit);
    return true;
}

void Copier::granted(RangeLocks::Claim& claim) noexcept {
    Unit& unit = *static_cast<Unit*>(claim.owner);
    Copier& copier = *unit.copier;
    copier.waiting_ = nullptr;
    copier.begin(unit);
    copier.run();
    copier.plan_.range_finished();
}

void Copier::begin(Unit& unit) {
    unit.runs.clear();
    unit.run = 0;
    plan_.select(unit.claim.range, unit.runs);
    if (unit.runs.empty()) {
        finish(unit);
        return;
    }
    unit.read_from = unit.runs.front().first;
    const std::uint64_t bytes = (unit.runs.back().end - unit.read_from) * options_.block_bytes;
    unit.segment = {.iov_base = unit.buffer.bytes().data(), .iov_len = bytes};
    unit.request = {.operation = BlockOperation::read,
                    .offset = unit.read_from * options_.block_bytes,
                    .bytes = bytes,
                    .segments = {&unit.segment, 1},
                    .done = &Copier::read_done,
                    .owner = &unit};
    from_->submit(unit.request);
}

void Copier::read_done(BlockRequest& request, Status status) noexcept {
    Unit& unit = *static_cast<Unit*>(request.owner);
    Copier& copier = *unit.copier;
    if (copier.abandoned_) {
        return;
    }
    if (!status.has_value()) {
        copier.fail(unit, FailedAt::reading, status.error());
        return;
    }
    copier.write_run(unit);
    copier.to_->kick();
}

namespace {

bool is_zero(std::span<const std::byte> bytes) noexcept {
    // The first byte is zero and every byte equals the one before it.
    return bytes.front() == std::byte{0} &&
           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

} // namespace

void Copier::write_run(Unit& unit) {
    const BlockRange& run = unit.runs[unit.run];
    const auto data = unit.buffer.bytes().subspan(
        (run.first - unit.read_from) * options_.block_bytes, run.count() * options_.block_bytes);
    unit.request = {.operation = BlockOperation::write,
                    .offset = run.first * options_.block_bytes,
                    .bytes = data.size(),
                    .done = &Copier::write_done,
                    .owner = &unit};
    if (is_zero(data)) {
        unit.request.operation = BlockOperation::write_zeroes;
        unit.request.may_unmap = true;
    } else {
        unit.segment = {.iov_base = data.data(), .iov_len = data.size()};
        unit.request.segments = {&unit.segment, 1};
    }
    to_->submit(unit.request);
}

void Copier::write_done(BlockRequest& request, Status status) noexcept {
    Unit& unit = *static_cast<Unit*>(request.owner);
    Copier& copier = *unit.copier;
    if (copier.abandoned_) {
        return;
    }
    if (!status.has_value()) {
        copier.fail(unit, FailedAt::writing, status.error());
        return;
    }
    copier.plan_.copied(unit.runs[unit.run]);
    if (++unit.run < unit.runs.size()) {
        copier.write_run(unit);
        copier.to_->kick();
        return;
    }
    copier.finish(unit);
    copier.run();
    copier.plan_.range_finished();
}

void Copier::finish(Unit& unit) {
    unit.taken = false;
    --active_;
    if (claims_ == Claims::taken) {
        locks_.release(unit.claim);
    }
}

void Copier::fail(Unit& unit, FailedAt where, const Error& reason) {
    plan_.copy_failed(where, reason);
    finish(unit);
    plan_.range_finished();
}

} // namespace godwit::block
