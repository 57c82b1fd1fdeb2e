#pragma once

/// What the ownership table of a memory pool speaks about (docs/formats/memory-pool.md): runs of
/// frames, their owner, and what they are for. Plain values.

#include "base/units.h"

#include <compare>
#include <cstdint>

namespace godwit::memory {

/// The frame of a pool: one huge page, so that a run of frames maps without small pages and a
/// table stays small (256 KiB of entries for 16 GiB).
inline constexpr std::uint64_t pool_frame_bytes = 2 * mib;
/// 24 bits of a table word count frames: 32 TiB.
inline constexpr std::uint64_t pool_frames_max = (1ULL << 24U) - 1;

/// A hypervisor instance, by the id its successor knows it by; never 0.
struct PoolOwner {
    std::uint32_t value = 0;
    friend auto operator<=>(PoolOwner, PoolOwner) = default;
};

/// Frames [first, first + frames) of the pool.
struct FrameRun {
    std::uint64_t first = 0;
    std::uint64_t frames = 0;
    friend auto operator<=>(const FrameRun&, const FrameRun&) = default;
};

/// What an extent holds. Numbers are part of the format.
enum class Purpose : std::uint32_t {
    free = 0,     ///< Nothing; its owner may hand it out.
    machine = 1,  ///< RAM of a machine.
    program = 2,  ///< Memory of another program that moves with its instance.
    state = 3,    ///< Saved state of a machine or program that is on its way.
    instance = 4, ///< The instance's own memory: bequeathed last.
};
inline constexpr std::uint32_t purpose_max = 4;

/// What an owner writes on an extent. `tag` names the machine or program (chosen by the instance,
/// not 0 unless free), `position` the frame of the program's memory at which the extent starts.
struct Label {
    Purpose purpose = Purpose::free;
    std::uint64_t tag = 0;
    std::uint64_t position = 0;
    friend auto operator<=>(const Label&, const Label&) = default;
};

/// One row of the table: every frame lies in exactly one.
struct Extent {
    FrameRun run;
    PoolOwner owner;
    std::uint32_t epoch = 0; ///< Grows by every change; a view with an older one is stale.
    Label label;
    friend auto operator<=>(const Extent&, const Extent&) = default;
};

} // namespace godwit::memory
