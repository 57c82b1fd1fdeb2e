#pragma once

/// The merging of a disk's deltas into its base, beside its guest (LS-8). All fold at once, each
/// into what lies under it, which passes on what it has no cluster for; when all are empty they
/// are taken away together.
///
///     folding -> switching -> over
///        \------- cancel, failure /
///
/// After a failure, a cancel or a crash what has been folded lies in both, alike, and the document
/// names all the deltas: merging again goes on there. While it runs new clusters of the guest go
/// to the base, so that what was frozen is not any more.
///
/// Thread rule: the disk's loop, but for what says "any thread".

#include "machine/devices/disk_layers.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace godwit::machine {

/// Where a merge is, for people and programs.
struct DiskMergeState {
    std::uint64_t id = 0; ///< Microseconds since 1970 when it was asked for.
    std::string disk;
    std::string base;
    std::string phase; ///< "folding", "switching", "finished"
    std::uint32_t deltas = 0;
    std::uint64_t total_bytes = 0; ///< In clusters, when it began.
    std::uint64_t left_bytes = 0;
    sys::Nanoseconds duration{0};
    sys::Nanoseconds pause{0}; ///< Requests of the guest waited for the switch.
    bool over = false;
    std::optional<Error> reason; ///< Why it came to nothing.
};
/// One JSON object: how far it is, or once it is over, what became of it (docs/reports.md,
/// "disk-merge").
[[nodiscard]] std::string to_json(const DiskMergeState& state);

class DiskMerge {
  public:
    struct Args {
        std::size_t index = 0;
        DiskLayers& layers;
        sys::AlarmClock& clock;
        const MachineEvents& events;
        DiskSpec spec;
    };
    [[nodiscard]] static Result<std::unique_ptr<DiskMerge>> start(Args args);
    DiskMerge(const DiskMerge&) = delete;
    DiskMerge& operator=(const DiskMerge&) = delete;
    /// Once it is over, or abandoned and the disk is gone.
    ~DiskMerge() = default;

    [[nodiscard]] Status cancel();
    /// The devices are about to go: nothing is told any more.
    void abandon() noexcept;

    /// Any thread.
    [[nodiscard]] DiskMergeState state() const;
    [[nodiscard]] bool over() const noexcept { return over_.load(); }
    /// Once it is over: the disk as the document says it.
    [[nodiscard]] const DiskSpec& spec() const noexcept { return args_.spec; }

  private:
    /// What is to happen from the loop, when nothing calls.
    enum class Due : std::uint8_t { nothing, take_away, end };
    explicit DiskMerge(Args args);
    void fold_all();
    void folded(Status status);
    void end_folds(const Error& reason);
    void taken_away(Result<sys::Nanoseconds> pause);
    void soon(Due due);
    void take_away();
    void end();
    void tick();
    void publish();

    Args args_;
    sys::Moment begun_;
    bool abandoned_ = false;
    std::size_t folding_ = 0; ///< Deltas.
    Due due_ = Due::nothing;
    std::optional<Error> reason_; ///< Why it comes to nothing; the first.

    std::atomic<bool> over_{false};
    mutable std::mutex mutex_;
    DiskMergeState published_; ///< Guarded by mutex_.

    std::unique_ptr<sys::Alarm> alarm_; ///< Last: it calls into this.
};

} // namespace godwit::machine
