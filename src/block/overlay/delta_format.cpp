#include "block/overlay/delta_format.h"

#include "base/units.h"
#include "block/aligned_buffer.h"
#include "sys/entropy.h"

#include <sys/ioctl.h>

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace godwit::block {

namespace {

constexpr std::array magic{'G', 'O', 'D', 'W', 'D', 'L', 'T', '1'};
constexpr std::array journal_magic{'D', 'L', 'T', 'J'};
constexpr std::uint32_t version = 2;
constexpr std::size_t header_checksum_place = 80;
constexpr std::size_t journal_checksum_place = 40;
constexpr std::size_t header_end = 100; ///< Zeros from there on.
constexpr std::size_t journal_id_place = 48;
constexpr std::size_t journal_reserved_place = 56;
constexpr std::size_t entries_place = 64;
/// Clusters that a journal may name for each slot, counted as often as they are named: a checkpoint
/// names each once, and then each is filled and folded once before the next.
constexpr std::uint64_t named_per_slot_max = 4;
constexpr std::size_t entry_bytes = 16;
constexpr std::uint64_t slots_min = 16;
static_assert(entries_place + delta_entries_max * entry_bytes == delta_block_bytes);
static_assert(std::endian::native == std::endian::little);

template <typename T>
void put(std::span<std::byte> block, std::size_t place, T value) noexcept {
    std::memcpy(block.data() + place, &value, sizeof(value));
}
template <typename T>
T get(std::span<const std::byte> block, std::size_t place) noexcept {
    T value{};
    std::memcpy(&value, block.data() + place, sizeof(value));
    return value;
}

std::uint64_t checksum_of(std::span<const std::byte> block, std::size_t place) noexcept {
    DeltaBlock copy{};
    std::ranges::copy(block.first(delta_block_bytes), copy.begin());
    put(std::span(copy), place, std::uint64_t{0});
    return XXH3_64bits(copy.data(), copy.size());
}

bool is_zero(std::span<const std::byte> bytes) noexcept {
    return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

Error corrupt(const std::string& what) {
    return {ErrorCode::corrupt, "disk delta: " + what};
}

std::uint32_t journal_blocks_for(std::uint64_t slots) noexcept {
    return static_cast<std::uint32_t>(2 * (slots / delta_entries_max + 1) + 16);
}

std::uint64_t data_offset_for(std::uint32_t journal_blocks, std::uint32_t cluster_bytes) noexcept {
    return round_up(delta_journal_offset + 2 * std::uint64_t{journal_blocks} * delta_block_bytes,
                    cluster_bytes);
}

} // namespace

DeltaBlock encode(const DeltaHeader& header) {
    DeltaBlock block{};
    const std::span<std::byte> out(block);
    std::memcpy(block.data(), magic.data(), magic.size());
    put(out, 8, version);
    put(out, 12, header.cluster_bytes);
    put(out, 16, header.generation);
    put(out, 24, header.disk_bytes);
    put(out, 32, header.slots);
    put(out, 40, header.data_offset);
    put(out, 48, header.journal_blocks);
    put(out, 52, header.active_half);
    put(out, 56, header.epoch);
    std::memcpy(block.data() + 64, header.snapshot_id.data(), header.snapshot_id.size());
    put(out, 88, header.journal_id);
    put(out, 96, header.checkpoint_blocks);
    put(out, header_checksum_place, checksum_of(block, header_checksum_place));
    return block;
}

namespace {

Status validate(const DeltaHeader& header) {
    if (!std::has_single_bit(header.cluster_bytes) ||
        header.cluster_bytes < delta_cluster_bytes_min ||
        header.cluster_bytes > delta_cluster_bytes_max) {
        return corrupt("clusters of " + std::to_string(header.cluster_bytes) + " bytes");
    }
    if (header.disk_bytes == 0 || header.disk_bytes % sector_size != 0 ||
        header.clusters() > delta_clusters_max) {
        return corrupt("a disk of " + std::to_string(header.disk_bytes) + " bytes");
    }
    if (header.slots == 0 || header.slots > delta_slots_max || header.active_half > 1 ||
        header.journal_blocks < journal_blocks_for(header.slots) ||
        header.journal_blocks > 2 * journal_blocks_for(header.slots) ||
        header.checkpoint_blocks > header.journal_blocks) {
        return corrupt("its journal does not fit its slots");
    }
    if (header.data_offset % delta_block_bytes != 0 ||
        header.data_offset <
            delta_journal_offset + 2 * std::uint64_t{header.journal_blocks} * delta_block_bytes ||
        header.data_offset > std::uint64_t{1} << 50U) {
        return corrupt("its data lies over its journal");
    }
    return ok();
}

} // namespace

Result<DeltaHeader> decode_delta_header(std::span<const std::byte> block) {
    if (block.size() < delta_block_bytes ||
        std::memcmp(block.data(), magic.data(), magic.size()) != 0) {
        return corrupt("no header");
    }
    if (get<std::uint64_t>(block, header_checksum_place) !=
        checksum_of(block, header_checksum_place)) {
        return corrupt("its header's checksum is wrong");
    }
    if (get<std::uint32_t>(block, 8) != version) {
        return Error(ErrorCode::unsupported,
                     "disk delta: version " + std::to_string(get<std::uint32_t>(block, 8)));
    }
    DeltaHeader header{.cluster_bytes = get<std::uint32_t>(block, 12),
                       .generation = get<std::uint64_t>(block, 16),
                       .disk_bytes = get<std::uint64_t>(block, 24),
                       .slots = get<std::uint64_t>(block, 32),
                       .data_offset = get<std::uint64_t>(block, 40),
                       .journal_blocks = get<std::uint32_t>(block, 48),
                       .active_half = get<std::uint32_t>(block, 52),
                       .epoch = get<std::uint64_t>(block, 56),
                       .journal_id = get<std::uint64_t>(block, 88),
                       .checkpoint_blocks = get<std::uint32_t>(block, 96)};
    std::memcpy(header.snapshot_id.data(), block.data() + 64, header.snapshot_id.size());
    if (!is_zero(block.first(delta_block_bytes).subspan(header_end))) {
        return corrupt("its header says what this version does not know");
    }
    GODWIT_TRY(validate(header));
    return header;
}

DeltaBlock
encode(const DeltaHeader& header, std::uint64_t index, std::span<const DeltaEntry> entries) {
    GODWIT_ASSERT(entries.size() <= delta_entries_max);
    DeltaBlock block{};
    const std::span<std::byte> out(block);
    std::memcpy(block.data(), journal_magic.data(), journal_magic.size());
    put(out, 4, static_cast<std::uint32_t>(entries.size()));
    put(out, 8, header.generation);
    put(out, 16, index);
    std::memcpy(block.data() + 24, header.snapshot_id.data(), header.snapshot_id.size());
    put(out, journal_id_place, header.journal_id);
    std::size_t place = entries_place;
    for (const DeltaEntry& entry : entries) {
        put(out, place, entry.cluster);
        put(out, place + 8, entry.slot);
        put(out, place + 12, entry.count);
        place += entry_bytes;
    }
    put(out, journal_checksum_place, checksum_of(block, journal_checksum_place));
    return block;
}

bool decode_delta_journal(std::span<const std::byte> block,
                          const DeltaHeader& header,
                          std::uint64_t index,
                          std::vector<DeltaEntry>& entries) {
    const auto count = get<std::uint32_t>(block, 4);
    if (std::memcmp(block.data(), journal_magic.data(), journal_magic.size()) != 0 ||
        count > delta_entries_max || get<std::uint64_t>(block, 8) != header.generation ||
        get<std::uint64_t>(block, 16) != index ||
        get<std::uint64_t>(block, journal_id_place) != header.journal_id ||
        !is_zero(block.subspan(journal_reserved_place, entries_place - journal_reserved_place)) ||
        !is_zero(block.first(delta_block_bytes).subspan(entries_place + count * entry_bytes)) ||
        std::memcmp(block.data() + 24, header.snapshot_id.data(), header.snapshot_id.size()) != 0 ||
        get<std::uint64_t>(block, journal_checksum_place) !=
            checksum_of(block, journal_checksum_place)) {
        return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::size_t place = entries_place + i * entry_bytes;
        entries.push_back({.cluster = get<std::uint64_t>(block, place),
                           .slot = get<std::uint32_t>(block, place + 8),
                           .count = get<std::uint32_t>(block, place + 12)});
    }
    return true;
}

// --- storage ---

Result<std::uint64_t> DeltaFile::bytes() {
    const off_t end = ::lseek(file_.raw(), 0, SEEK_END); // Of block devices too.
    if (end < 0) {
        return Error::from_errno(errno, "ask for the size of a disk delta");
    }
    return static_cast<std::uint64_t>(end);
}

Status DeltaFile::read(std::uint64_t offset, std::span<std::byte> out) {
    const AlignedBuffer buffer(out.size()); // O_DIRECT wants its own alignment.
    GODWIT_TRY(sys::pread_exact(file_, buffer.bytes(), offset));
    std::ranges::copy(buffer.bytes(), out.begin());
    return ok();
}

Status DeltaFile::write(std::uint64_t offset, std::span<const std::byte> data) {
    const AlignedBuffer buffer(data.size());
    std::ranges::copy(data, buffer.bytes().begin());
    return sys::pwrite_all(file_, buffer.bytes(), offset);
}

Status DeltaFile::flush() {
    return ::fdatasync(file_.raw()) == 0 ? ok() : Error::from_errno(errno, "flush a disk delta");
}

// --- creating, opening, checking ---

namespace {

/// A cluster takes its own bytes and, with slack, two journal blocks in 252 twice.
std::uint64_t bytes_per_slot(std::uint32_t cluster_bytes) noexcept {
    return cluster_bytes + 4 * delta_block_bytes / delta_entries_max + 1;
}

std::uint64_t fixed_bytes(std::uint32_t cluster_bytes) noexcept {
    return delta_journal_offset + 40 * delta_block_bytes + cluster_bytes;
}

Result<std::uint64_t> new_journal_id() {
    std::array<std::byte, sizeof(std::uint64_t)> bytes{};
    GODWIT_TRY(sys::system_random().random_bytes(bytes));
    return std::bit_cast<std::uint64_t>(bytes);
}

} // namespace

std::string to_text(const SnapshotId& id) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const std::byte byte : id) {
        text += digits[std::to_integer<std::size_t>(byte >> 4U)];
        text += digits[std::to_integer<std::size_t>(byte & std::byte{15})];
    }
    return text;
}

