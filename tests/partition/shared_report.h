#pragma once

/// What all processes of the test write down, in memory that belongs to none of them. It is the
/// judge's notebook and no part of the protocol.

#include "base/units.h"

#include <array>
#include <atomic>
#include <cstdint>

namespace godwit::partition_test {

inline constexpr std::size_t programs = 3;
inline constexpr std::uint64_t program_frames = 2;
inline constexpr std::size_t sampled_pages = 256;
inline constexpr std::uint64_t first_tag = 101;
inline constexpr std::uint64_t pool_frames = 32;
inline constexpr std::uint32_t old_id = 0x11;
inline constexpr std::uint32_t new_id = 0x22;

/// Descriptors by number, the same in every process.
inline constexpr int memory_number = 3;
inline constexpr int table_number = 4;
inline constexpr int region_number = 5;
inline constexpr int report_number = 6;
inline constexpr int everyone_number = 7;  ///< Write end: held by every process of the test.
inline constexpr int own_line_number = 8;  ///< Write end of the own instance's lifeline.
inline constexpr int peer_line_number = 9; ///< Read end of the other's.
inline constexpr int old_bell_number = 10; ///< Eventfd that wakes the old instance.
inline constexpr int new_bell_number = 11;

/// One program, as its processes tell.
struct ProgramReport {
    std::atomic<std::uint64_t> acknowledged; ///< Writes done, over all lives of the program.
    std::atomic<std::uint32_t> starts;
    std::atomic<std::uint32_t> runs_under; ///< Instance id of the one that started it last.
    std::atomic<std::uint64_t> audited;    ///< Pages the auditor has checked.
    /// Host frames of sampled pages, seen by the first process under the old and the new instance.
    std::array<std::array<std::atomic<std::uint64_t>, sampled_pages>, 2> frames;
};

struct Report {
    std::atomic<std::uint32_t> stop; ///< Set by the judge: whoever serves ends.
    std::atomic<std::uint32_t> errors;
    std::atomic<std::uint32_t> new_pid;
    /// The instance that serves alone after all, once all programs run under it.
    std::atomic<std::uint32_t> survivor;
    /// While both ran and before the first program moved: nanoseconds, and beats of each.
    std::atomic<std::int64_t> together_ns;
    std::array<std::atomic<std::uint64_t>, 2> beats_together;
    std::atomic<std::uint64_t> moved_while_others_ran;
    /// Bytes through read and write calls of each instance from first to last move.
    std::array<std::atomic<std::uint64_t>, 2> io_bytes;
    std::atomic<std::int64_t> sealed_deadline_ns;
    std::atomic<std::int64_t> inherited_ns;
    std::atomic<std::uint64_t> frames_scrubbed;
    std::array<ProgramReport, programs> program;
};

} // namespace godwit::partition_test
