#pragma once

/// Whether passes over what the guest keeps writing come to an end (PD-8). A pure function of
/// numbers; any thread.

#include <cstddef>
#include <cstdint>
#include <span>

namespace godwit::block {

/// One pass of the copier over marked blocks.
struct PassRecord {
    std::uint64_t copied_bytes = 0;
    std::uint64_t dirty_bytes = 0; ///< Marked when it was over.
    std::uint64_t deferred_bytes = 0;
    std::uint64_t duration_ns = 0;
};

enum class PassAdvice : std::uint8_t {
    pause,    ///< What is left fits the pause.
    go_on,    ///< Another pass.
    mirrored, ///< The guest is as quick as the copier: from now on its writes go to both.
};

struct ConvergenceLimits {
    std::uint64_t threshold_bytes = 0;
    /// So many passes in a row that did not make it smaller by a tenth end the trying.
    std::uint32_t stalled_passes_max = 3;
    std::uint32_t passes_max = 30;
};

[[nodiscard]] inline PassAdvice advise(std::span<const PassRecord> passes,
                                       const ConvergenceLimits& limits) noexcept {
    if (passes.empty()) {
        return PassAdvice::go_on;
    }
    // A pause that was tried and took too much is a pass as well; that too comes to an end.
    if (passes.back().dirty_bytes <= limits.threshold_bytes &&
        passes.size() < 2 * std::size_t{limits.passes_max}) {
        return PassAdvice::pause;
    }
    std::uint32_t stalled = 0;
    for (std::size_t i = passes.size(); i-- > 1;) {
        if (passes[i].dirty_bytes < passes[i - 1].dirty_bytes / 10 * 9) {
            break;
        }
        ++stalled;
    }
    const bool endless = stalled >= limits.stalled_passes_max || passes.size() >= limits.passes_max;
    return endless ? PassAdvice::mirrored : PassAdvice::go_on;
}

} // namespace godwit::block
