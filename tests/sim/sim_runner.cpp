/// Runs simulations by seed (src/sim/README.md) and stops at the first that violates an invariant.
/// Exit codes: 0 as expected, 1 not, 2 usage.

#include "base/log.h"
#include "sim/scenario.h"
#include "sys/clock.h"

#include <charconv>
#include <cstdio>
#include <optional>
#include <string_view>

namespace {

using godwit::sim::ScenarioResult;

enum class Expect : std::uint8_t { no_violation, a_violation };

struct Options {
    std::uint64_t first_seed = 1;
    std::uint64_t seeds = 0;
    std::uint64_t seconds = 0;
    bool trace = false;
    Expect expect = Expect::no_violation;
};

constexpr const char* usage = "usage: sim_runner --seed N [--trace] | --seeds COUNT | --seconds "
                              "COUNT  [--expect-violation]\n";

std::optional<std::uint64_t> number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    return whole ? std::optional(value) : std::nullopt;
}

std::optional<Options> parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--trace") {
            options.trace = true;
        } else if (word == "--expect-violation") {
            options.expect = Expect::a_violation;
        } else if (i + 1 < argc && number(argv[i + 1]).has_value()) {
            const std::uint64_t value = *number(argv[++i]);
            if (word == "--seed") {
                options.first_seed = value;
                options.seeds = 1;
            } else if (word == "--seeds") {
                options.seeds = value;
            } else if (word == "--seconds") {
                options.seconds = value;
            } else {
                return std::nullopt;
            }
        } else {
            return std::nullopt;
        }
    }
    return options.seeds != 0 || options.seconds != 0 ? std::optional(options) : std::nullopt;
}

void print_failure(std::uint64_t seed, const ScenarioResult& result) {
    for (const std::string& line : result.trace) {
        std::printf("%s\n", line.c_str());
    }
    std::printf("seed %llu: %s\nreplay: sim_runner --seed %llu --trace\n",
                static_cast<unsigned long long>(seed),
                result.violation.c_str(),
                static_cast<unsigned long long>(seed));
}

int run(Options options) {
    const godwit::sys::Clock& clock = godwit::sys::system_clock();
    const auto start = clock.now();
    if (options.seconds != 0) {
        options.seeds = UINT64_MAX;
        options.first_seed = static_cast<std::uint64_t>(clock.unix_nanoseconds());
    }
    ScenarioResult total;
    std::uint64_t done = 0;
    const auto in_time = [&] {
        return options.seconds == 0 || clock.now() - start < std::chrono::seconds(options.seconds);
    };
    for (; done < options.seeds && in_time(); ++done) {
        const std::uint64_t seed = options.first_seed + done;
        const ScenarioResult result = godwit::sim::run_scenario(seed);
        total.steps += result.steps;
        total.handovers += result.handovers;
        total.crashes += result.crashes;
        total.lost += result.lost;
        total.left_over += result.left_over;
        if (!result.violation.empty()) {
            print_failure(seed, result);
            return options.expect == Expect::a_violation ? 0 : 1;
        }
        if (options.trace) {
            print_failure(seed, result);
        }
    }
    std::printf(
        "%llu seeds from %llu: %llu steps, %u handovers, %u crashes, %u machines taken by them, "
        "%u stale copies left; no violation\n",
        static_cast<unsigned long long>(done),
        static_cast<unsigned long long>(options.first_seed),
        static_cast<unsigned long long>(total.steps),
        total.handovers,
        total.crashes,
        total.lost,
        total.left_over);
    return options.expect == Expect::no_violation ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
    const std::optional<Options> options = parse(argc, argv);
    if (!options.has_value()) {
        std::fputs(usage, stderr);
        return 2;
    }
    // What the engine warns of is what a simulation is made of.
    godwit::log::configure("sim", godwit::log::Level::error);
    return run(*options);
}
