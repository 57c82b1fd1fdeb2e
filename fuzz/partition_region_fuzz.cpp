// The region two instances share, as a hostile one could write it at any place: everything the
// other side reads is refused or whole, and no list of extents that is accepted leaves its table.

#include "exchange/partition/cpu_set.h"
#include "exchange/partition/estate.h"
#include "exchange/partition/region.h"
#include "exchange/partition/region_layout.h"
#include "input.h"
#include "memory/pool/extent_check.h"

#include <xxhash.h>

#include <array>
#include <cstdlib>

namespace {

using namespace godwit;
using namespace godwit::exchange::partition;

constexpr InstanceId old_one{1};
constexpr InstanceId new_one{2};
constexpr std::array<std::uint64_t, 7> places{
    0,
    offsetof(layout::Region, sides),
    offsetof(layout::Region, cpu_words),
    offsetof(layout::Region, rings),
    offsetof(layout::Region, estate),
    offsetof(layout::Region, program),
    offsetof(layout::Region, program) + offsetof(layout::Program, body),
};

memory::Extent extent(std::uint64_t first, std::uint64_t position) {
    return {.run = {.first = first, .frames = 4},
            .owner = {old_one.value},
            .epoch = 2,
            .label = {.purpose = memory::Purpose::program, .tag = 7, .position = position}};
}

/// A liar's checksums are right.
void reseal(const Region& region) {
    layout::Region* view = nullptr;
    auto map = GODWIT_MUST(sys::MappedRegion::create(
        region.fd(), 0, layout::region_bytes, sys::MapMode::shared)); // A region of our own.
    view = reinterpret_cast<layout::Region*>(map.data());
    view->estate.checksum = XXH3_64bits(&view->estate.body, sizeof(view->estate.body));
    view->program[0].checksum = XXH3_64bits(&view->program[0].body, sizeof(view->program[0].body));
    for (layout::Ring& ring : view->rings) {
        for (layout::Message& message : ring.slots) {
            message.checksum = XXH3_64bits(&message, offsetof(layout::Message, checksum));
        }
    }
}

void read_everything(Region& region) {
    const std::array table{extent(0, 0), extent(4, 4), extent(8, 8)};
    for (int i = 0; i < 300; ++i) {
        const auto message = region.receive(Side::new_instance);
        if (!message.has_value() || !message->has_value()) {
            break;
        }
    }
    discard(region.send(Side::new_instance, {}), "only crashes matter");
    const auto program = region.read_program(0);
    if (program.has_value()) {
        if (program->name.empty() || program->memory.empty()) {
            std::abort();
        }
        const Status list = memory::check_list(
            program->memory,
            table,
            {.owner = {old_one.value}, .purpose = memory::Purpose::program, .tag = program->tag});
        for (const memory::Extent& taken : program->memory) {
            if (list.has_value() && (taken.run.first > 8 || taken.run.frames != 4)) {
                std::abort();
            }
        }
    }
    const auto owner = region.program_owner(0);
    if (owner.has_value()) {
        discard(region.claim_program(0, *owner, new_one), "only crashes matter");
    }
    const auto estate = region.read_estate();
    if (estate.has_value() && estate->has_value()) {
        const NewStep step = next({}, {.now = sys::Moment(), .estate = *estate}, {});
        if (step.action == NewAction::claim) {
            std::abort(); // Nobody has proven an end.
        }
    }
    discard(region.offer(0, old_one, {.name = "x", .tag = 1, .memory = {extent(0, 0)}}),
            "only crashes matter");
    for (const std::uint32_t cpu : region.cpus_of(old_one)) {
        discard(region.claim_cpu(cpu, *region.cpu_owner(cpu), new_one), "only crashes matter");
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    Region region = GODWIT_MUST(Region::create({.old_instance = old_one, .new_instance = new_one}));
    GODWIT_MUST(region.offer(
        0,
        old_one,
        {.name = "kv", .tag = 7, .memory = {extent(0, 0), extent(4, 4)}})); // Fits a new region.
    discard(region.send(Side::old_instance, {}), "an empty ring takes one");
    const std::uint8_t flags = input.take<std::uint8_t>();
    for (int i = 0; i < 16 && !input.empty(); ++i) {
        const std::uint64_t place = places[input.take<std::uint8_t>() % places.size()];
        const std::uint64_t offset = place + input.take<std::uint16_t>() % 4096U;
        const auto bytes = input.take_bytes(input.take<std::uint8_t>());
        discard(sys::pwrite_all(region.fd(), std::as_bytes(bytes), offset), "only crashes matter");
    }
    if ((flags & 1U) != 0) {
        reseal(region);
    }
    auto adopted = Region::adopt(GODWIT_MUST(region.fd().duplicate()));
    if (adopted.has_value()) {
        read_everything(*adopted);
    }
    discard(parse_cpu_set({reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 64)}),
            "only crashes matter");
    return 0;
}
