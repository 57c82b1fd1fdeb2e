#include "block/plan/move_queue.h"

#include "base/result.h"

#include <algorithm>

namespace godwit::block {

MoveQueue::MoveQueue(const MoveOrder& order, const std::vector<MovePlaces>& places)
    : room_(order.at_once), places_(places), waiting_(order.disks) {
    for (const std::size_t disk : waiting_) {
        GODWIT_ASSERT(disk < places_.size() && places_[disk].source < room_.size() &&
                      places_[disk].destination < room_.size()); // The caller's promise.
    }
}

bool MoveQueue::has_room(const MovePlaces& move) const {
    return room_[move.source] > 0 && room_[move.destination] > 0;
}

std::optional<std::size_t> MoveQueue::next() {
    const auto found = std::ranges::find_if(
        waiting_, [this](std::size_t disk) { return has_room(places_[disk]); });
    if (found == waiting_.end()) {
        return std::nullopt;
    }
    const std::size_t disk = *found;
    waiting_.erase(found);
    const MovePlaces& move = places_[disk];
    --room_[move.source];
    if (move.destination != move.source) {
        --room_[move.destination];
    }
    ++under_way_;
    return disk;
}

void MoveQueue::ended(std::size_t disk) {
    GODWIT_ASSERT(disk < places_.size() && under_way_ > 0); // Begun by next().
    const MovePlaces& move = places_[disk];
    ++room_[move.source];
    if (move.destination != move.source) {
        ++room_[move.destination];
    }
    --under_way_;
}

} // namespace godwit::block