std::uint64_t delta_bytes_for(std::uint64_t disk_bytes, std::uint32_t cluster_bytes) {
    const std::uint64_t slots = std::min(
        delta_slots_max, std::max(slots_min, (disk_bytes + cluster_bytes - 1) / cluster_bytes));
    return round_up(fixed_bytes(cluster_bytes) + slots * bytes_per_slot(cluster_bytes),
                    delta_block_bytes);
}

Status create_delta(DeltaStorage& storage, const DeltaOptions& options) {
    DeltaHeader header{.cluster_bytes = options.cluster_bytes,
                       .disk_bytes = options.disk_bytes,
                       .epoch = options.epoch,
                       .snapshot_id = options.snapshot_id,
                       .journal_id = GODWIT_TRY(new_journal_id())};
    if (header.snapshot_id == SnapshotId{}) {
        GODWIT_TRY(sys::system_random().random_bytes(header.snapshot_id));
    }
    const std::uint64_t room = GODWIT_TRY(storage.bytes());
    const std::uint64_t fixed = fixed_bytes(options.cluster_bytes);
    header.slots = room <= fixed ? 0
                                 : std::min(delta_slots_max,
                                            (room - fixed) / bytes_per_slot(options.cluster_bytes));
    if (header.slots < slots_min) {
        return Error(ErrorCode::resource_exhausted,
                     "a disk delta of " + std::to_string(room) + " bytes has no room for " +
                         std::to_string(slots_min) + " clusters");
    }
    header.journal_blocks = journal_blocks_for(header.slots);
    header.data_offset = data_offset_for(header.journal_blocks, header.cluster_bytes);
    GODWIT_ASSERT(header.slot_place(header.slots) <= room);
    GODWIT_TRY(validate(header));
    // A header that lay here before must not count: the new one's place and the other's.
    GODWIT_TRY(storage.write(0, DeltaBlock{}));
    GODWIT_TRY(storage.write(delta_block_bytes, encode(header)));
    return storage.flush();
}

