#pragma once

/// A disk over a frozen base: what is written goes to a delta, which may lie on a small shared
/// device (LS-2, LS-3); what was not is read from the base. The base may be an overlay itself.
///
/// - A flush makes the data durable, then the journal that names it; without new clusters the data
///   alone (LS-7). Overlapping changes are done in the order they came.
/// - Above the high-water mark each new cluster waits a little, more the fuller it is; when the
///   delta is full, changes that need one wait until fold() makes room: never an error (LS-6).
/// - A delta whose storage is full counts as full, and is tried again now and then.
/// - fold() brings everything back into the base (LS-8), beside the guest's requests: from then on
///   new clusters go to the base at once. It may be interrupted by a crash anywhere and begun
///   again. One that is cancelled or fails leaves new clusters to
///   the delta again, as before it.
///
/// Discards are hints and do nothing. Thread rule: as BlockDevice.

#include "block/aligned_buffer.h"
#include "block/block_device.h"
#include "block/move/range_locks.h"
#include "block/overlay/delta_format.h"
#include "block/request_queue.h"
#include "sys/alarm.h"

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace godwit::block {

enum class DeltaPressure : std::uint8_t { low, high, full };

struct OverlayOptions {
    std::uint32_t high_water_percent = 80;
    std::uint32_t low_water_percent = 60; ///< Pressure is over below it.
    /// What a new cluster waits when the delta is all but full.
    sys::Nanoseconds throttle_max{std::chrono::milliseconds(20)};
};

struct OverlayStatus {
    std::uint64_t slots = 0;
    std::uint64_t slots_used = 0;
    std::uint64_t clusters_mapped = 0;
    std::uint64_t base_written_bytes = 0; ///< 0 until fold() (LS-3).
    std::uint64_t waiting = 0;            ///< Changes that wait for room.
    DeltaPressure pressure = DeltaPressure::low;
    bool folding = false;
};

class OverlayDevice final : public BlockDevice {
  public:
    struct Hooks {
        /// The fill of the delta has crossed a mark. May be empty.
        std::function<void(DeltaPressure)> pressure;
    };
    /// `delta`: the device that `state` was opened from. The base must be as large as the disk.
    [[nodiscard]] static Result<std::unique_ptr<OverlayDevice>>
    create(std::unique_ptr<BlockDevice> base,
           std::unique_ptr<BlockDevice> delta,
           DeltaState state,
           sys::AlarmClock& clock,
           const OverlayOptions& options,
           Hooks hooks);
    /// Over a base that put_over() gives it before it is used.
    [[nodiscard]] static Result<std::unique_ptr<OverlayDevice>>
    create_over(const BlockGeometry& base,
                std::unique_ptr<BlockDevice> delta,
                DeltaState state,
                sys::AlarmClock& clock,
                const OverlayOptions& options,
                Hooks hooks);
    void put_over(std::unique_ptr<BlockDevice> base) noexcept { base_ = std::move(base); }
    OverlayDevice(const OverlayDevice&) = delete;
    OverlayDevice& operator=(const OverlayDevice&) = delete;
    /// Nothing of the guest may be in flight.
    ~OverlayDevice() override;

    /// Begins to fold; `folded` comes on the loop, once, of an empty delta perhaps at once: with
    /// success the delta is empty and the base complete and durable. Conflict while it goes on.
    /// After a failure it may be called again.
    [[nodiscard]] Status fold(std::function<void(Status)> folded);
    /// Ends a fold where it is; `folded` comes with `reason`. not_found without one.
    [[nodiscard]] Status cancel_fold(Error reason);
    [[nodiscard]] OverlayStatus status() const noexcept;
    [[nodiscard]] const DeltaHeader& header() const noexcept { return state_.header; }
    /// Whether the delta says everything that was written, durably.
    [[nodiscard]] bool committed() const noexcept {
        return stage_ == CommitStage::none && pending_.empty();
    }
    /// After a fold that succeeded, with nothing in flight: the base, which is the disk again.
    [[nodiscard]] std::unique_ptr<BlockDevice> take_base();

    [[nodiscard]] const BlockGeometry& geometry() const noexcept override { return geometry_; }
    void submit(BlockRequest& request) override;
    void kick() override;
    [[nodiscard]] std::uint32_t in_flight() const noexcept override { return in_flight_; }
    [[nodiscard]] Result<BlockGeometry> refresh() override { return geometry_; }
    void set_patience(Patience patience) override;
    [[nodiscard]] std::string description() const override {
        return "delta over " + base_->description();
    }

  private:
    struct Operation {
        OverlayDevice* device = nullptr;
        BlockRequest* guest = nullptr;
        RangeLocks::Claim claim;
        bool claimed = false;
        std::uint64_t done_bytes = 0;
        std::uint64_t part_bytes = 0; ///< Of the guest's request, that `part` is about.
        BlockRequest part;
        std::vector<iovec> segments;
        /// Clusters that `part` writes for the first time.
        std::uint64_t new_cluster = 0;
        std::uint32_t new_slot = 0;
        std::uint32_t new_count = 0;
        bool on_base = false;     ///< `part` writes to the base.
        bool filling = false;     ///< `part` reads a cluster of the base that is written in part.
        bool paced = false;       ///< Has waited for its new cluster.
        bool turned_back = false; ///< The delta's storage was full.
        bool needs_commit = false;
        bool again = false; ///< A flush failed when a part of it was done already.
        AlignedBuffer cluster;
        iovec cluster_segment{};
    };

    enum class CommitStage : std::uint8_t {
        none,
        rewrite,
        data,
        base,
        journal, ///< From here on what was folded is durable in the base.
        journal_flush,
        checkpoint,
        checkpoint_flush,
        header,
        header_flush,
    };

    OverlayDevice(const BlockGeometry& base,
                  std::unique_ptr<BlockDevice> delta,
                  DeltaState state,
                  sys::AlarmClock& clock,
                  const OverlayOptions& options,
                  Hooks hooks);
    [[nodiscard]] std::uint64_t cluster_bytes() const noexcept {
        return state_.header.cluster_bytes;
    }
    Operation& take_operation(BlockRequest& request);
    void finish(Operation& operation, Status status);
    static void granted(RangeLocks::Claim& claim) noexcept;
    static void part_done(BlockRequest& part, Status status) noexcept;
    void step(Operation& operation);
    void step_read(Operation& operation);
    void step_change(Operation& operation);
    void submit_part(Operation& operation,
                     BlockDevice& device,
                     std::uint64_t offset,
                     std::uint64_t bytes);
    void write_new(Operation& operation, std::uint64_t cluster, std::uint64_t bytes);
    void fill(Operation& operation, std::uint64_t cluster, std::uint64_t bytes);
    void filled(Operation& operation);
    void part_over(Operation& operation);
    void part_failed(Operation& operation, Status status);
    /// Bytes from `place` on that are mapped as one run; `slot` its first, or none.
    [[nodiscard]] std::uint64_t
    run_at(std::uint64_t place, std::uint64_t bytes, std::uint32_t& slot) const noexcept;
    [[nodiscard]] std::uint64_t cluster_end(std::uint64_t cluster) const noexcept;

    // overlay_room.cpp
    [[nodiscard]] std::uint32_t allocate(std::uint32_t wanted, std::uint32_t& count);
    [[nodiscard]] bool must_wait(Operation& operation);
    void wait_for_room(Operation& operation);
    void wake_waiting();
    void give_waiting_back();
    void note_pressure();
    void note_full_storage();
    void note_space();
    void set_alarm();
    void ring();

    // overlay_commit.cpp
    void want_commit(Operation& operation);
    void start_commit();
    void flush_data();
    void commit_step();
    void write_journal();
    void begin_checkpoint();
    void mark_durable(const DeltaEntry& entry);
    void clear_folded();
    void write_metadata(BlockOperation operation, std::uint64_t offset);
    void end_commit(Status status);
    void take_back(CommitStage failed_at);
    [[nodiscard]] std::vector<DeltaEntry>
    without_folded(const std::vector<DeltaEntry>& entries) const;
    static void append_in_base(std::vector<DeltaEntry>& entries, std::uint64_t cluster);
    [[nodiscard]] Status take_owed_failure();
    static void metadata_done(BlockRequest& request, Status status) noexcept;

    // overlay_rewrite.cpp
    void rewrite_on();
    [[nodiscard]] bool rewrite_read();
    void end_rewrite_of_cluster();
    void give_rewrite_claim_back();
    void let_rewrite_pass();
    static void rewrite_granted(RangeLocks::Claim& claim) noexcept;
    static void rewrite_done(BlockRequest& request, Status status) noexcept;

    // overlay_fold.cpp
    void fold_on();
    void fold_batch();
    void release_fold_claim();
    void fold_copy();
    void fold_part_done();
    void submit_fold(BlockDevice& device, BlockOperation operation, std::uint64_t offset);
    void fold_commit();
    void fold_committed(Status status);
    void fold_over(Status status);
    static void fold_granted(RangeLocks::Claim& claim) noexcept;
    static void fold_done(BlockRequest& request, Status status) noexcept;

    sys::AlarmClock& clock_;
    OverlayOptions options_;
    Hooks hooks_;
    std::unique_ptr<BlockDevice> base_;
    std::unique_ptr<BlockDevice> delta_;
    DeltaState state_;
    BlockGeometry geometry_;
    RangeLocks locks_;
    std::deque<Operation> operations_; ///< Stable addresses.
    std::vector<Operation*> idle_;
    std::uint32_t in_flight_ = 0;
    bool closing_ = false;
    std::uint64_t base_written_bytes_ = 0;

    // Room.
    std::uint64_t next_slot_ = 0; ///< None is free before it.
    DeltaPressure pressure_ = DeltaPressure::low;
    Patience patience_ = Patience::waits;
    std::vector<Operation*> waiting_;       ///< For room.
    bool storage_full_ = false;             ///< The delta's, as it is told.
    std::optional<sys::Moment> storage_at_; ///< When to try it again.
    std::optional<sys::Moment> space_at_;   ///< When to tell that it is over, if it stays.
    struct Paced {
        sys::Moment due;
        Operation* operation;
    };
    std::vector<Paced> paced_;
    RequestQueue at_once_; ///< Discards and refused ones, done by the alarm.

    // The one commit that goes on.
    CommitStage stage_ = CommitStage::none;
    std::vector<DeltaEntry> pending_;    ///< Mapped, not named by the journal.
    std::vector<DeltaEntry> committing_; ///< Taken by the commit that goes on.
    std::size_t committed_ = 0;          ///< Of them, in blocks written.
    std::size_t in_block_ = 0;           ///< Of them, in the block on its way.
    std::vector<DeltaBlock> blocks_;     ///< Of a checkpoint.
    std::size_t next_block_ = 0;
    DeltaHeader next_header_;
    std::uint64_t last_journal_id_; ///< From a random beginning, so that no other process has it.
    bool header_due_ = false; ///< Its header may or may not be there: it comes before all else.
    std::uint64_t durable_journal_index_; ///< Behind the last block that is.
    /// The base may hold what an earlier process, or a fold that came to nothing, has written there
    /// and not flushed.
    bool base_flush_due_;
    bool base_flush_always_ = false; ///< A fold has ended early.
    /// A flush failed that the guest did not ask for: its next one does as well.
    std::optional<Error> owed_failure_;
    std::vector<Operation*> commit_wanted_;
    std::vector<Operation*> commit_serves_;
    AlignedBuffer metadata_;
    iovec metadata_segment_{};
    BlockRequest metadata_request_;

    // After a flush that failed: new clusters that are to be written again.
    std::vector<DeltaEntry> suspects_;
    std::size_t rewrite_next_ = 0;
    std::uint32_t rewrite_cluster_ = 0; ///< Of that entry.
    RangeLocks::Claim rewrite_claim_;
    bool rewrite_claimed_ = false;
    bool rewrite_waits_ = false; ///< For its claim.
    BlockRequest rewrite_request_;
    AlignedBuffer rewrite_buffer_;
    iovec rewrite_segment_{};

    // Folding.
    bool folding_ = false; ///< New clusters go to the base.
    bool folding_now_ = false;
    bool fold_claimed_ = false;     ///< It holds its claim, or waits for it.
    std::optional<Error> fold_end_; ///< Why it is to end early.
    std::function<void(Status)> folded_;
    RangeLocks::Claim fold_claim_;
    bool fold_commits_ = false; ///< It holds its claim and waits for a commit.
    bool fold_spoilt_ =
        false; ///< A commit failed before the base was flushed since the batch began.
    std::vector<std::uint64_t> fold_clusters_; ///< Of the batch.
    std::size_t fold_next_ = 0;
    enum class FoldStage : std::uint8_t { read, write, commit };
    FoldStage fold_stage_ = FoldStage::read;
    BlockRequest fold_request_;
    AlignedBuffer fold_buffer_;
    iovec fold_segment_{};

    std::unique_ptr<sys::Alarm> alarm_; ///< Last: it calls into this.
};

} // namespace godwit::block
