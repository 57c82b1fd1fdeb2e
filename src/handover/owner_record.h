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

struct Ownership {
    InstanceId owner;
    std::uint32_t epoch = 0;
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
    /// Makes `next` the owner in the next epoch, if `expected` still stands. Returns the new
    /// ownership, or conflict naming who owns it now. This is the commit.
    [[nodiscard]] Result<Ownership> transfer(const Ownership& expected, InstanceId next);
    [[nodiscard]] const sys::Fd& fd() const noexcept { return fd_; }

  private:
    OwnerRecord(sys::Fd fd, sys::MappedRegion page) : fd_(std::move(fd)), page_(std::move(page)) {}
    sys::Fd fd_;
    sys::MappedRegion page_;
};

} // namespace godwit::handover
