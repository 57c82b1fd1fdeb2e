#include "virtio/net/rx.h"

#include "sys/tap.h"
#include "virtio/net/net_spec.h"

#include <algorithm>
#include <cstring>

namespace godwit::virtio {

namespace {
constexpr int packets_per_turn = 32;
/// A frame of the usual MTU with headers; grows with what comes.
constexpr std::size_t wanted_bytes_first = 1600;
} // namespace

RxQueue::RxQueue(VirtQueue queue, RxBuffers buffers, const std::string& held)
    : queue_(std::move(queue)), buffers_(buffers), chains_(queue_.size()),
      wanted_bytes_(wanted_bytes_first),
      overflow_(std::make_unique_for_overwrite<std::byte[]>(net_packet_bytes_max)),
      held_bytes_(std::min(held.size(), net_packet_bytes_max)) {
    segments_.reserve(sys::packet_segments_max);
    completions_.reserve(chains_.size());
    std::memcpy(overflow_.get(), held.data(), held_bytes_);
}

Result<RxQueue::Stop> RxQueue::receive(const sys::Fd& port, NetDirectionTally& tally) {
    for (int turn = 0; turn < packets_per_turn; ++turn) {
        if (holding()) {
            if (GODWIT_TRY(deliver_held(tally)) == Stop::no_buffers) {
                return Stop::no_buffers;
            }
            continue;
        }
        GODWIT_TRY(take_buffers(wanted_bytes_));
        if (count_ == 0) {
            return Stop::no_buffers;
        }
        const std::size_t room = build_segments();
        const sys::PacketResult packet = sys::read_packet(port, segments_);
        switch (packet.outcome) {
        case sys::PacketOutcome::done:
            GODWIT_TRY(accept(packet.bytes, room, tally));
            break;
        case sys::PacketOutcome::refused: // Read and lost, as when a page of RAM cannot be had.
            tally.dropped();
            break;
        case sys::PacketOutcome::would_block:
            return Stop::no_packets;
        case sys::PacketOutcome::gone:
            return Stop::port_gone;
        }
    }
    return Stop::turn_over;
}

Result<RxQueue::Stop> RxQueue::deliver_held(NetDirectionTally& tally) {
    if (GODWIT_TRY(take_buffers(held_bytes_))) {
        copy_to_chains(0, {overflow_.get(), held_bytes_});
        deliver(std::exchange(held_bytes_, 0), tally);
        return Stop::turn_over;
    }
    // With every buffer of the ring at hand there is nothing left to wait for.
    if (buffers_ == RxBuffers::mergeable && count_ < chains_.size()) {
        return Stop::no_buffers;
    }
    if (count_ == 0) {
        return Stop::no_buffers;
    }
    drop_held(tally);
    return Stop::turn_over;
}

void RxQueue::drop_held(NetDirectionTally& tally) noexcept {
    if (holding()) {
        held_bytes_ = 0;
        tally.dropped();
    }
}

std::string RxQueue::held() const {
    std::string packet(held_bytes_, '\0');
    std::memcpy(packet.data(), overflow_.get(), held_bytes_);
    return packet;
}

/// Takes chains until they have room for `bytes`; false if the driver has not offered enough.
Result<bool> RxQueue::take_buffers(std::size_t bytes) {
    const std::size_t chains_wanted = buffers_ == RxBuffers::mergeable ? chains_.size() : 1;
    while (room_bytes_ < bytes && count_ < chains_wanted) {
        Chain& chain = taken(count_);
        if (!GODWIT_TRY(queue_.pop(chain))) {
            break;
        }
        ++count_;
        room_bytes_ += chain.writable_bytes;
        if (chain.writable_bytes < net_header_bytes) {
            return Error(ErrorCode::corrupt,
                         "network: a receive buffer of " + std::to_string(chain.writable_bytes) +
                             " bytes, less than a header");
        }
    }
    return room_bytes_ >= bytes;
}

/// Lists the taken buffers and behind them the overflow buffer, net_packet_bytes_max in all;
/// returns how much of it is guest memory.
std::size_t RxQueue::build_segments() {
    segments_.clear();
    std::size_t room = 0;
    for (std::size_t i = 0; i < count_; ++i) {
        for (const iovec& segment : taken(i).writable) {
            const std::size_t part = std::min(segment.iov_len, net_packet_bytes_max - room);
            if (part == 0 || segments_.size() == sys::packet_segments_max - 1) {
                break;
            }
            segments_.push_back({.iov_base = segment.iov_base, .iov_len = part});
            room += part;
        }
        if (room >= wanted_bytes_ || segments_.size() == sys::packet_segments_max - 1) {
            break;
        }
    }
    if (room < net_packet_bytes_max) {
        segments_.push_back({.iov_base = overflow_.get(), .iov_len = net_packet_bytes_max - room});
    }
    return room;
}

/// A packet of `bytes` was read, the first `room` of them into guest buffers.
Status RxQueue::accept(std::size_t bytes, std::size_t room, NetDirectionTally& tally) {
    if (bytes < net_header_bytes || bytes == net_packet_bytes_max) {
        tally.dropped();
        return ok();
    }
    wanted_bytes_ = std::max(wanted_bytes_, bytes);
    if (bytes <= room) {
        deliver(bytes, tally);
        return ok();
    }
    if (GODWIT_TRY(take_buffers(bytes))) {
        copy_to_chains(room, {overflow_.get(), bytes - room});
        deliver(bytes, tally);
    } else if (buffers_ == RxBuffers::mergeable) {
        hold(bytes, room);
    } else {
        tally.dropped();
    }
    return ok();
}

/// Brings the two parts of a packet together in the overflow buffer.
void RxQueue::hold(std::size_t bytes, std::size_t room) {
    std::memmove(overflow_.get() + room, overflow_.get(), bytes - room);
    copy_from_chains({overflow_.get(), room});
    held_bytes_ = bytes;
}

/// Gives the chains that the packet fills back to the driver, all at once (5.1.6.4.1).
void RxQueue::deliver(std::size_t bytes, NetDirectionTally& tally) {
    completions_.clear();
    std::size_t left = bytes;
    while (left > 0) {
        const Chain& chain = taken(completions_.size());
        const std::size_t part = std::min<std::size_t>(left, chain.writable_bytes);
        completions_.push_back({.chain = &chain, .written = part});
        room_bytes_ -= chain.writable_bytes;
        left -= part;
    }
    const auto buffers = static_cast<std::uint16_t>(completions_.size());
    taken(0).copy_in(net_num_buffers_offset, std::as_bytes(std::span(&buffers, 1)));
    queue_.push_together(completions_);
    first_ = (first_ + completions_.size()) & (chains_.size() - 1);
    count_ -= completions_.size();
    tally.moved(bytes - net_header_bytes);
}

void RxQueue::copy_to_chains(std::size_t offset, std::span<const std::byte> data) {
    for (std::size_t i = 0; i < count_ && !data.empty(); ++i) {
        const Chain& chain = taken(i);
        if (offset >= chain.writable_bytes) {
            offset -= chain.writable_bytes;
            continue;
        }
        data = data.subspan(chain.copy_in(offset, data));
        offset = 0;
    }
}

void RxQueue::copy_from_chains(std::span<std::byte> out) {
    for (std::size_t i = 0; i < count_; ++i) {
        for (const iovec& segment : taken(i).writable) {
            const std::size_t part = std::min(segment.iov_len, out.size());
            if (part == 0) {
                return;
            }
            std::memcpy(out.data(), segment.iov_base, part);
            out = out.subspan(part);
        }
    }
}

void RxQueue::give_back() noexcept {
    for (; count_ > 0; --count_) {
        queue_.undo_pop();
    }
    room_bytes_ = 0;
}

} // namespace godwit::virtio
