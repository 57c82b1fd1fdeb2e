#pragma once

/// Ranges of a disk that somebody is changing: the in-flight ranges that guest and copier share
/// (HS-2). A claim is held once no earlier claim overlaps it, so that overlapping changes are done
/// in the order they came and nobody starves.
///
/// Claims belong to their callers and are linked here without allocation; what is looked up is
/// looked through, which is right for the hundreds of a disk's queue. Owner thread only.

#include "block/block_set.h"

namespace godwit::block {

class RangeLocks {
  public:
    enum class Holder : std::uint8_t { guest, copier };
    struct Claim {
        BlockRange range;
        Holder holder = Holder::guest;
        /// Called when the claim is held after having waited; may acquire and release others.
        void (*granted)(Claim& claim) noexcept = nullptr;
        void* owner = nullptr;
        bool held = false;
        // Of a guest's change that was acknowledged with one side still writing:
        bool acknowledged = false;
        bool source_has = false;
        bool destination_has = false;
        Claim* previous = nullptr;
        Claim* next = nullptr;
    };

    RangeLocks() = default;
    RangeLocks(const RangeLocks&) = delete;
    RangeLocks& operator=(const RangeLocks&) = delete;
    ~RangeLocks() = default;

    /// Whether the claim is held at once; otherwise granted() comes.
    [[nodiscard]] bool acquire(Claim& claim) noexcept;
    /// The same, before all that wait: only for those that are held.
    [[nodiscard]] bool acquire_first(Claim& claim) noexcept;
    /// A held or waiting claim goes; those that waited for it are granted.
    void release(Claim& claim) noexcept;

    [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
    /// Whether the copier holds a claim that overlaps.
    [[nodiscard]] bool copier_holds(const BlockRange& range) const noexcept;
    /// Calls `visit(claim)` for each that overlaps.
    template <typename Visit>
    void for_each_overlapping(const BlockRange& range, Visit visit) const {
        for (const Claim* claim = first_; claim != nullptr; claim = claim->next) {
            if (claim->range.overlaps(range)) {
                visit(*claim);
            }
        }
    }

  private:
    [[nodiscard]] static bool is_free(const Claim& claim) noexcept;
    static void prepare(Claim& claim) noexcept;

    Claim* first_ = nullptr; ///< In the order they came.
    Claim* last_ = nullptr;
};

} // namespace godwit::block
