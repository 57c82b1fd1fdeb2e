#include "memory/pool/claim_log.h"

#include "memory/pool/table_layout.h"

#include <algorithm>
#include <map>
#include <utility>

namespace godwit::memory {

namespace {

Error unexplained(std::size_t record, const char* why) {
    return Error(ErrorCode::corrupt,
                 "the claim log's record " + std::to_string(record) + " " + std::string(why));
}

/// A change seen alone: does it keep the frames it speaks of?
Status check_change(const Change& change, std::size_t number) {
    const table::Word before = table::unpack(change.before);
    const table::Word after = table::unpack(change.after);
    const table::Word other_before = table::unpack(change.other_before);
    const table::Word other_after = table::unpack(change.other_after);
    if (after.epoch <= before.epoch || after.slot == 0) {
        return unexplained(number, "does not raise the epoch, or leaves frames without an owner");
    }
    switch (change.kind) {
    case ChangeKind::replace:
        if (before.frames != after.frames) {
            return unexplained(number, "changes a length without a split or merge");
        }
        return ok();
    case ChangeKind::split:
        if (after.frames == 0 || other_after.frames == 0 ||
            after.frames + other_after.frames != before.frames ||
            change.other_first != change.first + after.frames || other_after.slot != after.slot ||
            after.slot != before.slot || other_after.epoch <= before.epoch) {
            return unexplained(number, "splits an extent into parts that are not the whole");
        }
        return ok();
    case ChangeKind::merge:
        if (change.other_first != change.first + before.frames ||
            before.frames + other_before.frames != after.frames ||
            other_before.slot != before.slot || after.slot != before.slot ||
            after.epoch <= other_before.epoch) {
            return unexplained(number, "merges extents that are not neighbours of one owner");
        }
        return ok();
    }
    return unexplained(number, "is of an unknown kind");
}

class Replay {
  public:
    using Key = std::pair<std::uint64_t, std::uint64_t>; ///< First frame and word.

    Replay(const ClaimLog& log, std::uint64_t first_word, std::span<const Head> now) : log_(log) {
        heads_.emplace(0, first_word);
        for (const Head& head : now) {
            now_.emplace(head.first, head.word);
        }
    }

    Result<std::size_t> run() {
        GODWIT_TRY(index());
        std::vector<std::uint64_t> changed{0};
        while (!changed.empty()) {
            const std::uint64_t first = changed.back();
            changed.pop_back();
            apply_at(first, changed);
        }
        for (std::size_t i = 0; i < log_.changes.size(); ++i) {
            if (log_.changes[i].state == ChangeState::done && !applied_[i]) {
                return unexplained(i, "replaces a word that never stood in the table");
            }
        }
        if (heads_ != now_) {
            return Error(ErrorCode::corrupt, "the claim log does not end at the table's extents");
        }
        return static_cast<std::size_t>(std::ranges::count(applied_, true));
    }

  private:
    Status index() {
        applied_.resize(log_.changes.size());
        for (std::size_t i = 0; i < log_.changes.size(); ++i) {
            const Change& change = log_.changes[i];
            if (change.state != ChangeState::done && change.state != ChangeState::begun) {
                continue;
            }
            const auto now = now_.find(change.first);
            if (change.state == ChangeState::begun && now != now_.end() &&
                now->second == change.before) {
                continue; // Its process died before the swap.
            }
            GODWIT_TRY(check_change(change, i));
            GODWIT_TRY(enter({change.first, change.before}, i));
            if (change.kind == ChangeKind::merge) {
                GODWIT_TRY(enter({change.other_first, change.other_before}, i));
            }
        }
        return ok();
    }

    /// Of two changes of one word only one can have happened; one that is done beats one that a
    /// dead process had begun.
    Status enter(Key key, std::size_t record) {
        const auto [found, is_new] = by_word_.emplace(key, record);
        if (is_new) {
            return ok();
        }
        const bool old_done = log_.changes[found->second].state == ChangeState::done;
        const bool new_done = log_.changes[record].state == ChangeState::done;
        if (old_done && new_done) {
            return unexplained(record, "replaces a word that another record replaced: two owners");
        }
        if (new_done) {
            found->second = record;
        }
        return ok();
    }

    void apply_at(std::uint64_t first, std::vector<std::uint64_t>& changed) {
        const auto head = heads_.find(first);
        if (head == heads_.end()) {
            return;
        }
        const auto found = by_word_.find({first, head->second});
        if (found == by_word_.end() || applied_[found->second]) {
            return;
        }
        const Change& change = log_.changes[found->second];
        if (change.kind == ChangeKind::merge) {
            const auto left = heads_.find(change.first);
            const auto right = heads_.find(change.other_first);
            if (left == heads_.end() || right == heads_.end() || left->second != change.before ||
                right->second != change.other_before) {
                return; // The other half is not there yet; it comes back here when it changes.
            }
            heads_.erase(right);
        }
        heads_[change.first] = change.after;
        changed.push_back(change.first);
        if (change.kind == ChangeKind::split) {
            heads_[change.other_first] = change.other_after;
            changed.push_back(change.other_first);
        }
        applied_[found->second] = true;
    }

    const ClaimLog& log_;
    std::map<std::uint64_t, std::uint64_t> heads_; ///< First frame to word.
    std::map<std::uint64_t, std::uint64_t> now_;
    std::map<Key, std::size_t> by_word_;
    std::vector<bool> applied_;
};

} // namespace

Result<std::size_t> replay(const ClaimLog& log,
                           std::uint64_t frames,
                           std::uint64_t first_word,
                           std::span<const Head> now) {
    if (log.lost != 0) {
        return Error(ErrorCode::resource_exhausted,
                     "the claim log was too short for " + std::to_string(log.lost) +
                         " changes: it proves nothing");
    }
    if (table::unpack(first_word).frames != frames) {
        return Error(ErrorCode::invalid_argument, "the first extent is not the whole pool");
    }
    return Replay(log, first_word, now).run();
}

} // namespace godwit::memory
