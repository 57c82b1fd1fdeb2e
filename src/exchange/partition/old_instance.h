#pragma once

/// The old instance of a partitioned exchange: divides the host, and bequeaths what it cannot hand
/// over because it needs it to run. In between programs go through `mover()`. Steps and their undo:
/// head of old_instance.cpp. Owner thread only.
///
///     OldInstance old = GODWIT_TRY(OldInstance::create(parts));
///     GODWIT_TRY(old.partition({.frames = 512, .cpus = {1}, .host_cpus = {0, 1}}));
///     ... start the new instance with the descriptors of pool, table and region; wait for hello
///     ... old.mover().give(...) one program after the other, old.mover().give_cpu(...)
///     GODWIT_TRY(old.drain()); GODWIT_TRY(old.write_estate(notice)); GODWIT_TRY(old.seal()); exit

#include "exchange/partition/cpu_set.h"
#include "exchange/partition/estate.h"
#include "exchange/partition/inherit.h"
#include "exchange/partition/program_mover.h"

#include <chrono>

namespace godwit::exchange::partition {

/// How the host is divided before the first program moves.
struct Division {
    std::uint64_t frames = 0; ///< Free frames of the pool for the new instance to start with.
    CpuSet cpus;              ///< For the new instance; at least one, and one must be left.
    CpuSet host_cpus;         ///< All that are divided.
};

class OldInstance {
  public:
    /// The old instance of `parts.region`, which must own the pool's free memory.
    [[nodiscard]] static Result<OldInstance> create(const Parts& parts);

    [[nodiscard]] Status partition(const Division& division);
    [[nodiscard]] ProgramMover& mover() noexcept { return mover_; }
    [[nodiscard]] const ProgramMover& mover() const noexcept { return mover_; }

    [[nodiscard]] Status drain();
    /// Writes deadline (now + notice), last CPU and pointers of all that is left; busy while a
    /// program is. `notice` comes from a measured shutdown, with margin.
    [[nodiscard]] Status write_estate(std::chrono::nanoseconds notice);
    /// The point of no return: from here on only the end.
    [[nodiscard]] Status seal();
    /// The new instance does not accept generation `generation`: back to draining.
    [[nodiscard]] Status estate_refused(std::uint64_t generation);
    /// The new instance has provably ended while this one still lives: nobody can accept what is
    /// sealed, so it is not. It claims nothing before our end, so nothing is lost to it.
    void heir_ended() noexcept;
    /// Gives the exchange up before the seal: open offers are taken back, and the new instance is
    /// asked to give back what it has (or ended, and then reclaim()).
    [[nodiscard]] Status abort();
    /// The new instance has provably ended: everything of it is ours again.
    [[nodiscard]] Result<Legacy> reclaim();

    [[nodiscard]] OldStage stage() const noexcept { return stage_; }

  private:
    explicit OldInstance(ProgramMover mover) : mover_(std::move(mover)) {}
    [[nodiscard]] Status give_frames(std::uint64_t frames);

    ProgramMover mover_;
    OldStage stage_ = OldStage::serving;
    std::uint64_t generation_ = 0;
};

} // namespace godwit::exchange::partition
