#pragma once

/// The memory that the old and the new hypervisor instance of a partitioned exchange share
/// (docs/formats/partition-region.md): heartbeats, two one-way rings of small messages, the
/// programs on offer, CPU tokens and the estate.
///
/// Nothing in it is trusted: a reader copies first, then checks, then uses the copy. Nothing in it
/// needs a common kernel: rings are polled, and an eventfd beside them only makes that quicker.
/// Thread rule: one thread per side; the compare-and-swaps may come from any process.

#include "base/result.h"
#include "handover/owner_record.h"
#include "memory/pool/extent.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/mapping.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace godwit::exchange::partition {

using handover::InstanceId;
using handover::Ownership;

inline constexpr std::size_t ring_messages_max = 256;

/// Which of the two.
enum class Side : std::uint8_t { old_instance = 0, new_instance = 1 };
[[nodiscard]] constexpr Side other(Side side) noexcept {
    return side == Side::old_instance ? Side::new_instance : Side::old_instance;
}

/// Who divides which pool.
struct RegionNames {
    InstanceId old_instance;
    InstanceId new_instance;
    std::uint64_t pool_id = 0;
};

/// What a message says; numbers are part of the format. `subject` is a program's slot or a CPU.
enum class MessageType : std::uint32_t {
    hello = 1,          ///< I have mapped and checked everything and run.
    offer = 2,          ///< Program `subject` may be claimed; value: epoch of the offer.
    refused = 3,        ///< I do not take program `subject`; value: an ErrorCode.
    running = 4,        ///< Program `subject` runs here; value: epoch.
    cpu = 5,            ///< CPU `subject` is yours; value: epoch.
    estate = 6,         ///< The estate is sealed; value: generation.
    estate_refused = 7, ///< I do not accept the estate; value: generation.
    goodbye = 8,        ///< I give the exchange up.
};
struct Message {
    MessageType type = MessageType::hello;
    std::uint32_t subject = 0;
    std::uint64_t value = 0;
    friend bool operator==(const Message&, const Message&) = default;
};

enum class ProgramKind : std::uint32_t { machine = 1, processes = 2 };

/// A program as it is offered: everything another instance needs to run it.
struct ProgramOffer {
    std::string name; ///< 1 to 63 bytes without zero.
    ProgramKind kind = ProgramKind::machine;
    std::uint64_t tag = 0;              ///< As on its extents; never 0.
    std::vector<memory::Extent> memory; ///< In order of position.
    std::vector<memory::Extent> state;  ///< Frames that hold its saved state; may be none.
    std::uint64_t state_bytes = 0;
    friend bool operator==(const ProgramOffer&, const ProgramOffer&) = default;
};

/// What the old instance leaves: its last memory, its last CPU, and when it will be gone.
struct Estate {
    std::uint64_t generation = 0; ///< From 1; a new one after a refusal.
    sys::Moment written_at;
    sys::Moment deadline;
    std::uint32_t last_cpu = 0;
    std::vector<memory::Extent> extents;
    friend bool operator==(const Estate&, const Estate&) = default;
};

/// A program or CPU token as the shared word tells it; nothing if it was never handed out.
using MaybeOwnership = std::optional<Ownership>;

class Region {
  public:
    static constexpr std::size_t programs_max = 256;
    static constexpr std::uint32_t cpus_max = 1024;
    static constexpr std::size_t estate_extents_max = 64;

    /// A new region, sealed against resizing.
    [[nodiscard]] static Result<Region> create(const RegionNames& names);
    /// Maps one received from the other instance; corrupt if it is none.
    [[nodiscard]] static Result<Region> adopt(sys::Fd fd);

    [[nodiscard]] const RegionNames& names() const noexcept { return names_; }
    [[nodiscard]] InstanceId id_of(Side side) const noexcept;
    [[nodiscard]] const sys::Fd& fd() const noexcept { return fd_; }

    /// Shows that `self` runs. Call it at least every heartbeat_period.
    void beat(Side self, sys::Moment now) noexcept;
    /// How often a side has beaten.
    [[nodiscard]] std::uint64_t beats(Side side) const noexcept;

    /// Puts a message into the ring from `self`; busy if the reader is 256 messages behind.
    [[nodiscard]] Status send(Side self, const Message& message);
    /// The next message for `self`, nothing if there is none, corrupt if the ring is broken (the
    /// exchange cannot go on).
    [[nodiscard]] Result<std::optional<Message>> receive(Side self);

    /// Writes a program into `slot` and makes it claimable from `owner`, in the epoch returned.
    /// Only while `owner` has it, or nobody ever had.
    [[nodiscard]] Result<Ownership>
    offer(std::size_t slot, InstanceId owner, const ProgramOffer& program);
    /// A checked copy; corrupt if it is not whole. The extents are still to be checked against the
    /// pool's table.
    [[nodiscard]] Result<ProgramOffer> read_program(std::size_t slot) const;
    [[nodiscard]] MaybeOwnership program_owner(std::size_t slot) const;
    /// The commit of one program, and how it is taken back: of two who try, one wins.
    [[nodiscard]] Result<Ownership>
    claim_program(std::size_t slot, const Ownership& expected, InstanceId next);

    /// Makes a CPU known, as `owner`'s in epoch 1.
    [[nodiscard]] Status add_cpu(std::uint32_t cpu, InstanceId owner);
    [[nodiscard]] MaybeOwnership cpu_owner(std::uint32_t cpu) const;
    [[nodiscard]] Result<Ownership>
    claim_cpu(std::uint32_t cpu, const Ownership& expected, InstanceId next);
    [[nodiscard]] std::vector<std::uint32_t> cpus_of(InstanceId owner) const;

    /// Writes the estate without sealing it.
    [[nodiscard]] Status write_estate(const Estate& estate);
    /// Seals what was written: the old instance's point of no return.
    void seal_estate(std::uint64_t generation) noexcept;
    /// Breaks the seal after a refusal, so that a better one can be written.
    void unseal_estate() noexcept;
    /// A checked copy of the sealed estate; nothing if none is sealed, corrupt if it is not whole.
    [[nodiscard]] Result<std::optional<Estate>> read_estate() const;

  private:
    Region(sys::Fd fd, sys::MappedRegion map, const RegionNames& names)
        : fd_(std::move(fd)), map_(std::move(map)), names_(names) {}
    [[nodiscard]] Result<Ownership>
    swap_word(std::uint64_t& word, const Ownership& expected, InstanceId next, const char* what);

    sys::Fd fd_;
    sys::MappedRegion map_;
    RegionNames names_;
};

} // namespace godwit::exchange::partition
