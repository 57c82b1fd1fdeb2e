// Making durable what was written: data, then the journal that names it; a checkpoint into the
// other half when the journal is full. One commit at a time serves all that wanted one before it
// began.
//
//     [rewrite] -> data -> [base] -> [journal .. journal_flush] -> end
//                               \-> checkpoint .. checkpoint_flush -> header -> header_flush -> end
//
// What a failure leaves to the next commit: everything that was to be named, in the same blocks of
// the journal; if the base was not flushed, without what was to be named as lying there; if a flush
// failed, what is to be named is written again before.
#include "block/overlay/overlay_device.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace godwit::block {

void OverlayDevice::want_commit(Operation& operation) {
    commit_wanted_.push_back(&operation);
    if (stage_ == CommitStage::none) {
        start_commit();
    }
}

void OverlayDevice::start_commit() {
    commit_serves_ = std::exchange(commit_wanted_, {});
    stage_ = CommitStage::rewrite;
    rewrite_next_ = 0;
    rewrite_cluster_ = 0;
    rewrite_on();
}

void OverlayDevice::flush_data() {
    committing_ = std::exchange(pending_, {});
    committed_ = 0;
    stage_ = CommitStage::data;
    write_metadata(BlockOperation::flush, 0);
}

/// One block from `metadata_`, or a flush; of the base in its own stage.
void OverlayDevice::write_metadata(BlockOperation operation, std::uint64_t offset) {
    metadata_segment_ = {.iov_base = metadata_.bytes().data(), .iov_len = delta_block_bytes};
    metadata_request_ = {.operation = operation,
                         .offset = offset,
                         .done = &OverlayDevice::metadata_done,
                         .owner = this};
    if (operation == BlockOperation::write) {
        metadata_request_.bytes = delta_block_bytes;
        metadata_request_.segments = {&metadata_segment_, 1};
    }
    (stage_ == CommitStage::base ? *base_ : *delta_).submit(metadata_request_);
}

void OverlayDevice::metadata_done(BlockRequest& request, Status status) noexcept {
    OverlayDevice& device = *static_cast<OverlayDevice*>(request.owner);
    if (device.closing_) {
        return;
    }
    status.has_value() ? device.commit_step() : device.end_commit(std::move(status));
    device.kick();
}

/// What the stage wanted is done.
void OverlayDevice::commit_step() {
    switch (stage_) {
    case CommitStage::none:
    case CommitStage::rewrite:
        return;
    case CommitStage::data:
        if (folding_ || base_flush_due_) {
            stage_ = CommitStage::base;
            write_metadata(BlockOperation::flush, 0);
            return;
        }
        [[fallthrough]];
    case CommitStage::base:
        base_flush_due_ = base_flush_due_ && (stage_ != CommitStage::base || base_flush_always_);
        clear_folded();
        if (header_due_) {
            stage_ = CommitStage::checkpoint_flush;
            commit_step();
            return;
        }
        stage_ = CommitStage::journal;
        in_block_ = 0;
        [[fallthrough]];
    case CommitStage::journal:
        if (in_block_ > 0) { // A block has been written.
            ++state_.journal_index;
            committed_ += in_block_;
        }
        write_journal();
        return;
    case CommitStage::checkpoint:
        if (next_block_ < blocks_.size()) {
            std::ranges::copy(blocks_[next_block_], metadata_.bytes().begin());
            write_metadata(BlockOperation::write, next_header_.journal_place(next_block_));
            ++next_block_;
            return;
        }
        stage_ = CommitStage::checkpoint_flush;
        write_metadata(BlockOperation::flush, 0);
        return;
    case CommitStage::checkpoint_flush:
        stage_ = CommitStage::header;
        header_due_ = true;
        std::ranges::copy(encode(next_header_), metadata_.bytes().begin());
        write_metadata(BlockOperation::write, next_header_.generation % 2 * delta_block_bytes);
        return;
    case CommitStage::header:
        stage_ = CommitStage::header_flush;
        write_metadata(BlockOperation::flush, 0);
        return;
    case CommitStage::header_flush:
        header_due_ = false;
        state_.header = next_header_;
        state_.journal_index = blocks_.size();
        durable_journal_index_ = blocks_.size();
        // What came after the checkpoint was written follows; the rest says the same again.
        stage_ = CommitStage::journal;
        in_block_ = 0;
        write_journal();
        return;
    case CommitStage::journal_flush:
        end_commit(ok());
        return;
    }
}

void OverlayDevice::write_journal() {
    if (committed_ == committing_.size()) {
        if (in_block_ == 0) {
            end_commit(ok()); // No new cluster: the data's flush is all there is to it.
            return;
        }
        stage_ = CommitStage::journal_flush;
        write_metadata(BlockOperation::flush, 0);
        return;
    }
    if (state_.journal_index >= state_.header.journal_blocks) {
        begin_checkpoint();
        return;
    }
    in_block_ = std::min(delta_entries_max, committing_.size() - committed_);
    const DeltaBlock block = encode(
        state_.header, state_.journal_index, std::span(committing_).subspan(committed_, in_block_));
    std::ranges::copy(block, metadata_.bytes().begin());
    write_metadata(BlockOperation::write, state_.header.journal_place(state_.journal_index));
}

