// The ownership table of a memory pool and lists of its extents, as a hostile instance could write
// them into the shared memory: any bytes after a good header. What is accepted must be a partition.

#include "input.h"
#include "memory/pool/extent_check.h"
#include "memory/pool/extent_table.h"
#include "memory/pool/table_layout.h"

#include <cstdlib>
#include <vector>

namespace {

using namespace godwit;
using namespace godwit::memory;

constexpr PoolOwner first_owner{1};
constexpr std::uint64_t frames = 16;

Extent take_extent(fuzz::Input& input) {
    return {.run = {.first = input.take<std::uint8_t>(), .frames = input.take<std::uint8_t>()},
            .owner = {input.take<std::uint8_t>()},
            .epoch = input.take<std::uint16_t>(),
            .label = {.purpose = static_cast<Purpose>(input.take<std::uint8_t>() % 8U),
                      .tag = input.take<std::uint8_t>(),
                      .position = input.take<std::uint8_t>()}};
}

void check_accepted(const std::vector<Extent>& table, fuzz::Input& input) {
    if (!check_partition(table, frames).has_value()) {
        std::abort();
    }
    const ListRules rules{.owner = first_owner, .purpose = Purpose::program, .tag = 7};
    std::vector<Extent> list;
    for (std::uint8_t i = input.take<std::uint8_t>() % 8U; i > 0; --i) {
        list.push_back(take_extent(input));
    }
    if (!check_list(list, table, rules).has_value()) {
        return;
    }
    // An accepted list names frames of its giver, each once.
    std::vector<bool> named(frames);
    for (const Extent& extent : list) {
        for (std::uint64_t f = 0; f < extent.run.frames; ++f) {
            if (extent.run.first + f >= frames || named[extent.run.first + f]) {
                std::abort();
            }
            named[extent.run.first + f] = true;
        }
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    auto table =
        GODWIT_MUST(ExtentTable::create({.frames = frames, .log_records = 8}, first_owner));
    // Now and then the header as well.
    const std::uint8_t mode = input.take<std::uint8_t>();
    const std::uint64_t offset =
        mode % 4U == 0 ? 0 : (mode % 4U == 1 ? table::slots_offset : table::entries_offset);
    const auto bytes = input.take_bytes(input.take<std::uint16_t>() % 1024U);
    discard(sys::pwrite_all(table.fd(), std::as_bytes(bytes), offset), "only crashes matter");
    auto adopted = ExtentTable::adopt(GODWIT_MUST(table.fd().duplicate()));
    if (!adopted.has_value()) {
        return 0;
    }
    const auto snapshot = adopted->snapshot();
    if (snapshot.has_value()) {
        check_accepted(*snapshot, input);
        discard(adopted->prove(*snapshot), "only crashes matter");
        discard(adopted->claim(snapshot->front(), first_owner), "only crashes matter");
    }
    const Extent wild = take_extent(input);
    discard(adopted->check_current(wild), "only crashes matter");
    discard(adopted->claim(wild, first_owner), "only crashes matter");
    discard(adopted->split(wild, input.take<std::uint8_t>(), {}), "only crashes matter");
    discard(adopted->merge(wild, take_extent(input)), "only crashes matter");
    return 0;
}
