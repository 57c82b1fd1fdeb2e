#pragma once

/// Descriptors on their way to another process, each under a name both ends know (style R3).
/// The names travel in the message's bytes, the descriptors beside it; receive() checks that both
/// lists agree. A value that owns its descriptors; one thread at a time.

#include "base/result.h"
#include "sys/fd.h"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::sys {

inline constexpr std::size_t manifest_name_bytes_max = 32;

class FdManifest {
  public:
    /// Pairs names with descriptors; corrupt if the counts differ, a name is empty, too long or
    /// doubled.
    [[nodiscard]] static Result<FdManifest> pair_up(std::vector<std::string> names,
                                                    std::vector<Fd> fds);

    [[nodiscard]] Status add(std::string name, Fd fd);
    /// Takes the descriptor called `name` out; not_found names it.
    [[nodiscard]] Result<Fd> take(std::string_view name);
    [[nodiscard]] bool has(std::string_view name) const noexcept;
    [[nodiscard]] const std::vector<std::string>& names() const noexcept { return names_; }
    /// For MessageSocket::send, in the order of names().
    [[nodiscard]] std::vector<const Fd*> borrowed() const;
    [[nodiscard]] std::size_t size() const noexcept { return fds_.size(); }

  private:
    std::vector<std::string> names_;
    std::vector<Fd> fds_;
};

} // namespace godwit::sys
