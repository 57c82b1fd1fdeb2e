#pragma once

/// The data of a program: in each page one word of sequence and checksum, which a write replaces by
/// one compare-and-swap. So a process may die anywhere, and a second writer is noticed.

#include "base/result.h"
#include "memory/ram.h"
#include "sys/mapping.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace godwit::partition_test {

class ProgramMemory {
  public:
    /// Maps the runs of the pool one after the other.
    [[nodiscard]] static Result<ProgramMemory>
    map(const sys::Fd& pool, std::span<const memory::PoolRun> runs, sys::MapMode mode);

    [[nodiscard]] std::uint64_t pages() const noexcept;
    /// Raises the sequence of a page; false if another writer was there.
    [[nodiscard]] bool write(std::uint64_t page);
    /// The sequence of a page, nothing if it is broken. An untouched page has sequence 0.
    [[nodiscard]] std::optional<std::uint32_t> read(std::uint64_t page) const;
    /// Sum of all sequences, nothing if a page is broken.
    [[nodiscard]] std::optional<std::uint64_t> sum() const;
    /// The host frame of a page, 0 if the kernel does not show it.
    [[nodiscard]] std::uint64_t host_frame(std::uint64_t page) const;

  private:
    explicit ProgramMemory(sys::MappedRegion region) : region_(std::move(region)) {}
    [[nodiscard]] std::uint64_t& word(std::uint64_t page) const noexcept;
    sys::MappedRegion region_;
};

/// "offset:bytes,offset:bytes" and back, for a command line.
[[nodiscard]] std::string to_text(std::span<const memory::PoolRun> runs);
[[nodiscard]] std::vector<memory::PoolRun> parse_runs(const std::string& text);

} // namespace godwit::partition_test
