// The delta of a frozen disk as somebody left it on storage: opening it is refused or gives a map
// within the disk and the slots, each slot once; what was opened once opens again with the same
// map.
#include "block/overlay/delta_format.h"
#include "input.h"

#include <algorithm>
#include <map>

namespace {

using namespace godwit;
using namespace godwit::block;

constexpr std::size_t room = std::size_t{256} * 1024;

/// A sparse file.
class Memory final : public DeltaStorage {
  public:
    explicit Memory(std::span<const std::uint8_t> input)
        : bytes_(std::max(room, input.size() + delta_block_bytes)) {
        for (std::size_t at = 0; at < input.size(); at += delta_block_bytes) {
            const auto part = input.subspan(at, std::min(delta_block_bytes, input.size() - at));
            std::ranges::transform(
                part, blocks_[at].begin(), [](std::uint8_t b) { return std::byte{b}; });
        }
    }
    void grow(std::uint64_t bytes) { bytes_ = bytes; }
    Result<std::uint64_t> bytes() override { return bytes_; }
    Status read(std::uint64_t offset, std::span<std::byte> out) override {
        GODWIT_TRY(check(offset, out.size()));
        const auto block = blocks_.find(offset);
        std::ranges::fill(out, std::byte{0});
        if (block != blocks_.end()) {
            std::ranges::copy(block->second, out.begin());
        }
        return ok();
    }
    Status write(std::uint64_t offset, std::span<const std::byte> data) override {
        GODWIT_TRY(check(offset, data.size()));
        std::ranges::copy(data, blocks_[offset].begin());
        return ok();
    }
    Status flush() override { return ok(); }

  private:
    /// The format reads and writes one block at a time.
    Status check(std::uint64_t offset, std::size_t length) const {
        GODWIT_ASSERT(offset % delta_block_bytes == 0 && length == delta_block_bytes);
        return offset < bytes_ && length <= bytes_ - offset
                   ? ok()
                   : Status(Error(ErrorCode::io, "beyond the end"));
    }
    std::uint64_t bytes_;
    std::map<std::uint64_t, DeltaBlock> blocks_;
};

/// A delta whose checksums are right: the bytes choose its numbers and entries.
void lay_out(Memory& storage, std::span<const std::uint8_t> input) {
    fuzz::Input bytes(input);
    DeltaHeader header{.cluster_bytes = std::uint32_t{4096} << (bytes.take<std::uint8_t>() % 3),
                       .generation = bytes.take<std::uint8_t>(),
                       .disk_bytes = std::uint64_t{bytes.take<std::uint8_t>()} * 65'536,
                       .slots = bytes.take<std::uint8_t>() % 48U,
                       .data_offset = std::uint64_t{bytes.take<std::uint8_t>()} * delta_block_bytes,
                       .journal_blocks = 16U + bytes.take<std::uint8_t>() % 8U,
                       .active_half = bytes.take<std::uint8_t>() % 3U};
    const std::size_t blocks = bytes.take<std::uint8_t>() % 4;
    header.checkpoint_blocks = bytes.take<std::uint8_t>() % 3U;
    header.journal_id = bytes.take<std::uint8_t>();
    const std::uint32_t shift = bytes.take<std::uint8_t>() % 27U;
    if (shift > 0) { // A large one, of which little is there.
        header.disk_bytes <<= shift;
        header.slots <<= shift;
        header.journal_blocks += 2 * static_cast<std::uint32_t>(header.slots / delta_entries_max);
        header.data_offset += 3ULL * header.journal_blocks * delta_block_bytes;
        storage.grow(std::uint64_t{1} << 52U);
    }
    discard(storage.write(header.generation % 2 * delta_block_bytes, encode(header)), "fits");
    for (std::size_t index = 0; index < blocks; ++index) {
        std::vector<DeltaEntry> entries(bytes.take<std::uint8_t>() % 16);
        for (DeltaEntry& entry : entries) {
            const std::uint8_t slot = bytes.take<std::uint8_t>();
            entry = {.cluster = bytes.take<std::uint8_t>(),
                     .slot = slot == 0xff ? DeltaMap::none : slot,
                     .count = (bytes.take<std::uint8_t>() % 8U) << std::min(shift, 16U)};
        }
        discard(storage.write(header.journal_place(index), encode(header, index, entries)), "fits");
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Memory storage({data, size});
    if (size > 0 && data[0] % 2 == 1) {
        lay_out(storage, {data + 1, size - 1});
    }
    const auto checked = check_delta(storage);
    const auto opened = open_delta(storage, ~std::uint64_t{0});
    if (!opened.has_value()) {
        return 0;
    }
    GODWIT_ASSERT(checked.has_value() && checked->clusters_mapped == opened->map.count());
    GODWIT_ASSERT(opened->used.count() == opened->map.count());
    const auto again = open_delta(storage, ~std::uint64_t{0});
    GODWIT_ASSERT(again.has_value() && again->map.count() == opened->map.count());
    for (std::uint64_t cluster = opened->map.next(0); cluster < opened->map.clusters();
         cluster = opened->map.next(cluster + 1)) {
        GODWIT_ASSERT(again->map.slot(cluster) == opened->map.slot(cluster));
    }
    return 0;
}
