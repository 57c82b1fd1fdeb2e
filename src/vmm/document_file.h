#pragma once

/// The machine's document in its run directory, as godwitd left it: rewritten when a disk has
/// moved or its deltas are others, so that whoever reads it finds the disk. Any thread; locked by
/// itself.

#include "base/result.h"
#include "machine/machine_spec.h"

#include <mutex>
#include <string>

namespace godwit::vmm {

class DocumentFile {
  public:
    explicit DocumentFile(std::string path) : path_(std::move(path)) {}

    /// Writes the document if nobody has: of a VMM that no godwitd has started.
    [[nodiscard]] Status ensure(const machine::MachineSpec& spec);
    /// Says durably where a disk lies; everything else in the document stays as it is.
    [[nodiscard]] Status set_disk(std::size_t disk, const machine::DiskSpec& now);

  private:
    [[nodiscard]] Status write(const std::string& text) const;
    const std::string path_;
    std::mutex mutex_; ///< Disks of one machine may move at the same time.
};

} // namespace godwit::vmm
