/// What a VMM's service partition means to its instance: refusals, and the way out.

#include "base/fault_point.h"
#include "base/log.h"
#include "control/vmm_instance.h"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace godwit::control {

namespace {

constexpr std::chrono::milliseconds answer_time_max{5'000};

/// The answer to a request whose result does not matter.
Reply<Json> only_whether(Reply<void> done) {
    return Reply<Json>([done = std::move(done)](const Result<Json>& answer) mutable {
        done(answer.has_value() ? ok() : Status(answer.error()));
    });
}

} // namespace

void VmmInstance::refused(const std::string& what) {
    log::warn("partition_refused",
              {{"machine", machine_}, {"instance", id_}, {"vmm_pid", pid()}, {"what", what}});
    watcher_.vmm_refused(*this, what);
}

Json VmmInstance::partition_report() {
    return partition_ != nullptr ? partition_->report()
                                 : report_without_partition(partition_reason_);
}

/// The kernel shows host frames to who had the right to see them when it opened the file, and its
/// own memory is no secret to it: what it compares are the frames the source names.
void VmmInstance::show_frames(Reply<void> done) {
    if (partition_ == nullptr || ::geteuid() != 0) {
        done(ok());
        return;
    }
    const Result<sys::Fd> pagemap =
        sys::open("/proc/" + std::to_string(pid()) + "/pagemap", O_RDONLY);
    if (!pagemap.has_value()) {
        done(ok()); // It has ended, which is noticed elsewhere.
        return;
    }
    call("pagemap", Json::object(), answer_time_max, only_whether(std::move(done)), &*pagemap);
}

void VmmInstance::let_out(Reply<void> done) {
    const bool inside =
        partition_ != nullptr ? !partition_->has_left() : status_.value_or(VmmStatus{}).confined;
    if (let_out_asked_ || !inside) {
        done(ok());
        return;
    }
    const Result<sys::Fd> root = sys::open("/", O_PATH | O_DIRECTORY);
    if (!root.has_value()) {
        done(root.error());
        return;
    }
    let_out_asked_ = true;
    fault_point("control.let_out");
    const std::weak_ptr<VmmInstance> weak = weak_from_this();
    call("leave_partition",
         {{"uid", ::geteuid()}, {"gid", ::getegid()}},
         answer_time_max,
         Reply<Json>([weak, done = std::move(done)](const Result<Json>& answer) mutable {
             const auto self = weak.lock();
             if (self != nullptr && answer.has_value() && self->partition_ != nullptr) {
                 self->partition_->left();
             }
             if (self != nullptr && !answer.has_value()) {
                 self->let_out_asked_ = false; // Asked again when it changes.
                 log::error("partition_not_left",
                            {{"machine", self->machine_},
                             {"instance", self->id_},
                             {"reason", answer.error().to_string()}});
             }
             done(answer.has_value() ? ok() : Status(answer.error()));
         }),
         &*root);
}

} // namespace godwit::control
