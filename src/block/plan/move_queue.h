#pragma once

/// Which move begins next: the first in order whose devices both have room. The same rule plans and
/// carries out. One thread.

#include <cstdint>
#include <optional>
#include <vector>

namespace godwit::block {

/// In which order disks are moved, and how many at a time.
struct MoveOrder {
    std::vector<std::size_t> disks;     ///< Each once.
    std::vector<std::uint32_t> at_once; ///< By device: moves from or to it; at least 1.
};

/// Where a disk lies and where it goes: numbers of devices.
struct MovePlaces {
    std::size_t source = 0;
    std::size_t destination = 0;
};

class MoveQueue {
  public:
    /// `order` names disks of `places`, and has a number for each device they name.
    MoveQueue(const MoveOrder& order, const std::vector<MovePlaces>& places);

    /// A disk whose move begins now; nothing if none may.
    [[nodiscard]] std::optional<std::size_t> next();
    /// The move of `disk`, which has begun, is over.
    void ended(std::size_t disk);
    /// None is begun any more.
    void drop_rest() noexcept { waiting_.clear(); }
    [[nodiscard]] std::size_t waiting() const noexcept { return waiting_.size(); }
    [[nodiscard]] bool idle() const noexcept { return waiting_.empty() && under_way_ == 0; }

  private:
    [[nodiscard]] bool has_room(const MovePlaces& move) const;

    std::vector<std::uint32_t> room_;  ///< By device.
    std::vector<MovePlaces> places_;   ///< By disk.
    std::vector<std::size_t> waiting_; ///< In order.
    std::size_t under_way_ = 0;
};

} // namespace godwit::block
