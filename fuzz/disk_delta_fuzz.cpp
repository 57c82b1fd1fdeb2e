// The delta of a frozen disk as somebody left it on storage: opening it is refused or gives a map
// within the disk and the slots, each slot once; what was opened once opens again with the same
// map.
#include "block/overlay/delta_format.h"
#include "input.h"

#include <algorithm>

namespace {

using namespace godwit;
using namespace godwit::block;

constexpr std::size_t room = std::size_t{256} * 1024;

class Memory final : public DeltaStorage {
  public:
    explicit Memory(std::span<const std::uint8_t> input)
        : bytes_(std::max(room, input.size() + delta_block_bytes)) {
        std::ranges::transform(input, bytes_.begin(), [](std::uint8_t b) { return std::byte{b}; });
    }
    Result<std::uint64_t> bytes() override { return bytes_.size(); }
    Status read(std::uint64_t offset, std::span<std::byte> out) override {
        if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
            return Error(ErrorCode::io, "beyond the end");
        }
        std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
        return ok();
    }
    Status write(std::uint64_t offset, std::span<const std::byte> data) override {
        if (offset > bytes_.size() || data.size() > bytes_.size() - offset) {
            return Error(ErrorCode::io, "beyond the end");
        }
        std::ranges::copy(data, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
        return ok();
    }
    Status flush() override { return ok(); }

  private:
    std::vector<std::byte> bytes_;
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
    discard(storage.write(header.generation % 2 * delta_block_bytes, encode(header)), "fits");
    for (std::size_t index = 0; index < blocks; ++index) {
        std::vector<DeltaEntry> entries(bytes.take<std::uint8_t>() % 16);
        for (DeltaEntry& entry : entries) {
            const std::uint8_t slot = bytes.take<std::uint8_t>();
            entry = {.cluster = bytes.take<std::uint8_t>(),
                     .slot = slot == 0xff ? DeltaMap::none : slot,
                     .count = bytes.take<std::uint8_t>() % 8U};
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
