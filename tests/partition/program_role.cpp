#include "program_memory.h"
#include "roles.h"

#include <csignal>

namespace godwit::partition_test {

namespace {

constexpr int pages_per_tick = 32;

volatile std::sig_atomic_t is_asked_to_end = 0;

void ask_to_end(int) {
    is_asked_to_end = 1;
}

struct Programs {
    ProgramMemory memory;
    sys::MappedRegion report_map;
    ProgramReport& report;
    Report& all;
};

Result<Programs> open_program(std::size_t program, const std::string& runs, sys::MapMode mode) {
    std::signal(SIGTERM, ask_to_end);
    auto memory = GODWIT_TRY(ProgramMemory::map(sys::Fd(memory_number), parse_runs(runs), mode));
    auto map = GODWIT_TRY(
        sys::MappedRegion::create(sys::Fd(report_number), 0, sizeof(Report), sys::MapMode::shared));
    auto& all = *reinterpret_cast<Report*>(map.data());
    if (program >= programs) {
        return Error(ErrorCode::invalid_argument, "no such program");
    }
    return Programs{std::move(memory), std::move(map), all.program[program], all};
}

Error broken(Report& report, const std::string& why) {
    ++report.errors;
    return Error(ErrorCode::corrupt, why);
}

} // namespace

Status run_writer(std::size_t program, std::uint32_t instance, const std::string& runs) {
    Programs mine = GODWIT_TRY(open_program(program, runs, sys::MapMode::shared));
    const auto sum = mine.memory.sum();
    const std::uint64_t acknowledged = mine.report.acknowledged;
    // A writer that was killed may have written once more than it acknowledged; nothing else.
    if (!sum.has_value() || *sum < acknowledged || *sum > acknowledged + 1) {
        return broken(mine.all, "writes were lost or doubled");
    }
    mine.report.acknowledged = *sum;
    auto& frames = mine.report.frames[instance == new_id ? 1 : 0];
    for (std::size_t i = 0; i < sampled_pages; ++i) {
        // Writing makes the page present; reading alone would, too, after the first life.
        if (mine.report.starts == 0 && !mine.memory.write(i)) {
            return broken(mine.all, "another writer is at work");
        }
        if (mine.report.starts == 0) {
            ++mine.report.acknowledged;
        }
        static_cast<void>(mine.memory.read(i));
        frames[i] = mine.memory.host_frame(i);
    }
    ++mine.report.starts;
    std::uint64_t page = 0;
    bool alone = true;
    GODWIT_TRY(every_millisecond([&] {
        for (int i = 0; i < pages_per_tick && alone && is_asked_to_end == 0; ++i) {
            alone = mine.memory.write(page);
            page = (page + 1) % mine.memory.pages();
            mine.report.acknowledged += alone ? 1 : 0;
            mine.report.runs_under = instance;
        }
        return alone && is_asked_to_end == 0;
    }));
    return alone ? ok() : broken(mine.all, "another writer is at work");
}

Status run_auditor(std::size_t program, const std::string& runs) {
    const Programs mine = GODWIT_TRY(open_program(program, runs, sys::MapMode::shared_read_only));
    std::uint64_t page = 0;
    bool whole = true;
    GODWIT_TRY(every_millisecond([&] {
        for (int i = 0; i < pages_per_tick && whole; ++i) {
            whole = mine.memory.read(page).has_value();
            page = (page + 1) % mine.memory.pages();
            ++mine.report.audited;
        }
        return whole && is_asked_to_end == 0;
    }));
    return whole ? ok() : broken(mine.all, "a page is broken");
}

} // namespace godwit::partition_test
