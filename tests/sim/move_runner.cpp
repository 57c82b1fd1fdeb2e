/// Runs simulations of moving disks, or of frozen ones, by seed (src/block/testing/move_scenario.h,
/// overlay_world.h) and stops at the first that violates what must hold. Exit codes: 0 as expected,
/// 1 not, 2 usage.

#include "base/log.h"
#include "block/testing/move_scenario.h"
#include "block/testing/overlay_world.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <string_view>

namespace {

using godwit::block::MoveOutcome;
using godwit::block::testing::MoveScenarioResult;
using godwit::block::testing::run_move_scenario;

struct Totals {
    std::uint64_t steps = 0;
    std::uint64_t crashed = 0;
    std::array<std::uint64_t, 3> outcomes{};
};

constexpr const char* usage =
    "usage: move_runner [--overlay] --seed N | --seeds COUNT [--from N] [--expect-violation]\n";

bool read_number(std::string_view text, std::uint64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
}

bool run_one(std::uint64_t seed, Totals& totals, bool tells) {
    const MoveScenarioResult result = run_move_scenario(seed);
    totals.steps += result.steps;
    totals.crashed += result.crashed ? 1U : 0U;
    if (result.outcome.has_value()) {
        ++totals.outcomes[static_cast<std::size_t>(*result.outcome)];
    }
    if (tells || !result.violation.empty()) {
        std::printf("seed %lu: %s%s (%s, %lu steps)\n",
                    static_cast<unsigned long>(seed),
                    result.violation.empty() ? "held" : "VIOLATED: ",
                    result.violation.c_str(),
                    result.story.c_str(),
                    static_cast<unsigned long>(result.steps));
    }
    return result.violation.empty();
}

bool run_one_overlay(std::uint64_t seed) {
    const std::string violation = godwit::block::testing::run_overlay_scenario(seed);
    if (!violation.empty()) {
        std::printf(
            "seed %lu: VIOLATED: %s\n", static_cast<unsigned long>(seed), violation.c_str());
    }
    return violation.empty();
}

} // namespace

int main(int argc, char** argv) {
    std::uint64_t first = 1;
    std::uint64_t count = 0;
    bool expects_violation = false;
    bool tells = false;
    bool overlay = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--expect-violation") {
            expects_violation = true;
        } else if (word == "--overlay") {
            overlay = true;
        } else if (i + 1 >= argc || (word != "--seed" && word != "--seeds" && word != "--from")) {
            std::fputs(usage, stderr);
            return 2;
        } else {
            std::uint64_t value = 0;
            if (!read_number(argv[++i], value)) {
                std::fputs(usage, stderr);
                return 2;
            }
            (word == "--seeds" ? count : first) = value;
            if (word == "--seed") {
                count = 1;
                tells = true;
            }
        }
    }
    if (count == 0) {
        std::fputs(usage, stderr);
        return 2;
    }
    godwit::log::configure("move_runner", godwit::log::Level::error);
    Totals totals;
    std::uint64_t seed = first;
    bool held = true;
    for (; held && seed < first + count; ++seed) {
        held = overlay ? run_one_overlay(seed) : run_one(seed, totals, tells);
    }
    std::printf("%lu seeds, %lu steps: %lu moved, %lu cancelled, %lu power cuts\n",
                static_cast<unsigned long>(seed - first),
                static_cast<unsigned long>(totals.steps),
                static_cast<unsigned long>(totals.outcomes[0]),
                static_cast<unsigned long>(totals.outcomes[1]),
                static_cast<unsigned long>(totals.crashed));
    return held != expects_violation ? 0 : 1;
}
