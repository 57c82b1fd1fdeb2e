#include "virtio/blk/blk_state.h"

#include "state/section_codec.h"
#include "state/virtio_blk.pb.h"

#include <limits>

namespace godwit::virtio {

namespace {

bool complete(const state::VirtioBlkState& saved) {
    return saved.has_capacity_bytes() && saved.has_logical_block_bytes() && saved.has_read_only() &&
           saved.has_queues() && saved.has_queue_size() && saved.has_can_discard() &&
           saved.has_can_write_zeroes() && saved.has_serial();
}

} // namespace

state::Section encode(const BlkState& disk, std::uint32_t instance) {
    state::VirtioBlkState saved;
    saved.set_capacity_bytes(disk.geometry.bytes);
    saved.set_logical_block_bytes(disk.geometry.logical_block_bytes);
    saved.set_read_only(disk.geometry.read_only);
    saved.set_queues(disk.options.queues);
    saved.set_queue_size(disk.options.queue_size);
    saved.set_can_discard(disk.geometry.can_discard);
    saved.set_can_write_zeroes(disk.geometry.can_write_zeroes);
    saved.set_serial(disk.options.serial);
    for (const GivenBack& each : disk.given_back) {
        state::VirtioBlkState::GivenBack& added = *saved.add_given_back();
        added.set_queue(each.queue);
        added.set_head(each.head);
    }
    state::Section section = state::encode_section(blk_section, instance, saved);
    section.version = disk.given_back.empty() ? 1 : blk_section.version;
    return section;
}

Result<BlkState> decode_blk(const state::Section& section) {
    const auto bad = [&](const char* what) { return state::bad_section(section, what); };
    const auto saved =
        GODWIT_TRY(state::decode_section<state::VirtioBlkState>(blk_section, section));
    if (!complete(saved)) {
        return bad("a field is missing");
    }
    constexpr std::uint32_t u16_max = std::numeric_limits<std::uint16_t>::max();
    if (saved.queues() > u16_max || saved.queue_size() > u16_max) {
        return bad("a field is out of range");
    }
    BlkState disk;
    disk.options = {.instance = section.id.instance,
                    .serial = saved.serial(),
                    .queues = static_cast<std::uint16_t>(saved.queues()),
                    .queue_size = static_cast<std::uint16_t>(saved.queue_size())};
    GODWIT_TRY(validate(disk.options).with_context("section " + section.id.to_string()));
    disk.geometry.bytes = saved.capacity_bytes();
    disk.geometry.logical_block_bytes = saved.logical_block_bytes();
    disk.geometry.read_only = saved.read_only();
    disk.geometry.can_discard = saved.can_discard();
    disk.geometry.can_write_zeroes = saved.can_write_zeroes();
    if (saved.given_back_size() > 0 && section.version < 2) {
        return bad("version 1 gives nothing back");
    }
    for (const auto& each : saved.given_back()) {
        if (!each.has_queue() || !each.has_head() || each.queue() >= saved.queues() ||
            each.head() >= saved.queue_size()) {
            return bad("a request that was given back does not exist");
        }
        disk.given_back.push_back({.queue = static_cast<std::uint16_t>(each.queue()),
                                   .head = static_cast<std::uint16_t>(each.head())});
    }
    // More than the queues hold.
    if (disk.given_back.size() > std::size_t{disk.options.queues} * disk.options.queue_size) {
        return bad("too many requests were given back");
    }
    return disk;
}

Status check_same_disk(const BlkState& saved, const BlkState& now) {
    const auto differs = [&](const char* what) {
        return Error(ErrorCode::conflict,
                     "disk \"" + saved.options.serial + "\" differs from the saved one in its " +
                         what);
    };
    if (saved.options.serial != now.options.serial) {
        return differs("serial number");
    }
    if (saved.options.queues != now.options.queues ||
        saved.options.queue_size != now.options.queue_size) {
        return differs("queues");
    }
    // Smaller ones do: the guest goes on asking for whole blocks of those it knows.
    if (now.geometry.logical_block_bytes == 0 ||
        saved.geometry.logical_block_bytes % now.geometry.logical_block_bytes != 0) {
        return differs("block size");
    }
    if (saved.geometry.read_only != now.geometry.read_only) {
        return differs("write protection");
    }
    return ok();
}

} // namespace godwit::virtio
