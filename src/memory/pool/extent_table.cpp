#include "memory/pool/extent_table.h"

#include "base/fault_point.h"
#include "memory/pool/table_layout.h"

#include <fcntl.h>
#include <xxhash.h>

#include <atomic>

namespace godwit::memory {

namespace {

using table::Entry;
using table::Header;
using table::Word;

/// How often a snapshot is tried while others change the table.
constexpr int snapshot_tries_max = 256;

template <typename T>
T& at(const sys::MappedRegion& region, std::uint64_t offset) noexcept {
    return *reinterpret_cast<T*>(region.data() + offset);
}

/// Lock-free in shared memory, which is what makes it work between processes.
template <typename T>
std::atomic_ref<T> shared(T& value) noexcept {
    static_assert(std::atomic_ref<T>::is_always_lock_free);
    return std::atomic_ref<T>(value);
}

Entry& entry(const sys::MappedRegion& region, std::uint64_t frame) noexcept {
    return at<Entry>(region, table::entries_offset + frame * sizeof(Entry));
}

std::uint64_t& owner_slot(const sys::MappedRegion& region, std::uint32_t slot) noexcept {
    return at<std::uint64_t>(region, table::slots_offset + slot * sizeof(std::uint64_t));
}

std::uint64_t checksum_of(const Header& header) noexcept {
    return XXH3_64bits(&header, offsetof(Header, checksum));
}

Status check_shape(std::uint64_t frames, std::uint64_t log_records) {
    if (frames == 0 || frames > pool_frames_max || log_records == 0 ||
        log_records > log_records_max) {
        return Error(ErrorCode::invalid_argument,
                     "a memory pool of " + std::to_string(frames) + " frames of 2 MiB and " +
                         std::to_string(log_records) + " log records is not possible");
    }
    return ok();
}

Status check_label(const Label& label) {
    if (std::to_underlying(label.purpose) > purpose_max ||
        (label.purpose == Purpose::free) != (label.tag == 0)) {
        return Error(ErrorCode::invalid_argument,
                     "an extent in use has a tag and a known purpose, a free one has none");
    }
    return ok();
}

} // namespace

Result<ExtentTable> ExtentTable::create(const TableShape& shape, PoolOwner first) {
    GODWIT_TRY(check_shape(shape.frames, shape.log_records));
    const std::uint64_t bytes = table::bytes(shape.frames, shape.log_records);
    sys::Fd fd = GODWIT_TRY(sys::create_memfd("godwit-pool-table", bytes));
    // Nobody who gets this descriptor can shrink it under us (a bus error on the next read).
    if (::fcntl(fd.raw(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return Error::from_errno(errno, "seal the pool's table");
    }
    auto region = GODWIT_TRY(sys::MappedRegion::create(fd, 0, bytes, sys::MapMode::shared));
    auto& header = at<Header>(region, 0);
    header.version = table::version;
    header.frame_bytes = pool_frame_bytes;
    header.frames = shape.frames;
    header.log_records = shape.log_records;
    header.pool_id = shape.pool_id;
    header.magic = table::magic;
    header.checksum = checksum_of(header);
    ExtentTable table(std::move(fd), std::move(region), shape);
    GODWIT_TRY(table.register_owner(first));
    const Word whole{.slot = GODWIT_TRY(table.slot_of(first)), .epoch = 1, .frames = shape.frames};
    shared(entry(table.region_, 0).word).store(table::pack(whole), std::memory_order_release);
    return table;
}

Result<ExtentTable> ExtentTable::adopt(sys::Fd fd) {
    const int seals = ::fcntl(fd.raw(), F_GET_SEALS);
    const std::uint64_t size = GODWIT_TRY(sys::file_size(fd));
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || size < page_size) {
        return Error(ErrorCode::corrupt, "the pool's table is not a sealed memory file");
    }
    auto region = GODWIT_TRY(sys::MappedRegion::create(fd, 0, size, sys::MapMode::shared));
    const Header header = at<Header>(region, 0); // One copy: the other side may go on writing.
    if (header.magic != table::magic || header.version != table::version ||
        header.frame_bytes != pool_frame_bytes || header.checksum != checksum_of(header)) {
        return Error(ErrorCode::corrupt, "the pool's table has an unknown format");
    }
    const Status shape = check_shape(header.frames, header.log_records);
    if (!shape.has_value() || table::bytes(header.frames, header.log_records) != size) {
        return Error(ErrorCode::corrupt, "the pool's table does not have the size it says");
    }
    return ExtentTable(
        std::move(fd),
        std::move(region),
        {.frames = header.frames, .pool_id = header.pool_id, .log_records = header.log_records});
}

Result<std::uint32_t> ExtentTable::slot_of(PoolOwner owner) const {
    for (std::uint32_t slot = 1; owner.value != 0 && slot < table::owner_slots; ++slot) {
        if (shared(owner_slot(region_, slot)).load(std::memory_order_acquire) == owner.value) {
            return slot;
        }
    }
    return Error(ErrorCode::not_found,
                 "instance " + std::to_string(owner.value) + " is not known to the memory pool");
}

Status ExtentTable::register_owner(PoolOwner owner) {
    if (owner.value == 0) {
        return Error(ErrorCode::invalid_argument, "the instance id 0 owns nothing");
    }
    if (slot_of(owner).has_value()) {
        return ok();
    }
    for (std::uint32_t slot = 1; slot < table::owner_slots; ++slot) {
        std::uint64_t empty = 0;
        if (shared(owner_slot(region_, slot))
                .compare_exchange_strong(empty, owner.value, std::memory_order_acq_rel)) {
            return ok();
        }
    }
    return Error(ErrorCode::resource_exhausted, "the memory pool knows 255 instances already");
}

Status ExtentTable::unregister_owner(PoolOwner owner) {
    const auto slot = slot_of(owner);
    if (!slot.has_value()) {
        return ok();
    }
    for (const Extent& extent : GODWIT_TRY(snapshot())) {
        if (extent.owner == owner) {
            return Error(ErrorCode::conflict,
                         "instance " + std::to_string(owner.value) + " still owns memory");
        }
    }
    shared(owner_slot(region_, *slot)).store(0, std::memory_order_release);
    return ok();
}

Status ExtentTable::check_run(const FrameRun& run) const {
    if (run.frames == 0 || run.first >= shape_.frames || run.frames > shape_.frames - run.first) {
        return Error(ErrorCode::corrupt,
                     "frames " + std::to_string(run.first) + " +" + std::to_string(run.frames) +
                         " are not in the pool of " + std::to_string(shape_.frames));
    }
    return ok();
}

/// One walk along the chain: {first frame, word}. It may see several moments at once.
Result<std::vector<std::pair<std::uint64_t, std::uint64_t>>> ExtentTable::walk() const {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> heads;
    for (std::uint64_t first = 0; first < shape_.frames;) {
        const std::uint64_t word =
            shared(entry(region_, first).word).load(std::memory_order_acquire);
        GODWIT_TRY(check_run({.first = first, .frames = table::unpack(word).frames}));
        heads.emplace_back(first, word);
        first += table::unpack(word).frames;
    }
    return heads;
}

Result<Extent> ExtentTable::read_extent(std::uint64_t first, std::uint64_t packed) const {
    const Word word = table::unpack(packed);
    Entry& at_first = entry(region_, first);
    const std::uint64_t owner =
        shared(owner_slot(region_, word.slot)).load(std::memory_order_acquire);
    const std::uint32_t purpose = shared(at_first.purpose).load(std::memory_order_relaxed);
    if (word.slot == 0 || owner == 0 || owner > UINT32_MAX || purpose > purpose_max) {
        return Error(ErrorCode::corrupt,
                     "the extent at frame " + std::to_string(first) +
                         " has no known owner or purpose");
    }
    return Extent{.run = {.first = first, .frames = word.frames},
                  .owner = {static_cast<std::uint32_t>(owner)},
                  .epoch = word.epoch,
                  .label = {.purpose = static_cast<Purpose>(purpose),
                            .tag = shared(at_first.tag).load(std::memory_order_relaxed),
                            .position = shared(at_first.position).load(std::memory_order_relaxed)}};
}

Result<std::vector<Extent>> ExtentTable::snapshot() const {
    Error last(ErrorCode::busy, "the pool's table never stood still");
    for (int i = 0; i < snapshot_tries_max; ++i) {
        const auto heads = walk();
        if (!heads.has_value()) {
            last = heads.error();
            continue;
        }
        std::vector<Extent> extents;
        extents.reserve(heads->size());
        bool good = true;
        for (const auto& [first, word] : *heads) {
            auto extent = read_extent(first, word);
            if (!extent.has_value()) {
                last = extent.error();
                good = false;
                break;
            }
            extents.push_back(*extent);
        }
        // Words never come twice, so two equal walks mean that nothing happened in between.
        std::atomic_thread_fence(std::memory_order_acquire);
        const auto again = walk();
        if (good && again.has_value() && *again == *heads) {
            return extents;
        }
    }
    return last;
}

Result<std::uint64_t> ExtentTable::word_of(const Extent& extent) const {
    GODWIT_TRY(check_run(extent.run));
    return table::pack({.slot = GODWIT_TRY(slot_of(extent.owner)),
                        .epoch = extent.epoch,
                        .frames = extent.run.frames});
}

Error ExtentTable::stale(const Extent& expected, std::uint64_t now) const {
    const Word word = table::unpack(now);
    return Error(ErrorCode::conflict,
                 "the extent at frame " + std::to_string(expected.run.first) + " has " +
                     std::to_string(word.frames) + " frames in epoch " +
                     std::to_string(word.epoch) + " under owner slot " + std::to_string(word.slot) +
                     ", not " + std::to_string(expected.run.frames) + " frames of instance " +
                     std::to_string(expected.owner.value) + " in epoch " +
                     std::to_string(expected.epoch));
}

Status ExtentTable::check_current(const Extent& expected) const {
    const std::uint64_t word = GODWIT_TRY(word_of(expected));
    const std::uint64_t now =
        shared(entry(region_, expected.run.first).word).load(std::memory_order_acquire);
    if (now != word) {
        return stale(expected, now);
    }
    const Extent current = GODWIT_TRY(read_extent(expected.run.first, now));
    if (current.label != expected.label) {
        return Error(ErrorCode::conflict,
                     "the extent at frame " + std::to_string(expected.run.first) +
                         " belongs to another program");
    }
    return ok();
}

/// The place of one change in the log. It is begun before the swap and closed after it.
class ExtentTable::LogEntry {
  public:
    LogEntry(const ExtentTable& table, const Change& change) {
        const std::uint64_t offset = table::log_offset(table.shape_.frames);
        auto& header = at<table::LogHeader>(table.region_, offset);
        const std::uint64_t number = shared(header.next).fetch_add(1, std::memory_order_relaxed);
        if (number >= table.shape_.log_records) {
            return; // Counted; replay() says that the log proves nothing.
        }
        record_ = &at<table::LogRecord>(
            table.region_, offset + sizeof(table::LogHeader) + number * sizeof(table::LogRecord));
        record_->kind = std::to_underlying(change.kind);
        record_->first = change.first;
        record_->before = change.before;
        record_->after = change.after;
        record_->other_first = change.other_first;
        record_->other_before = change.other_before;
        record_->other_after = change.other_after;
        close(ChangeState::begun);
    }
    void close(ChangeState state) noexcept {
        if (record_ != nullptr) {
            shared(record_->state).store(std::to_underlying(state), std::memory_order_release);
        }
    }

  private:
    table::LogRecord* record_ = nullptr;
};

Status ExtentTable::swap_word(const Extent& expected, std::uint64_t before, std::uint64_t after) {
    LogEntry log(*this,
                 {.kind = ChangeKind::replace,
                  .first = expected.run.first,
                  .before = before,
                  .after = after});
    fault_point("memory.pool.swap.begun");
    std::uint64_t word = before;
    // acq_rel: the new owner sees everything the old one wrote into the frames, and its label.
    if (!shared(entry(region_, expected.run.first).word)
             .compare_exchange_strong(word, after, std::memory_order_acq_rel)) {
        log.close(ChangeState::refused);
        return stale(expected, word);
    }
    fault_point("memory.pool.swap.done");
    log.close(ChangeState::done);
    return ok();
}

namespace {

/// The extent after its next change; resource_exhausted when its epochs are used up.
Result<Extent> next_of(const Extent& extent, std::uint32_t epoch) {
    if (epoch == UINT32_MAX) {
        return Error(ErrorCode::resource_exhausted,
                     "the extent at frame " + std::to_string(extent.run.first) +
                         " has changed 2^32 times");
    }
    Extent next = extent;
    next.epoch = epoch + 1;
    return next;
}

} // namespace

Result<Extent> ExtentTable::claim(const Extent& expected, PoolOwner next_owner) {
    const std::uint64_t before = GODWIT_TRY(word_of(expected));
    Extent next = GODWIT_TRY(next_of(expected, expected.epoch));
    next.owner = next_owner;
    GODWIT_TRY(swap_word(expected, before, GODWIT_TRY(word_of(next))));
    return next;
}

void ExtentTable::write_label(std::uint64_t first, const Label& label) {
    Entry& at_first = entry(region_, first);
    shared(at_first.tag).store(label.tag, std::memory_order_relaxed);
    shared(at_first.position).store(label.position, std::memory_order_relaxed);
    shared(at_first.purpose).store(std::to_underlying(label.purpose), std::memory_order_relaxed);
}

Result<Extent> ExtentTable::relabel(const Extent& expected, const Label& label) {
    GODWIT_TRY(check_label(label));
    const std::uint64_t before = GODWIT_TRY(word_of(expected));
    Extent next = GODWIT_TRY(next_of(expected, expected.epoch));
    next.label = label;
    const std::uint64_t now =
        shared(entry(region_, expected.run.first).word).load(std::memory_order_acquire);
    if (now != before) {
        return stale(expected, now);
    }
    write_label(expected.run.first, label);
    GODWIT_TRY(swap_word(expected, before, GODWIT_TRY(word_of(next))));
    return next;
}

Result<std::pair<Extent, Extent>>
ExtentTable::split(const Extent& expected, std::uint64_t tail_frames, const Label& tail_label) {
    GODWIT_TRY(check_label(tail_label));
    if (tail_frames == 0 || tail_frames >= expected.run.frames) {
        return Error(ErrorCode::invalid_argument, "an extent is split into two parts");
    }
    const std::uint64_t before = GODWIT_TRY(word_of(expected));
    Extent rest = GODWIT_TRY(next_of(expected, expected.epoch));
    rest.run.frames -= tail_frames;
    Extent tail = rest;
    tail.run = {.first = rest.run.first + rest.run.frames, .frames = tail_frames};
    tail.label = tail_label;
    const std::uint64_t after = GODWIT_TRY(word_of(rest));
    const std::uint64_t tail_word = GODWIT_TRY(word_of(tail));
    if (const std::uint64_t now =
            shared(entry(region_, expected.run.first).word).load(std::memory_order_acquire);
        now != before) {
        return stale(expected, now);
    }
    // Nothing reaches the tail's entry before the swap makes the extent end there.
    write_label(tail.run.first, tail_label);
    shared(entry(region_, tail.run.first).word).store(tail_word, std::memory_order_release);
    LogEntry log(*this,
                 {.kind = ChangeKind::split,
                  .first = expected.run.first,
                  .before = before,
                  .after = after,
                  .other_first = tail.run.first,
                  .other_after = tail_word});
    fault_point("memory.pool.split.begun");
    std::uint64_t word = before;
    if (!shared(entry(region_, expected.run.first).word)
             .compare_exchange_strong(word, after, std::memory_order_acq_rel)) {
        log.close(ChangeState::refused);
        return stale(expected, word);
    }
    fault_point("memory.pool.split.done");
    log.close(ChangeState::done);
    return std::pair(rest, tail);
}

Result<Extent> ExtentTable::merge(const Extent& left, const Extent& right) {
    if (left.run.first + left.run.frames != right.run.first || left.owner != right.owner ||
        left.label.purpose != Purpose::free || right.label.purpose != Purpose::free) {
        return Error(ErrorCode::invalid_argument,
                     "only free neighbours of one owner can be joined");
    }
    // A new epoch on the right one first: whoever was offered it cannot claim it any more.
    const Extent fresh = GODWIT_TRY(relabel(right, {}));
    const std::uint64_t before = GODWIT_TRY(word_of(left));
    const std::uint64_t right_word = GODWIT_TRY(word_of(fresh));
    Extent joined = GODWIT_TRY(next_of(left, std::max(left.epoch, fresh.epoch)));
    joined.run.frames += right.run.frames;
    const std::uint64_t after = GODWIT_TRY(word_of(joined));
    LogEntry log(*this,
                 {.kind = ChangeKind::merge,
                  .first = left.run.first,
                  .before = before,
                  .after = after,
                  .other_first = right.run.first,
                  .other_before = right_word});
    fault_point("memory.pool.merge.begun");
    std::uint64_t word = before;
    if (!shared(entry(region_, left.run.first).word)
             .compare_exchange_strong(word, after, std::memory_order_acq_rel)) {
        log.close(ChangeState::refused);
        return stale(left, word);
    }
    fault_point("memory.pool.merge.done");
    log.close(ChangeState::done);
    // Out of the chain; an owner of 0 keeps everybody from swapping it.
    shared(entry(region_, right.run.first).word)
        .store(table::pack({.slot = 0, .epoch = fresh.epoch, .frames = fresh.run.frames}),
               std::memory_order_release);
    return joined;
}

ClaimLog ExtentTable::claim_log() const {
    ClaimLog log;
    const std::uint64_t offset = table::log_offset(shape_.frames);
    const std::uint64_t begun =
        shared(at<table::LogHeader>(region_, offset).next).load(std::memory_order_acquire);
    const std::uint64_t count = std::min(begun, shape_.log_records);
    log.lost = begun - count;
    for (std::uint64_t i = 0; i < count; ++i) {
        auto& record = at<table::LogRecord>(
            region_, offset + sizeof(table::LogHeader) + i * sizeof(table::LogRecord));
        const std::uint64_t state = shared(record.state).load(std::memory_order_acquire);
        log.changes.push_back({.kind = static_cast<ChangeKind>(record.kind),
                               .state = static_cast<ChangeState>(state),
                               .first = record.first,
                               .before = record.before,
                               .after = record.after,
                               .other_first = record.other_first,
                               .other_before = record.other_before,
                               .other_after = record.other_after});
    }
    return log;
}

Result<std::size_t> ExtentTable::prove(const std::vector<Extent>& extents) const {
    std::vector<Head> heads;
    for (const Extent& extent : extents) {
        heads.push_back({.first = extent.run.first, .word = GODWIT_TRY(word_of(extent))});
    }
    // The first owner got slot 1 of an empty table.
    const std::uint64_t whole = table::pack({.slot = 1, .epoch = 1, .frames = shape_.frames});
    return replay(claim_log(), shape_.frames, whole, heads);
}

} // namespace godwit::memory
