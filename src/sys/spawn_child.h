#pragma once

/// What every way to start a child has in common. Private to src/sys.

#include "sys/process.h"

#include <string>
#include <vector>

namespace godwit::sys {

/// argv of the child, made before the fork. Keeps its texts.
class ChildArguments {
  public:
    explicit ChildArguments(const SpawnOptions& options);
    ChildArguments(const ChildArguments&) = delete;
    ChildArguments& operator=(const ChildArguments&) = delete;
    ~ChildArguments() = default;
    [[nodiscard]] char* const* argv() const noexcept { return pointers_.data(); }

  private:
    std::vector<std::string> texts_;
    std::vector<char*> pointers_;
};

/// In the child: session, signals, standard output, passed descriptors. System calls only; 0 or an
/// errno.
[[nodiscard]] int arrange_child(const SpawnOptions& options) noexcept;

} // namespace godwit::sys