Result<DeltaHeader> read_delta_header(DeltaStorage& storage) {
    DeltaBlock block{};
    Result<DeltaHeader> best = corrupt("no header");
    for (const std::uint64_t place : {std::uint64_t{0}, delta_block_bytes}) {
        GODWIT_TRY(storage.read(place, block));
        Result<DeltaHeader> header = decode_delta_header(block);
        const bool newer =
            header.has_value() && (!best.has_value() || header->generation > best->generation);
        // The reason of a header that is there says more than that of an empty place.
        const bool explains = !header.has_value() && !best.has_value() &&
                              best.error().message() == corrupt("no header").message();
        if (newer || explains) {
            best = std::move(header);
        }
    }
    if (best.has_value() && best->slot_place(best->slots) > GODWIT_TRY(storage.bytes())) {
        return corrupt("it has been cut short");
    }
    return best;
}

namespace {

Status apply(const DeltaEntry& entry, DeltaState& state) {
    const std::uint64_t clusters = state.map.clusters();
    const bool maps = entry.slot != DeltaMap::none;
    if (entry.count == 0 || entry.cluster >= clusters || entry.count > clusters - entry.cluster ||
        (maps &&
         (entry.slot >= state.header.slots || entry.count > state.header.slots - entry.slot))) {
        return corrupt("an entry for cluster " + std::to_string(entry.cluster) +
                       " leads beyond the disk or the delta");
    }
    for (std::uint32_t i = 0; i < entry.count; ++i) {
        const std::uint32_t before = state.map.slot(entry.cluster + i);
        if (before != DeltaMap::none) {
            state.used.remove({.first = before, .end = std::uint64_t{before} + 1});
            state.map.clear(entry.cluster + i);
        }
        if (!maps) {
            continue;
        }
        const std::uint32_t slot = entry.slot + i;
        if (state.used.add({.first = slot, .end = std::uint64_t{slot} + 1}) == 0) {
            return corrupt("two clusters lie in slot " + std::to_string(slot));
        }
        state.map.set(entry.cluster + i, slot, DeltaMap::Durable::yes);
    }
    return ok();
}

Result<DeltaState> read_delta(DeltaStorage& storage) {
    DeltaHeader header = GODWIT_TRY(read_delta_header(storage));
    DeltaState state{
        .header = header, .map = DeltaMap(header.clusters()), .used = BlockSet(header.slots)};
    DeltaBlock block{};
    std::vector<DeltaEntry> entries;
    std::uint64_t named = 0;
    while (state.journal_index < header.journal_blocks) {
        GODWIT_TRY(storage.read(header.journal_place(state.journal_index), block));
        entries.clear();
        if (!decode_delta_journal(block, header, state.journal_index, entries)) {
            if (state.journal_index < header.checkpoint_blocks) {
                return corrupt("block " + std::to_string(state.journal_index) +
                               " of its checkpoint is damaged");
            }
            break;
        }
        for (const DeltaEntry& entry : entries) {
            named += entry.count;
            if (named > named_per_slot_max * header.slots) {
                return corrupt("its journal names more clusters than it can have held");
            }
            GODWIT_TRY(apply(entry, state));
        }
        ++state.journal_index;
    }
    return state;
}

} // namespace

