/// What only a process in a service partition is asked, by the godwitd that put it there.

#include "base/log.h"
#include "sys/confinement.h"
#include "vmm/service.h"

namespace godwit::vmm {

Status Service::take_page_map(std::vector<sys::Fd> fds) {
    if (!confined_ || fds.size() != 1) {
        return Error(ErrorCode::invalid_argument,
                     "the page map comes with one descriptor, to a process that is confined");
    }
    page_map_.set(std::move(fds.front()));
    return ok();
}

namespace {

Result<unsigned> id_of(const nlohmann::json& params, const char* key) {
    const auto found = params.find(key);
    if (found == params.end() || !found->is_number_unsigned() ||
        found->get<std::uint64_t>() >= UINT32_MAX) {
        return Error(ErrorCode::invalid_argument,
                     std::string("the parameter \"") + key + "\" is no user or group");
    }
    return found->get<unsigned>();
}

} // namespace

/// From here on this is a VMM like any other: it opens what it is asked to by its path.
Status Service::leave_partition(const ControlServer::Request& request) {
    if (!confined_) {
        return Error(ErrorCode::conflict, "this process is in no service partition");
    }
    if (role_ != Role::owner || request.fds.size() != 1) {
        return Error(ErrorCode::conflict,
                     "the owner of a machine leaves its service partition, by the descriptor of "
                     "the host's root directory");
    }
    const sys::Home home{.uid = GODWIT_TRY(id_of(request.params, "uid")),
                         .gid = GODWIT_TRY(id_of(request.params, "gid"))};
    GODWIT_TRY(sys::leave_confinement(request.fds.front(), home));
    confined_ = false;
    log::info("partition_left", {{"machine", options_.machine}, {"uid", home.uid}});
    control_->adopt_path();
    listen_consoles();
    if (job_name_.empty() && std::exchange(reboot_pending_, false)) {
        guest_stopped(machine::StopReason::rebooted, "while in the service partition");
    }
    return ok();
}

} // namespace godwit::vmm
