#pragma once

/// Who may run a machine: one record {owner, epoch} in memory that both ends of a handover map
/// (requirements; format in docs/formats/owner-record.md).
///
/// Every change is one compare-and-swap on a 64-bit word, so of a destination that claims the
/// machine and a source that takes its offer back exactly one wins. Thread rule: any thread, any
/// process.

#include "base/result.h"
#include "sys/fd.h"
#include "sys/mapping.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace godwit::handover {

/// The token of one VMM process, chosen by whoever starts it; never 0.
struct InstanceId {
    std::uint32_t value = 0;
    friend auto operator<=>(InstanceId, InstanceId) = default;
};

/// "00a1b2c3", as it stands in socket names and reports.
[[nodiscard]] std::string to_string(InstanceId id);
/// The reverse; exactly 8 hex digits, not all zero.
[[nodiscard]] Result<InstanceId> parse_instance_id(std::string_view text);

/// What an owner has done with the machine since it became its own.
enum class Tenure : std::uint8_t {
    running, ///< It may have run the guest: nobody else's copy is worth anything any more.
    claimed, ///< It has taken the machine and has not touched the guest: still reversible.
};
[[nodiscard]] std::string_view name_of(Tenure tenure) noexcept;

struct Ownership {
    InstanceId owner;
    std::uint32_t epoch = 0;
    Tenure tenure = Tenure::running;
    friend auto operator<=>(const Ownership&, const Ownership&) = default;
};

class OwnerRecord {
  public:
    /// A new record for machine `machine_id` (UUID text, 36 bytes), owned by `first` in epoch 1.
    [[nodiscard]] static Result<OwnerRecord> create(const std::string& machine_id,
                                                    InstanceId first);
    /// Maps a record received from another process; corrupt if it is not one of this machine.
    [[nodiscard]] static Result<OwnerRecord> adopt(sys::Fd fd, const std::string& machine_id);

    [[nodiscard]] Ownership read() const noexcept;
    // Each of these makes its change if `expected` still stands, and returns the new ownership;
    // otherwise conflict naming who owns the machine now.

    /// A successor takes what was offered to it: next epoch, claimed. This is the commit.
    [[nodiscard]] Result<Ownership> claim(const Ownership& expected, InstanceId next);
    /// The owner by claim is going to run the guest; before it does anything to it.
    [[nodiscard]] Result<Ownership> confirm(const Ownership& expected);
    /// Next epoch, running. To the owner itself: takes back what it has offered, so that no claim
    /// on the old epoch can succeed. From a claimed record to the owner before: recovery.
    [[nodiscard]] Result<Ownership> transfer(const Ownership& expected, InstanceId next);
    [[nodiscard]] const sys::Fd& fd() const noexcept { return fd_; }

  private:
    OwnerRecord(sys::Fd fd, sys::MappedRegion page) : fd_(std::move(fd)), page_(std::move(page)) {}
    [[nodiscard]] Result<Ownership> swap(const Ownership& expected, const Ownership& desired);
    sys::Fd fd_;
    sys::MappedRegion page_;
};

} // namespace godwit::handover
