#include "virtio/net/tx.h"

#include "sys/tap.h"
#include "virtio/net/net_spec.h"

namespace godwit::virtio {

namespace {

constexpr int packets_per_turn = 64;

bool sendable(const Chain& chain) noexcept {
    return chain.readable_bytes >= net_header_bytes + ethernet_header_bytes &&
           chain.readable_bytes < net_packet_bytes_max &&
           chain.readable.size() <= sys::packet_segments_max;
}

} // namespace

Result<TxQueue::Stop> TxQueue::transmit(const sys::Fd& port, NetDirectionTally& tally) {
    for (int turn = 0; turn < packets_per_turn; ++turn) {
        if (!GODWIT_TRY(queue_.pop(chain_))) {
            return Stop::no_packets;
        }
        if (!sendable(chain_)) {
            tally.dropped();
            queue_.push(chain_, 0);
            continue;
        }
        switch (sys::write_packet(port, chain_.readable).outcome) {
        case sys::PacketOutcome::done:
            tally.moved(chain_.readable_bytes - net_header_bytes);
            break;
        case sys::PacketOutcome::would_block:
            queue_.undo_pop();
            return Stop::no_room;
        case sys::PacketOutcome::refused:
        case sys::PacketOutcome::gone:
            tally.dropped();
            break;
        }
        queue_.push(chain_, 0);
    }
    return Stop::turn_over;
}

} // namespace godwit::virtio
