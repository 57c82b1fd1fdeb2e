#include "block/testing/overlay_world.h"

#include "block/testing/guest_load.h"

#include <optional>

namespace godwit::block::testing {

std::string run_overlay_scenario(std::uint64_t seed) {
    SimulatedTime dice(seed * 7);
    OverlayWorld world(seed, 64 + dice.below(400), (60 + dice.below(200)) * 4096);
    const std::uint64_t fail = dice.one_in(4) ? 50 + dice.below(300) : 0;
    world.open({.fail_one_in = fail}, {.throttle_max = std::chrono::microseconds(200)});
    std::optional<GuestLoad> load;
    load.emplace(*world.device,
                 world.time,
                 world.oracle,
                 GuestLoadOptions{.depth = static_cast<std::uint32_t>(1 + dice.below(6)),
                                  .requests = 50 + dice.below(300),
                                  .blocks_max = 1 + dice.below(40)});
    const std::uint64_t fold_at = dice.one_in(2) ? 1 + dice.below(600) : 0;
    const std::uint64_t cut_at = dice.one_in(2) ? 1 + dice.below(1200) : 0;
    std::optional<Status> folded;
    bool folds = false;
    const auto fold = [&] {
        folds = true;
        folded.reset();
        return world.device->fold([&](Status status) { folded.emplace(std::move(status)); });
    };
    const auto folding = [&] { return folds && !(folded.has_value() && folded->has_value()); };
    while (!load->finished() || folding()) {
        const bool stuck = world.device->status().waiting > 0;
        if (!folds && ((fold_at != 0 && world.time.steps() >= fold_at) || stuck)) {
            discard(fold(), "it is the first");
        } else if (folds && folded.has_value() && !folded->has_value()) {
            discard(fold(), "the one before has ended");
        }
        if (cut_at != 0 && world.time.steps() >= cut_at) {
            world.cut_power();
            return world.oracle.check_after_crash(world.view());
        }
        if (!load->violation().empty()) {
            return load->violation();
        }
        if (!world.time.step() && (!load->finished() || folding())) {
            return "nothing is to happen any more";
        }
        if (world.time.steps() > 200'000) {
            return "it does not end";
        }
    }
    if (!folds && world.base.written_bytes != 0) {
        return "the frozen base was written";
    }
    if (folds && world.device->status().clusters_mapped != 0) {
        return "something is left in the delta";
    }
    if (folds) {
        return world.oracle.check(0, world.base.current, world.oracle.now());
    }
    return load->violation();
}

} // namespace godwit::block::testing
