#include "exchange/partition/region.h"

#include "exchange/partition/region_layout.h"
#include "memory/pool/extent_check.h"

#include <fcntl.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

namespace godwit::exchange::partition {

namespace {

static_assert(layout::programs == Region::programs_max);
static_assert(layout::ring_slots == ring_messages_max);
static_assert(layout::cpus == Region::cpus_max);
static_assert(layout::estate_extents == Region::estate_extents_max);
static_assert(layout::program_extents == memory::program_extents_max);

layout::Region& view(const sys::MappedRegion& map) noexcept {
    return *reinterpret_cast<layout::Region*>(map.data());
}

/// Lock-free in shared memory, which is what makes it work between processes.
template <typename T>
std::atomic_ref<T> shared(T& value) noexcept {
    static_assert(std::atomic_ref<T>::is_always_lock_free);
    return std::atomic_ref<T>(value);
}

/// Checksum of everything before the member `checksum`.
template <typename T>
std::uint64_t checksum_of(const T& value) noexcept {
    return XXH3_64bits(&value, offsetof(T, checksum));
}

constexpr std::uint64_t pack(const Ownership& ownership) noexcept {
    return std::uint64_t{ownership.owner.value} << 32U | ownership.epoch;
}

MaybeOwnership unpack(std::uint64_t word) noexcept {
    const Ownership ownership{.owner = InstanceId{static_cast<std::uint32_t>(word >> 32U)},
                              .epoch = static_cast<std::uint32_t>(word)};
    return ownership.owner.value == 0 ? MaybeOwnership() : ownership;
}

layout::Extent to_layout(const memory::Extent& extent) noexcept {
    return {.first = extent.run.first,
            .frames = extent.run.frames,
            .tag = extent.label.tag,
            .position = extent.label.position,
            .owner = extent.owner.value,
            .epoch = extent.epoch,
            .purpose = std::to_underlying(extent.label.purpose),
            .reserved = 0};
}

Result<memory::Extent> from_layout(const layout::Extent& extent) {
    if (extent.purpose > memory::purpose_max) {
        return Error(ErrorCode::corrupt, "an extent has an unknown purpose");
    }
    return memory::Extent{.run = {.first = extent.first, .frames = extent.frames},
                          .owner = {extent.owner},
                          .epoch = extent.epoch,
                          .label = {.purpose = static_cast<memory::Purpose>(extent.purpose),
                                    .tag = extent.tag,
                                    .position = extent.position}};
}

Result<std::vector<memory::Extent>> take_extents(std::span<const layout::Extent> extents) {
    std::vector<memory::Extent> out;
    out.reserve(extents.size());
    for (const layout::Extent& extent : extents) {
        out.push_back(GODWIT_TRY(from_layout(extent)));
    }
    return out;
}

} // namespace

Result<Region> Region::create(const RegionNames& names) {
    if (names.old_instance.value == 0 || names.new_instance.value == 0 ||
        names.old_instance == names.new_instance) {
        return Error(ErrorCode::invalid_argument, "a partition needs two different instances");
    }
    sys::Fd fd = GODWIT_TRY(sys::create_memfd("godwit-partition", layout::region_bytes));
    // Nobody who gets this descriptor can shrink it under us (a bus error on the next read).
    if (::fcntl(fd.raw(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return Error::from_errno(errno, "seal the partition's region");
    }
    auto map =
        GODWIT_TRY(sys::MappedRegion::create(fd, 0, layout::region_bytes, sys::MapMode::shared));
    layout::Header& header = view(map).header;
    header.magic = layout::magic;
    header.version = layout::version;
    header.bytes = layout::region_bytes;
    header.pool_id = names.pool_id;
    header.old_instance = names.old_instance.value;
    header.new_instance = names.new_instance.value;
    header.checksum = checksum_of(header);
    return Region(std::move(fd), std::move(map), names);
}

Result<Region> Region::adopt(sys::Fd fd) {
    const int seals = ::fcntl(fd.raw(), F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
        GODWIT_TRY(sys::file_size(fd)) != layout::region_bytes) {
        return Error(ErrorCode::corrupt, "the partition's region is not a sealed memory file");
    }
    auto map =
        GODWIT_TRY(sys::MappedRegion::create(fd, 0, layout::region_bytes, sys::MapMode::shared));
    const layout::Header header = view(map).header; // One copy: the other side may go on writing.
    const RegionNames names{.old_instance = {header.old_instance},
                            .new_instance = {header.new_instance},
                            .pool_id = header.pool_id};
    if (header.magic != layout::magic || header.version != layout::version ||
        header.bytes != layout::region_bytes || header.checksum != checksum_of(header) ||
        header.old_instance == 0 || header.new_instance == 0 ||
        header.old_instance == header.new_instance) {
        return Error(ErrorCode::corrupt, "the partition's region has an unknown format");
    }
    return Region(std::move(fd), std::move(map), names);
}

InstanceId Region::id_of(Side side) const noexcept {
    return side == Side::old_instance ? names_.old_instance : names_.new_instance;
}

void Region::beat(Side self, sys::Moment now) noexcept {
    layout::Side& side = view(map_).sides[std::to_underlying(self)];
    shared(side.beat_ns).store(now.time_since_epoch().count(), std::memory_order_relaxed);
    shared(side.beats).fetch_add(1, std::memory_order_release);
}

std::uint64_t Region::beats(Side side) const noexcept {
    return shared(view(map_).sides[std::to_underlying(side)].beats).load(std::memory_order_acquire);
}

Status Region::send(Side self, const Message& message) {
    layout::Ring& ring = view(map_).rings[std::to_underlying(self)];
    const std::uint64_t written = shared(ring.written).load(std::memory_order_relaxed);
    // Acquire: the slot is ours only after the reader has copied it (its release in receive()).
    const std::uint64_t read = shared(ring.read).load(std::memory_order_acquire);
    if (written - read >= layout::ring_slots) {
        return written < read
                   ? Error(ErrorCode::corrupt, "the reader of the ring is ahead of its writer")
                   : Error(ErrorCode::busy, "the other instance does not read its messages");
    }
    layout::Message slot{.sequence = written,
                         .type = std::to_underlying(message.type),
                         .subject = message.subject,
                         .value = message.value,
                         .checksum = 0};
    slot.checksum = checksum_of(slot);
    ring.slots[written % layout::ring_slots] = slot;
    shared(ring.written).store(written + 1, std::memory_order_release);
    return ok();
}

Result<std::optional<Message>> Region::receive(Side self) {
    layout::Ring& ring = view(map_).rings[std::to_underlying(other(self))];
    const std::uint64_t read = shared(ring.read).load(std::memory_order_relaxed);
    const std::uint64_t written = shared(ring.written).load(std::memory_order_acquire);
    if (written == read) {
        return std::optional<Message>();
    }
    if (written - read > layout::ring_slots) {
        return Error(ErrorCode::corrupt, "the ring from the other instance has impossible indexes");
    }
    const layout::Message slot = ring.slots[read % layout::ring_slots];
    shared(ring.read).store(read + 1, std::memory_order_release);
    if (slot.sequence != read || slot.checksum != checksum_of(slot) || slot.type == 0 ||
        slot.type > std::to_underlying(MessageType::goodbye)) {
        return Error(ErrorCode::corrupt,
                     "message " + std::to_string(read) + " of the other instance is not whole");
    }
    return std::optional(Message{
        .type = static_cast<MessageType>(slot.type), .subject = slot.subject, .value = slot.value});
}

Result<Ownership> Region::swap_word(std::uint64_t& word,
                                    const Ownership& expected,
                                    InstanceId next,
                                    const char* what) {
    if (expected.epoch == UINT32_MAX || next.value == 0) {
        return Error(ErrorCode::resource_exhausted, std::string(what) + " has no next epoch");
    }
    const Ownership desired{.owner = next, .epoch = expected.epoch + 1};
    std::uint64_t now = pack(expected);
    // acq_rel: the new owner sees everything the old one wrote before its offer, and the other way
    // round.
    if (!shared(word).compare_exchange_strong(now, pack(desired), std::memory_order_acq_rel)) {
        return Error(ErrorCode::conflict,
                     std::string(what) + " belongs to instance " +
                         to_string(InstanceId{static_cast<std::uint32_t>(now >> 32U)}) +
                         " in epoch " + std::to_string(static_cast<std::uint32_t>(now)) +
                         ", not to " + to_string(expected.owner) + " in epoch " +
                         std::to_string(expected.epoch));
    }
    return desired;
}

namespace {

Status check_offer(const ProgramOffer& program) {
    if (program.name.empty() || program.name.size() >= layout::name_bytes ||
        program.name.find('\0') != std::string::npos) {
        return Error(ErrorCode::invalid_argument, "a program's name has 1 to 63 bytes");
    }
    if (program.memory.size() + program.state.size() > layout::program_extents) {
        return Error(ErrorCode::resource_exhausted,
                     "program '" + program.name + "' lies in " +
                         std::to_string(program.memory.size() + program.state.size()) +
                         " extents, at most " + std::to_string(layout::program_extents) +
                         " can be handed over");
    }
    return ok();
}

void write_body(layout::ProgramBody& body, const ProgramOffer& program) {
    std::memset(&body, 0, sizeof(body));
    body.tag = program.tag;
    body.state_bytes = program.state_bytes;
    body.kind = std::to_underlying(program.kind);
    body.memory_extents = static_cast<std::uint32_t>(program.memory.size());
    body.state_extents = static_cast<std::uint32_t>(program.state.size());
    std::ranges::copy(program.name, body.name.begin());
    auto* next = std::ranges::transform(program.memory, body.extents.begin(), to_layout).out;
    std::ranges::transform(program.state, next, to_layout);
}

Error bad_program(std::size_t slot, const char* why) {
    return Error(ErrorCode::corrupt,
                 "program " + std::to_string(slot) + " on offer " + std::string(why));
}

} // namespace

Result<Ownership> Region::offer(std::size_t slot, InstanceId owner, const ProgramOffer& program) {
    GODWIT_TRY(check_offer(program));
    if (slot >= programs_max) {
        return Error(ErrorCode::resource_exhausted, "256 programs can be on their way");
    }
    layout::Program& shared_program = view(map_).program[slot];
    const std::uint64_t word = shared(shared_program.word).load(std::memory_order_acquire);
    if (const auto now = unpack(word); now.has_value() && now->owner != owner) {
        return Error(ErrorCode::conflict, "the program is the other instance's");
    }
    write_body(shared_program.body, program);
    shared_program.checksum = XXH3_64bits(&shared_program.body, sizeof(shared_program.body));
    const Ownership offered{.owner = owner, .epoch = static_cast<std::uint32_t>(word) + 1};
    shared(shared_program.word).store(pack(offered), std::memory_order_release);
    return offered;
}

Result<ProgramOffer> Region::read_program(std::size_t slot) const {
    if (slot >= programs_max) {
        return bad_program(slot, "does not exist");
    }
    // Copied before it is looked at: the other side may go on writing.
    auto copy = std::make_unique<layout::Program>(view(map_).program[slot]);
    const layout::ProgramBody& body = copy->body;
    if (copy->checksum != XXH3_64bits(&body, sizeof(body))) {
        return bad_program(slot, "is not whole");
    }
    const auto end = std::ranges::find(body.name, '\0');
    if (body.memory_extents > layout::program_extents ||
        body.state_extents > layout::program_extents - body.memory_extents ||
        body.memory_extents == 0) {
        return bad_program(slot, "has an impossible number of extents");
    }
    if (end == body.name.end() || end == body.name.begin() || body.tag == 0 ||
        (body.kind != std::to_underlying(ProgramKind::machine) &&
         body.kind != std::to_underlying(ProgramKind::processes))) {
        return bad_program(slot, "has no name, no tag or an unknown kind");
    }
    const std::span extents(body.extents);
    ProgramOffer program{
        .name = std::string(body.name.begin(), end),
        .kind = static_cast<ProgramKind>(body.kind),
        .tag = body.tag,
        .memory = GODWIT_TRY(take_extents(extents.first(body.memory_extents))),
        .state = GODWIT_TRY(take_extents(extents.subspan(body.memory_extents, body.state_extents))),
        .state_bytes = body.state_bytes};
    return program;
}

MaybeOwnership Region::program_owner(std::size_t slot) const {
    if (slot >= programs_max) {
        return {};
    }
    return unpack(shared(view(map_).program[slot].word).load(std::memory_order_acquire));
}

Result<Ownership>
Region::claim_program(std::size_t slot, const Ownership& expected, InstanceId next) {
    if (slot >= programs_max) {
        return bad_program(slot, "does not exist");
    }
    return swap_word(view(map_).program[slot].word, expected, next, "the program");
}

Status Region::add_cpu(std::uint32_t cpu, InstanceId owner) {
    if (cpu >= cpus_max || owner.value == 0) {
        return Error(ErrorCode::invalid_argument,
                     "CPU " + std::to_string(cpu) + " cannot be shared: 1024 are possible");
    }
    shared(view(map_).cpu_words[cpu])
        .store(pack({.owner = owner, .epoch = 1}), std::memory_order_release);
    return ok();
}

MaybeOwnership Region::cpu_owner(std::uint32_t cpu) const {
    if (cpu >= cpus_max) {
        return {};
    }
    return unpack(shared(view(map_).cpu_words[cpu]).load(std::memory_order_acquire));
}

Result<Ownership> Region::claim_cpu(std::uint32_t cpu, const Ownership& expected, InstanceId next) {
    if (cpu >= cpus_max) {
        return Error(ErrorCode::corrupt, "there is no CPU " + std::to_string(cpu));
    }
    return swap_word(view(map_).cpu_words[cpu], expected, next, "the CPU");
}

std::vector<std::uint32_t> Region::cpus_of(InstanceId owner) const {
    std::vector<std::uint32_t> cpus;
    for (std::uint32_t cpu = 0; cpu < cpus_max; ++cpu) {
        if (const auto now = cpu_owner(cpu); now.has_value() && now->owner == owner) {
            cpus.push_back(cpu);
        }
    }
    return cpus;
}

Status Region::write_estate(const Estate& estate) {
    if (estate.extents.size() > estate_extents_max || estate.generation == 0) {
        return Error(ErrorCode::invalid_argument,
                     "an estate has a generation and at most 64 extents, not " +
                         std::to_string(estate.extents.size()));
    }
    layout::Estate& written = view(map_).estate;
    if (shared(written.sealed).load(std::memory_order_acquire) != 0) {
        return Error(ErrorCode::conflict, "the estate is sealed");
    }
    std::memset(&written.body, 0, sizeof(written.body));
    written.body.generation = estate.generation;
    written.body.written_ns = estate.written_at.time_since_epoch().count();
    written.body.deadline_ns = estate.deadline.time_since_epoch().count();
    written.body.last_cpu = estate.last_cpu;
    written.body.extents_count = static_cast<std::uint32_t>(estate.extents.size());
    std::ranges::transform(estate.extents, written.body.extents.begin(), to_layout);
    written.checksum = XXH3_64bits(&written.body, sizeof(written.body));
    return ok();
}

void Region::seal_estate(std::uint64_t generation) noexcept {
    shared(view(map_).estate.sealed).store(generation, std::memory_order_release);
}

void Region::unseal_estate() noexcept {
    shared(view(map_).estate.sealed).store(0, std::memory_order_release);
}

Result<std::optional<Estate>> Region::read_estate() const {
    const std::uint64_t sealed = shared(view(map_).estate.sealed).load(std::memory_order_acquire);
    if (sealed == 0) {
        return std::optional<Estate>();
    }
    const layout::Estate copy = view(map_).estate;
    const layout::EstateBody& body = copy.body;
    if (copy.checksum != XXH3_64bits(&body, sizeof(body)) || body.generation != sealed ||
        body.extents_count > layout::estate_extents || body.last_cpu >= layout::cpus) {
        return Error(ErrorCode::corrupt, "the estate that was sealed is not whole");
    }
    return std::optional(Estate{
        .generation = body.generation,
        .written_at = sys::Moment(sys::Nanoseconds(body.written_ns)),
        .deadline = sys::Moment(sys::Nanoseconds(body.deadline_ns)),
        .last_cpu = body.last_cpu,
        .extents = GODWIT_TRY(take_extents(std::span(body.extents).first(body.extents_count)))});
}

} // namespace godwit::exchange::partition
