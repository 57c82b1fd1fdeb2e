#pragma once

/// The host's memory pool as godwitd holds it: which machine's RAM lies where (requirement MP,
/// docs/formats/memory-pool.md). Made when the first machine wants it; the next godwitd gets it
/// from any VMM whose machine lies in it. Memory is taken from the host when a guest touches it.
///
/// A machine's extents carry a tag made from its name, so that whoever reads the table knows whose
/// they are. Control thread only.

#include "base/result.h"
#include "control/json_text.h"
#include "memory/pool/pool.h"
#include "sys/fd.h"

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

class HostPool {
  public:
    /// `bytes`: its size, rounded down to whole frames; 0: there is none; nothing: all memory of
    /// the host.
    explicit HostPool(std::optional<std::uint64_t> bytes) : wanted_bytes_(bytes) {}

    /// Makes the pool if there is none yet; unsupported if there is to be none.
    [[nodiscard]] Status make();
    /// Frames for a machine's RAM. unsupported if there is no pool, resource_exhausted if it has
    /// not that much left, conflict while the RAM of an earlier machine of that name is in it.
    [[nodiscard]] Result<std::vector<memory::PoolRun>> place(std::string_view machine,
                                                             std::uint64_t bytes);
    /// Gives a machine's frames back, zeroed. No process maps them any more.
    [[nodiscard]] Status give_back(std::string_view machine);

    /// The pool that machine `machine` lies in, as its VMM hands it out. conflict if it is another
    /// than the one known.
    [[nodiscard]] Status adopt(sys::Fd memory, sys::Fd table, std::string_view machine);
    /// What belongs to none of these machines becomes free; what a godwitd that has ended still
    /// owns becomes ours. Only while no second instance runs.
    [[nodiscard]] Status keep_only(const std::set<std::string>& machines);
    /// The pool of an exchange that has ended well, and who we are in it.
    void take_over(memory::Pool pool, memory::PoolOwner self);

    /// Null as long as there is none.
    [[nodiscard]] memory::Pool* pool() noexcept { return pool_ ? &*pool_ : nullptr; }
    [[nodiscard]] bool has_pool() const noexcept { return pool_.has_value(); }
    [[nodiscard]] memory::PoolOwner self() const noexcept { return self_; }
    /// For users: sizes and whose frames they are.
    [[nodiscard]] Json facts(const std::set<std::string>& machines) const;
    /// Frames nobody uses, of this instance.
    [[nodiscard]] std::uint64_t free_frames() const;

    /// What stands on the extents of that machine; never 0.
    [[nodiscard]] static std::uint64_t tag_of(std::string_view machine) noexcept;

  private:
    [[nodiscard]] Status inherit_all();

    std::optional<std::uint64_t> wanted_bytes_;
    std::optional<memory::Pool> pool_;
    memory::PoolOwner self_;
};

} // namespace godwit::control
