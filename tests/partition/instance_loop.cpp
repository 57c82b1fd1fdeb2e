#include "program_memory.h"
#include "roles.h"

#include <sys/epoll.h>

#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace godwit::partition_test {

namespace {

/// A descriptor that the starter has placed under this number.
sys::Fd inherited(int number) {
    return sys::Fd(number);
}

} // namespace

Result<Instance> Instance::open(partition::Side self) {
    sys::Fd report = inherited(report_number);
    Instance instance{
        .pool = GODWIT_TRY(memory::Pool::adopt(inherited(memory_number), inherited(table_number))),
        .region = GODWIT_TRY(partition::Region::adopt(inherited(region_number))),
        .report_fd = {},
        .report_map =
            GODWIT_TRY(sys::MappedRegion::create(report, 0, sizeof(Report), sys::MapMode::shared)),
        .own_bell = sys::EventFd(
            inherited(self == partition::Side::old_instance ? old_bell_number : new_bell_number)),
        .peer_bell = sys::EventFd(
            inherited(self == partition::Side::old_instance ? new_bell_number : old_bell_number)),
        .self = self};
    instance.report_fd = std::move(report);
    return instance;
}

partition::Parts Instance::parts() {
    return {.pool = pool,
            .region = region,
            .clock = sys::system_clock(),
            .self = self,
            .doorbell = &peer_bell};
}

Status Instance::run(std::function<Result<bool>()> tick) {
    auto loop = GODWIT_TRY(sys::EventLoop::create());
    Status failed = ok();
    const auto once = [&] {
        pollfd judge{.fd = everyone_number, .events = 0, .revents = 0};
        if (::poll(&judge, 1, 0) == 1) {
            loop->stop(); // Nobody holds the read end: the judge has ended, and so does the trial.
            return;
        }
        own_bell.drain();
        region.beat(self, sys::system_clock().now());
        const Result<bool> more = tick();
        if (!more.has_value()) {
            failed = more.error();
        }
        if (!more.has_value() || !*more) {
            loop->stop();
        }
    };
    const auto bell =
        GODWIT_TRY(loop->watch(own_bell.fd(), EPOLLIN, [&](std::uint32_t) { once(); }));
    const auto timer = GODWIT_TRY(
        loop->schedule(std::chrono::milliseconds(1), std::chrono::milliseconds(1), once));
    GODWIT_TRY(loop->run());
    return failed;
}

Result<Group>
Group::start(std::size_t program, std::uint32_t instance, std::span<const memory::Extent> extents) {
    const std::string runs = to_text(memory::ram_runs(extents));
    // Borrowed numbers: the descriptors stay this process's.
    std::vector<sys::Fd> held;
    sys::SpawnOptions options{.program = "/proc/self/exe",
                              .arguments = {"",
                                            std::to_string(program),
                                            std::to_string(instance),
                                            runs,
                                            std::to_string(::getpid())},
                              .fds = {},
                              .new_session = false};
    for (const int number : {memory_number, report_number, everyone_number, own_line_number}) {
        held.emplace_back(number);
    }
    for (const sys::Fd& held_fd : held) {
        options.fds.push_back({.fd = &held_fd, .number = held_fd.raw()});
    }
    options.arguments[0] = "writer";
    auto writer = sys::Process::spawn(options);
    options.arguments[0] = "auditor";
    auto auditor = sys::Process::spawn(options);
    for (sys::Fd& held_fd : held) {
        static_cast<void>(held_fd.release());
    }
    return Group(program, GODWIT_TRY(std::move(writer)), GODWIT_TRY(std::move(auditor)));
}

Status Group::stop() {
    for (const sys::Process* process : {&writer_, &auditor_}) {
        discard(process->signal(SIGTERM), "it may have ended");
        const auto end = GODWIT_TRY(process->wait(std::chrono::seconds(10)));
        if (!end.has_value() || end->signalled || end->code != 0) {
            return Error(ErrorCode::internal,
                         "a process of program " + std::to_string(program_) + ": " +
                             (end.has_value() ? end->to_string() : "does not end"));
        }
    }
    return ok();
}

Status every_millisecond(std::function<bool()> tick) {
    auto loop = GODWIT_TRY(sys::EventLoop::create());
    const auto timer =
        GODWIT_TRY(loop->schedule(std::chrono::milliseconds(1), std::chrono::milliseconds(1), [&] {
            if (!tick()) {
                loop->stop();
            }
        }));
    return loop->run();
}

std::uint64_t io_bytes() {
    const auto text = sys::read_file("/proc/self/io", 4096);
    unsigned long long read = 0;
    unsigned long long written = 0;
    if (text.has_value()) {
        std::sscanf(text->c_str(), "rchar: %llu\nwchar: %llu", &read, &written);
    }
    return read + written;
}

bool serve(Report& report, std::uint32_t instance) {
    for (const ProgramReport& program : report.program) {
        if (program.runs_under != instance) {
            return true;
        }
    }
    report.survivor = instance;
    return report.stop == 0;
}

} // namespace godwit::partition_test
