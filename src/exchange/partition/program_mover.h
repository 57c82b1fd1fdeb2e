#pragma once

/// Programs and CPUs change hands between two instances of one host by pointers: both directions of
/// it, for either side. Steps and their undo: head of program_mover.cpp.
///
///     giving:  stop the program, write its state to frames of purpose state
///              slot = GODWIT_TRY(mover.give({.name = "web1", .tag = 17, ...}));
///              until mover.fate_of(slot) is given: forget it; or take_back(slot) and run it on
///     taking:  for each of GODWIT_TRY(mover.news()), on the doorbell or every millisecond:
///              offer -> taken = GODWIT_TRY(mover.take(offer)), or refuse(offer): map the extents,
///                       load the state, run, running(taken)
///              cpu   -> widen the CPU partition
///
/// It does not stop or run programs and starts no process: that is its user's. Nothing is mapped,
/// claimed or touched before it is checked. Owner thread only.

#include "exchange/partition/region.h"
#include "memory/pool/pool.h"
#include "sys/clock.h"

#include <optional>
#include <vector>

namespace godwit::exchange::partition {

/// What both sides work on; borrowed.
struct Parts {
    memory::Pool& pool;
    Region& region;
    const sys::Clock& clock;
    Side self = Side::old_instance;
    /// Wakes the other side's loop; null where it polls.
    const sys::EventFd* doorbell = nullptr;
};

/// Which program goes, as its extents are labelled.
struct Gift {
    std::string name;
    ProgramKind kind = ProgramKind::machine;
    std::uint64_t tag = 0;
    std::uint64_t state_bytes = 0; ///< In its frames of purpose state.
};

enum class Fate : std::uint8_t {
    offered, ///< The other instance may claim it; it must not run here.
    /// It did: never run it here again, and never free or scrub its frames, even if the table shows
    /// them as ours for a moment: the claims of the extents follow that of the program.
    given,
    ours, ///< It was taken back, or never offered: it may run here.
};

/// A message of the other instance. `subject` is a slot or a CPU, `value` as the type says.
using News = Message;

/// A program that is ours now.
struct Taken {
    std::size_t slot = 0;
    ProgramOffer program; ///< With extents as they are now.
};

class ProgramMover {
  public:
    /// corrupt unless region and pool belong together and the table's invariants hold.
    [[nodiscard]] static Result<ProgramMover> create(const Parts& parts);

    /// Offers a program that the caller has stopped. Returns its slot.
    [[nodiscard]] Result<std::size_t> give(const Gift& gift);
    [[nodiscard]] Fate fate_of(std::size_t slot) const;
    /// Takes an offer back; conflict if the other instance was quicker.
    [[nodiscard]] Status take_back(std::size_t slot);
    /// Takes all open offers back. Returns the slots that were lost to a claim in this moment.
    [[nodiscard]] std::vector<std::size_t> take_all_back();
    /// Hands one CPU over; conflict if it is the last.
    [[nodiscard]] Status give_cpu(std::uint32_t cpu);

    /// What came in since the last call, at most a ring full. corrupt: the exchange cannot go on.
    [[nodiscard]] Result<std::vector<News>> news();
    /// Checks the offer, claims the program (its point of no return), then its extents. After an
    /// error is_ours() tells on which side of the claim it fell.
    [[nodiscard]] Result<Taken> take(const News& offer);
    // The same in its parts, for whoever has something to decide in between.
    /// Step 1: a checked copy; nothing is touched.
    [[nodiscard]] Result<Taken> look(const News& offer) const;
    /// Step 2: conflict if the giver was quicker.
    [[nodiscard]] Status claim_word(const News& offer);
    /// Step 3: `taken` has the extents as they are then.
    [[nodiscard]] Status claim_extents(Taken& taken);
    /// Undo of steps 2 and 3, also of a part of them, by the one who claimed: all of it belongs to
    /// the giver again.
    [[nodiscard]] Status give_back(const Taken& taken);
    /// The same by the giver, once it is proven that the claimer does not run the program and that
    /// the process which claimed it has ended.
    [[nodiscard]] Status take_back_claimed(std::size_t slot);
    [[nodiscard]] Status refuse(const News& offer, ErrorCode why);
    /// The program runs here; its state frames are scrubbed and free.
    [[nodiscard]] Status running(const Taken& taken);
    [[nodiscard]] bool is_ours(std::size_t slot) const;

    /// Sends a message and rings the doorbell.
    [[nodiscard]] Status tell(const Message& message);
    /// Forgets all offers: the other instance has ended and nothing of it stands any more.
    void forget_offers() noexcept;

    [[nodiscard]] InstanceId self() const noexcept;
    [[nodiscard]] InstanceId peer() const noexcept;
    [[nodiscard]] memory::PoolOwner self_owner() const noexcept { return {self().value}; }
    [[nodiscard]] memory::PoolOwner peer_owner() const noexcept { return {peer().value}; }
    [[nodiscard]] const Parts& parts() const noexcept { return parts_; }

  private:
    explicit ProgramMover(const Parts& parts) : parts_(parts) {}
    [[nodiscard]] Result<std::size_t> free_slot() const;
    [[nodiscard]] Status check_program(const ProgramOffer& program) const;
    [[nodiscard]] Result<memory::Extent> claim_extent(const memory::Extent& extent);
    [[nodiscard]] Status move_extents(std::uint64_t tag,
                                      memory::Purpose purpose,
                                      memory::PoolOwner from,
                                      memory::PoolOwner next);

    Parts parts_;
    std::vector<std::optional<Ownership>> offers_{Region::programs_max};
};

} // namespace godwit::exchange::partition
