#pragma once

/// The roles of the test's programs: what instance_main.cpp starts by its first argument.

#include "base/result.h"
#include "exchange/partition/cpu_partition.h"
#include "exchange/partition/program_mover.h"
#include "exchange/partition/witness.h"
#include "memory/pool/pool.h"
#include "shared_report.h"
#include "sys/event_loop.h"
#include "sys/process.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace godwit::partition_test {

namespace partition = exchange::partition;

/// What every instance process has: pool, region, the judge's report, its doorbells.
struct Instance {
    memory::Pool pool;
    partition::Region region;
    sys::Fd report_fd;
    sys::MappedRegion report_map;
    sys::EventFd own_bell;
    sys::EventFd peer_bell;
    partition::Side self;

    [[nodiscard]] static Result<Instance> open(partition::Side self);
    [[nodiscard]] Report& report() const noexcept {
        return *reinterpret_cast<Report*>(report_map.data());
    }
    [[nodiscard]] partition::Parts parts();
    /// Calls `tick` every millisecond and whenever the other side rings, with a beat before each;
    /// ends when it returns false or fails.
    [[nodiscard]] Status run(std::function<Result<bool>()> tick);
};

/// A group of processes that is one program: a writer and an auditor.
class Group {
  public:
    /// Starts both on these runs, as children of `self` that die with it.
    [[nodiscard]] static Result<Group>
    start(std::size_t program, std::uint32_t instance, std::span<const memory::Extent> extents);
    /// Asks both to end and waits; an exit code other than 0 is an error.
    [[nodiscard]] Status stop();
    [[nodiscard]] std::size_t program() const noexcept { return program_; }

  private:
    Group(std::size_t program, sys::Process writer, sys::Process auditor)
        : program_(program), writer_(std::move(writer)), auditor_(std::move(auditor)) {}
    std::size_t program_;
    sys::Process writer_;
    sys::Process auditor_;
};

/// Bytes this process has read and written through system calls.
[[nodiscard]] std::uint64_t io_bytes();
/// Calls `tick` every millisecond until it returns false.
[[nodiscard]] Status every_millisecond(std::function<bool()> tick);
/// Tells the judge that `instance` serves alone, once all programs have made progress; false while
/// they have not. Then waits for the judge's stop.
[[nodiscard]] bool serve(Report& report, std::uint32_t instance);

[[nodiscard]] Status run_old(const std::string& new_program);
[[nodiscard]] Status run_new(std::int32_t old_pid);
/// The writer and the auditor of a program.
[[nodiscard]] Status
run_writer(std::size_t program, std::uint32_t instance, const std::string& runs);
[[nodiscard]] Status run_auditor(std::size_t program, const std::string& runs);

} // namespace godwit::partition_test
