#include "block/testing/overlay_world.h"

#include "block/testing/guest_load.h"

#include <optional>

namespace godwit::block::testing {

std::string OverlayWorld::check_after_cut() {
    // Opening it makes a checkpoint, over what an earlier one may have left: twice, the same.
    for (int opening = 0; opening < 2; ++opening) {
        Result<DeltaState> state = open_delta(storage_, 3);
        if (!state.has_value()) {
            return "after a power cut: " + state.error().to_string();
        }
        std::string wrong = oracle.check_after_crash(view_of(*state));
        if (!wrong.empty()) {
            return "after a power cut: " + wrong;
        }
    }
    return {};
}

std::vector<std::byte> OverlayWorld::view_of(const DeltaState& state) const {
    std::vector<std::byte> disk = base.current;
    for (std::uint64_t cluster = state.map.next(0); cluster < state.map.clusters();
         cluster = state.map.next(cluster + 1)) {
        const std::uint64_t place = cluster * overlay_cluster_bytes;
        std::copy_n(delta.current.begin() + static_cast<std::ptrdiff_t>(
                                                state.header.slot_place(state.map.slot(cluster))),
                    std::min<std::uint64_t>(overlay_cluster_bytes, disk.size() - place),
                    disk.begin() + static_cast<std::ptrdiff_t>(place));
    }
    return disk;
}

std::string run_overlay_scenario(std::uint64_t seed) {
    SimulatedTime dice(seed * 7);
    // A third has more clusters than one journal block has entries.
    const bool large = dice.one_in(3);
    OverlayWorld world(seed,
                       large ? 4000 + dice.below(4000) : 64 + dice.below(400),
                       large ? 4096 * (700 + dice.below(400)) : 4096 * (60 + dice.below(200)));
    const SimulatedDiskOptions disk{.fail_one_in = dice.one_in(4) ? 50 + dice.below(300) : 0,
                                    .fail_flush_one_in = dice.one_in(3) ? 3 + dice.below(30) : 0};
    world.open(disk, {.throttle_max = std::chrono::microseconds(200)});
    std::optional<GuestLoad> load;
    load.emplace(*world.device,
                 world.time,
                 world.oracle,
                 GuestLoadOptions{.depth = static_cast<std::uint32_t>(1 + dice.below(6)),
                                  .requests = (large ? 500 : 50) + dice.below(300),
                                  .blocks_max = 1 + dice.below(large ? 12 : 40)});
    const std::uint64_t span = large ? 6 : 1;
    const std::uint64_t fold_at = dice.one_in(2) ? 1 + dice.below(600 * span) : 0;
    const std::uint64_t cut_at = dice.one_in(2) ? 1 + dice.below(1200 * span) : 0;
    const bool cut_at_flush = dice.one_in(2);
    std::optional<std::uint64_t> flushes_before_cut;
    const std::uint64_t cancel_at = dice.one_in(3) ? 1 + dice.below(900 * span) : 0;
    std::uint64_t again_at = 0; ///< When a fold that has failed begins anew.
    std::optional<Status> folded;
    bool folds = false;
    bool cancelled = false;
    const auto fold = [&] {
        folds = true;
        folded.reset();
        return world.device->fold([&](Status status) {
            folded.emplace(std::move(status));
            again_at = world.time.steps() + dice.below(200 * span);
        });
    };
    const auto folding = [&] { return folds && !(folded.has_value() && folded->has_value()); };
    while (!load->finished() || folding()) {
        const bool stuck = world.device->status().waiting > 0;
        if (!folds && ((fold_at != 0 && world.time.steps() >= fold_at) || stuck)) {
            discard(fold(), "it is the first");
        } else if (folds && folded.has_value() && !folded->has_value() &&
                   (stuck || load->finished() || world.time.steps() >= again_at)) {
            discard(fold(), "the one before has ended");
        } else if (folds && !cancelled && cancel_at != 0 && world.time.steps() >= cancel_at) {
            cancelled =
                world.device->cancel_fold(Error(ErrorCode::cancelled, "called off")).has_value();
        }
        if (cut_at != 0 && world.time.steps() >= cut_at) {
            flushes_before_cut = flushes_before_cut.value_or(load->flushes());
            if (!cut_at_flush || load->flushes() != *flushes_before_cut) {
                world.cut_power();
                return world.check_after_cut();
            }
        }
        if (!load->violation().empty()) {
            return load->violation();
        }
        if (!world.time.step() && (!load->finished() || folding())) {
            return "nothing is to happen any more";
        }
        if (world.time.steps() > 1'000'000) {
            return "it does not end";
        }
    }
    if (!folds && world.base.written_bytes != 0) {
        return "the frozen base was written";
    }
    if (folds && world.device->status().clusters_mapped != 0) {
        return "something is left in the delta";
    }
    if (!load->violation().empty()) {
        return load->violation();
    }
    if (folds) {
        std::string wrong = world.oracle.check(0, world.base.current, world.oracle.now());
        if (wrong.empty()) {
            wrong = world.oracle.check_after_crash(world.base.durable);
        }
        if (!wrong.empty()) {
            return "after a fold: " + wrong;
        }
    }
    world.cut_power();
    return world.check_after_cut();
}

} // namespace godwit::block::testing
