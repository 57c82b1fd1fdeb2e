#include "control/vmm_spawn.h"

#include "base/log.h"
#include "sys/unix_socket.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>

namespace godwit::control {

namespace {

constexpr int control_fd_number = 5;

std::uint32_t number_of(const std::string& id) {
    std::uint32_t number = 0;
    std::from_chars(id.data(), id.data() + id.size(), number, 16);
    return number;
}

Result<ServicePartition::Started> start_confined(sys::EventLoop& loop,
                                                 const std::string& socket_path,
                                                 const std::string& id,
                                                 sys::SpawnOptions spawn,
                                                 ServicePartition::Watcher watcher) {
    const sys::Fd no_input = GODWIT_TRY(sys::open("/dev/null", O_RDONLY));
    const sys::Fd control = GODWIT_TRY(sys::Listener::bind(socket_path, sys::SocketKind::messages));
    spawn.standard_input = &no_input;
    spawn.fds.push_back({.fd = &control, .number = control_fd_number});
    spawn.arguments.insert(spawn.arguments.end(),
                           {"--control-fd", std::to_string(control_fd_number)});
    auto started = ServicePartition::start(loop, spawn, number_of(id), std::move(watcher));
    if (!started.has_value()) {
        ::unlink(socket_path.c_str());
    }
    return started;
}

} // namespace

Result<SpawnedVmm> spawn_vmm(sys::EventLoop& loop,
                             const RunDirectory& run,
                             const VmmLaunch& options,
                             const std::string& id,
                             sys::SpawnOptions spawn,
                             ServicePartition::Watcher watcher) {
    std::string reason = "switched off";
    if (options.incoming != nullptr && options.partition != PartitionPolicy::off) {
        auto started = start_confined(
            loop, run.vmm_socket(options.machine, id), id, spawn, std::move(watcher));
        if (started.has_value()) {
            return SpawnedVmm{.process = std::move(started->process),
                              .partition = std::move(started->partition),
                              .reason = {}};
        }
        const bool host_refuses = started.error().code() == ErrorCode::unsupported;
        if (!host_refuses || options.partition == PartitionPolicy::require) {
            return std::move(started.error());
        }
        reason = started.error().to_string();
        log::warn("service_partition_refused", {{"machine", options.machine}, {"reason", reason}});
    }
    return SpawnedVmm{.process = GODWIT_TRY(sys::Process::spawn(spawn)),
                      .partition = nullptr,
                      .reason = std::move(reason)};
}

} // namespace godwit::control