/// Of an entry that was tried before, clusters may have gone to the base since.
void OverlayDevice::mark_durable(const DeltaEntry& entry) {
    for (std::uint32_t i = 0; entry.slot != DeltaMap::none && i < entry.count; ++i) {
        if (state_.map.slot(entry.cluster + i) == entry.slot + i) {
            state_.map.set(entry.cluster + i, entry.slot + i, DeltaMap::Durable::yes);
        }
    }
}

/// The base has been flushed: it has what this commit is to name as lying there, whoever waits for
/// that. From here on the journal may say so, even if the commit fails.
void OverlayDevice::clear_folded() {
    for (const DeltaEntry& entry : committing_) {
        for (std::uint32_t i = 0; entry.slot == DeltaMap::none && i < entry.count; ++i) {
            // Others were cleared before, by a commit that failed then, and may be new again.
            if (fold_commits_ && fold_claim_.range.overlaps(
                                     {.first = entry.cluster + i, .end = entry.cluster + i + 1})) {
                state_.map.clear(entry.cluster + i);
            }
        }
    }
}

void OverlayDevice::begin_checkpoint() {
    // The data of what is being committed is durable: a checkpoint may name it.
    committed_ = committing_.size();
    std::ranges::for_each(committing_, [this](const DeltaEntry& entry) { mark_durable(entry); });
    next_header_ = state_.header;
    // Blocks of an attempt that came to nothing must not count as this one's.
    next_header_.journal_id = ++last_journal_id_;
    ++next_header_.generation;
    next_header_.active_half = 1 - next_header_.active_half;
    blocks_ = checkpoint_blocks(next_header_, state_.map);
    GODWIT_ASSERT(blocks_.size() <= next_header_.journal_blocks); // By its size.
    next_header_.checkpoint_blocks = static_cast<std::uint32_t>(blocks_.size());
    next_block_ = 0;
    stage_ = CommitStage::checkpoint;
    commit_step();
}

void OverlayDevice::end_commit(Status status) {
    const CommitStage ended_at = std::exchange(stage_, CommitStage::none);
    if (status.has_value()) {
        std::ranges::for_each(committing_,
                              [this](const DeltaEntry& entry) { mark_durable(entry); });
        durable_journal_index_ = state_.journal_index;
    } else {
        take_back(ended_at);
    }
    committing_.clear();
    bool heard = false;
    for (Operation* operation : std::exchange(commit_serves_, {})) {
        Status answer = status.has_value() ? ok() : Status(Error(status.error()));
        if (operation->guest != &fold_request_ &&
            operation->guest->operation == BlockOperation::flush) {
            heard = true;
            answer = answer.has_value() ? take_owed_failure() : std::move(answer);
        }
        finish(*operation, std::move(answer));
    }
    if (!status.has_value() && !heard) {
        owed_failure_ = std::move(status.error());
    }
    if (stage_ == CommitStage::none && !commit_wanted_.empty()) {
        start_commit();
    }
}

Status OverlayDevice::take_owed_failure() {
    if (!owed_failure_.has_value()) {
        return ok();
    }
    Status status(std::move(*owed_failure_));
    owed_failure_.reset();
    return status;
}

/// For the next commit. Blocks that were written and not flushed say nothing wrong meanwhile.
void OverlayDevice::take_back(CommitStage failed_at) {
    state_.journal_index = durable_journal_index_;
    if (failed_at < CommitStage::journal) {
        // A batch that goes on was copied before: if the next commit is to name it, it is anew.
        committing_ = without_folded(committing_);
        pending_ = without_folded(pending_);
        fold_spoilt_ = true;
    }
    for (Operation& operation : operations_) {
        // What it has written so far may be lost, and it has not been told so with a flush.
        operation.again = operation.claimed && operation.done_bytes > 0;
    }
    pending_.insert(pending_.begin(), committing_.begin(), committing_.end());
    const bool flush_failed =
        failed_at == CommitStage::data || failed_at == CommitStage::journal_flush ||
        failed_at == CommitStage::checkpoint_flush || failed_at == CommitStage::header_flush;
    if (flush_failed) {
        suspects_.clear();
        std::ranges::copy_if(pending_, std::back_inserter(suspects_), [](const DeltaEntry& entry) {
            return entry.slot != DeltaMap::none;
        });
    }
}

/// Without what the delta goes on to have after all, as the base has not been flushed.
std::vector<DeltaEntry>
OverlayDevice::without_folded(const std::vector<DeltaEntry>& entries) const {
    std::vector<DeltaEntry> kept;
    for (const DeltaEntry& entry : entries) {
        if (entry.slot != DeltaMap::none) {
            kept.push_back(entry);
            continue;
        }
        for (std::uint64_t i = 0; i < entry.count; ++i) {
            if (state_.map.slot(entry.cluster + i) == DeltaMap::none) { // Of a batch before.
                append_in_base(kept, entry.cluster + i);
            }
        }
    }
    return kept;
}

void OverlayDevice::append_in_base(std::vector<DeltaEntry>& entries, std::uint64_t cluster) {
    if (!entries.empty() && entries.back().slot == DeltaMap::none &&
        entries.back().cluster + entries.back().count == cluster) {
        ++entries.back().count;
    } else {
        entries.push_back({.cluster = cluster, .slot = DeltaMap::none, .count = 1});
    }
}

} // namespace godwit::block