std::vector<DeltaBlock> checkpoint_blocks(const DeltaHeader& header, const DeltaMap& map) {
    std::vector<DeltaBlock> blocks;
    std::vector<DeltaEntry> entries;
    const auto finish_block = [&] {
        blocks.push_back(encode(header, blocks.size(), entries));
        entries.clear();
    };
    for (std::uint64_t cluster = map.next(0); cluster < map.clusters();
         cluster = map.next(cluster + 1)) {
        const std::uint32_t slot = map.slot(cluster);
        if (!map.is_durable(cluster)) {
            continue;
        }
        if (!entries.empty() && entries.back().cluster + entries.back().count == cluster &&
            entries.back().slot + entries.back().count == slot) {
            ++entries.back().count;
            continue;
        }
        if (entries.size() == delta_entries_max) {
            finish_block();
        }
        entries.push_back({.cluster = cluster, .slot = slot, .count = 1});
    }
    if (!entries.empty()) {
        finish_block();
    }
    return blocks;
}

Result<DeltaState> open_delta(DeltaStorage& storage, std::uint64_t epoch) {
    DeltaState state = GODWIT_TRY(read_delta(storage));
    if (state.header.epoch > epoch) {
        return Error(ErrorCode::conflict,
                     "the disk delta belongs to an owner of epoch " +
                         std::to_string(state.header.epoch) + ", not " + std::to_string(epoch));
    }
    // An attempt that came to nothing may have left blocks of the same generation there.
    state.header.journal_id = GODWIT_TRY(new_journal_id());
    ++state.header.generation;
    state.header.active_half = 1 - state.header.active_half;
    state.header.epoch = epoch;
    const std::vector<DeltaBlock> blocks = checkpoint_blocks(state.header, state.map);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        GODWIT_TRY(storage.write(state.header.journal_place(i), blocks[i]));
    }
    state.journal_index = blocks.size();
    state.header.checkpoint_blocks = static_cast<std::uint32_t>(blocks.size());
    GODWIT_TRY(storage.flush());
    GODWIT_TRY(
        storage.write(state.header.generation % 2 * delta_block_bytes, encode(state.header)));
    GODWIT_TRY(storage.flush());
    return state;
}

Result<DeltaCheck> check_delta(DeltaStorage& storage) {
    const DeltaState state = GODWIT_TRY(read_delta(storage));
    return DeltaCheck{.header = state.header,
                      .journal_blocks_used = state.journal_index,
                      .clusters_mapped = state.map.count()};
}

} // namespace godwit::block
