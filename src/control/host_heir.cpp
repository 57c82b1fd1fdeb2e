#include "control/host_heir.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "control/division_words.h"
#include "control/event_log.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>

namespace godwit::control {

namespace partition = exchange::partition;
using partition::MessageType;
using partition::NewStage;
using partition::Side;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds welcome_time_max{10'000};
constexpr milliseconds ready_time_max{15'000};

} // namespace

HostHeir::HostHeir(sys::EventLoop& loop,
                   const RunDirectory& run,
                   std::string vmm_program,
                   sys::MessageSocket socket)
    : loop_(loop), run_(run), vmm_program_(std::move(vmm_program)), socket_(std::move(socket)),
      report_(std::make_unique<Json>()) {}

HostHeir::~HostHeir() = default;

Result<std::unique_ptr<HostHeir>> HostHeir::join(sys::EventLoop& loop,
                                                 const RunDirectory& run,
                                                 const std::string& vmm_program,
                                                 sys::Fd socket) {
    std::unique_ptr<HostHeir> made(
        new HostHeir(loop, run, vmm_program, sys::MessageSocket(std::move(socket))));
    GODWIT_TRY(made->welcomed(GODWIT_TRY(
        made->socket_.receive(welcome_time_max).with_context("wait for the old godwitd"))));
    GODWIT_TRY(made->watch());
    GODWIT_TRY(made->instance_->hello());
    return made;
}

/// Everything in the message is checked before anything of it is used.
Status HostHeir::welcomed(sys::Message message) {
    const Json words = GODWIT_TRY(parse_json(message.bytes));
    if (text_member(words, "message") != "welcome" ||
        message.fds.size() != division::welcome_descriptors) {
        return Error(ErrorCode::corrupt, "the old godwitd does not welcome this one");
    }
    if (number_member(words, "protocol") != division::protocol) {
        return Error(ErrorCode::unsupported,
                     "the old godwitd speaks partition protocol " +
                         std::to_string(number_member(words, "protocol")) + ", this one " +
                         std::to_string(division::protocol));
    }
    operation_ = number_member(words, "operation");
    pool_ = GODWIT_TRY(memory::Pool::adopt(std::move(message.fds[0]), std::move(message.fds[1])));
    region_ = GODWIT_TRY(partition::Region::adopt(std::move(message.fds[2])));
    lock_ = GODWIT_TRY(sys::FileLock::inherit(std::move(message.fds[3])));
    own_bell_.emplace(std::move(message.fds[4]));
    old_bell_.emplace(std::move(message.fds[5]));
    std::vector<sys::Process> old_processes;
    const sys::PeerCredentials peer = GODWIT_TRY(socket_.peer());
    old_processes.push_back(GODWIT_TRY(sys::Process::adopt(peer.pid)));
    witness_ = std::make_unique<partition::ProcessWitness>(
        *region_, Side::old_instance, std::move(old_processes), sys::Fd());
    cpus_ = GODWIT_TRY(partition::CpuPartition::create(
        division::cpu_partition_name(region_->names().new_instance.value),
        GODWIT_TRY(partition::allowed_cpus(::getpid()))));
    GODWIT_TRY(cpus_->add_process(::getpid()));
    instance_.emplace(GODWIT_TRY(partition::NewInstance::create({.pool = *pool_,
                                                                 .region = *region_,
                                                                 .clock = sys::system_clock(),
                                                                 .self = Side::new_instance,
                                                                 .doorbell = &*old_bell_},
                                                                *witness_,
                                                                {})));
    return ok();
}

Status HostHeir::watch() {
    tick_ = GODWIT_TRY(
        loop_.schedule(division::beat_period, division::beat_period, [this] { tick(); }));
    bell_watch_ =
        GODWIT_TRY(loop_.watch(own_bell_->fd(), EPOLLIN, [this](std::uint32_t) { tick(); }));
    socket_watch_ =
        GODWIT_TRY(loop_.watch(socket_.fd(), EPOLLIN, [this](std::uint32_t) { hear(); }));
    return ok();
}

Result<bool> HostHeir::serve(const sys::EventFd& stop) {
    const sys::EventLoop::Handle stopping =
        GODWIT_TRY(loop_.watch(stop.fd(), EPOLLIN, [&](std::uint32_t) {
            stop.drain();
            over(false);
        }));
    log::info("heir_beside", {{"operation", operation_}});
    GODWIT_TRY(loop_.run());
    return ours_.value_or(false);
}

void HostHeir::over(bool ours) {
    ours_ = ours;
    for (const auto& [machine, guest] : guests_) {
        // Its giver has never heard of it, so nobody can hand it a machine.
        if (!guest.started && guest.vmm != nullptr) {
            guest.vmm->kill("nobody waits for it any more");
        }
    }
    tick_.reset();
    wake_.reset();
    bell_watch_.reset();
    socket_watch_.reset();
    loop_.stop();
}

void HostHeir::tick() {
    own_bell_->drain();
    region_->beat(Side::new_instance, sys::system_clock().now());
    const Status looked = look_at_news();
    if (!looked.has_value()) {
        log::error("heir_gives_up", {{"reason", looked.error().to_string()}});
        over(false);
    }
    if (!ours_.has_value()) {
        settle();
    }
}

Status HostHeir::look_at_news() {
    for (const partition::News& news : GODWIT_TRY(instance_->mover().news())) {
        if (news.type == MessageType::goodbye) {
            log::info("heir_dismissed");
            over(false);
            return ok();
        }
        if (news.type == MessageType::cpu) {
            GODWIT_TRY(widen());
        }
    }
    return ok();
}

/// The CPUs whose tokens are ours by now.
Status HostHeir::widen() {
    partition::CpuSet all = cpus_->cpus();
    for (const std::uint32_t cpu : region_->cpus_of(region_->names().new_instance)) {
        all.insert(cpu);
    }
    return cpus_->set_cpus(all);
}

void HostHeir::settle() {
    const Result<NewStage> stage = instance_->settle_estate();
    if (!stage.has_value()) {
        log::error("estate_not_settled", {{"reason", stage.error().to_string()}});
        return; // The next tick goes on where it stopped.
    }
    if (*stage == NewStage::done) {
        // First what the old one has left: two partitions cannot have the same CPU.
        partition::CpuPartition::remove_left(
            division::cpu_partition_name(region_->names().old_instance.value));
        const Status wider = widen();
        if (!wider.has_value()) {
            log::warn("cpus_not_taken", {{"reason", wider.error().to_string()}});
        }
        // All of it is ours: nothing is divided any more.
        partition::CpuPartition::remove_left(
            division::cpu_partition_name(region_->names().new_instance.value));
        complete_report();
        over(true);
        return;
    }
    const auto wake_at = instance_->wake_at();
    if (!wake_at.has_value()) {
        return;
    }
    const auto delay = std::max(*wake_at - sys::system_clock().now(), sys::Nanoseconds(1));
    Result<sys::EventLoop::Handle> timer = loop_.schedule(delay, {}, [this] { tick(); });
    if (timer.has_value()) {
        wake_ = std::move(*timer);
    }
}

// -- machines -----------------------------------------------------------------------------------

void HostHeir::hear() {
    Result<sys::Message> message = socket_.receive(milliseconds(0));
    if (!message.has_value()) {
        if (message.error().code() != ErrorCode::timeout) {
            socket_watch_.reset(); // What it means, the witness says.
        }
        return;
    }
    const Status done = heard(std::move(*message));
    if (!done.has_value()) {
        log::warn("heir_misunderstood", {{"reason", done.error().to_string()}});
    }
}

Status HostHeir::heard(sys::Message message) {
    const Json words = GODWIT_TRY(parse_json(message.bytes));
    const std::string kind = text_member(words, "message");
    if (kind == "testament") {
        return read_testament(words);
    }
    if (kind != "take" || message.fds.size() != 1) {
        return Error(ErrorCode::corrupt, "the old godwitd sent '" + kind.substr(0, 40) + "'");
    }
    const std::size_t slot = number_member(words, "slot");
    Status taken =
        launch(text_member(words, "machine"), slot, number_member(words, "epoch"), message.fds[0]);
    if (!taken.has_value()) {
        answer({{"message", "refused"}, {"slot", slot}, {"error", json_of(taken.error())}});
    }
    return taken;
}

Status HostHeir::launch(const std::string& machine,
                        std::size_t slot,
                        std::uint64_t epoch,
                        const sys::Fd& end) {
    fault_point("control.heir.take");
    GODWIT_TRY(check_machine_name(machine));
    // The VMM checks again, and claims; what is no good need not be started.
    GODWIT_TRY(instance_->mover().look(
        {.type = MessageType::offer, .subject = static_cast<std::uint32_t>(slot), .value = epoch}));
    Reply<void> ready(
        [this, machine, slot](const Status& outcome) { launched(machine, slot, outcome); });
    const VmmLaunch options{
        .program = vmm_program_,
        .machine = machine,
        .source = {"--region-slot", std::to_string(slot), "--region-epoch", std::to_string(epoch)},
        .incoming = &end,
        .extra = {{.flag = "--pool-fd", .fd = &pool_->memory_fd()},
                  {.flag = "--pool-table-fd", .fd = &pool_->table().fd()},
                  {.flag = "--region-fd", .fd = &region_->fd()}},
        .ready_time_max = ready_time_max};
    Result<std::shared_ptr<VmmInstance>> vmm =
        VmmInstance::launch(loop_, run_, options, *this, ready);
    if (!vmm.has_value()) {
        ready.dismiss();
        return std::move(vmm.error());
    }
    discard(cpus_->add_process((*vmm)->pid()), "it may have ended; it was started on our CPUs");
    guests_[machine] = Guest{.vmm = std::move(*vmm), .slot = slot};
    return ok();
}

void HostHeir::launched(const std::string& machine, std::size_t slot, const Status& outcome) {
    const auto found = guests_.find(machine);
    if (found == guests_.end() || found->second.slot != slot) {
        return;
    }
    found->second.started = outcome.has_value();
    if (outcome.has_value()) {
        answer({{"message", "taken"}, {"slot", slot}, {"instance", found->second.vmm->id()}});
    } else {
        answer({{"message", "refused"}, {"slot", slot}, {"error", json_of(outcome.error())}});
    }
}

void HostHeir::answer(const Json& message) {
    const Status sent = socket_.send(json_text(message));
    if (!sent.has_value()) {
        log::warn("heir_not_heard", {{"reason", sent.error().to_string()}});
    }
}

void HostHeir::vmm_changed(VmmInstance& vmm) {
    const auto found = guests_.find(vmm.machine());
    if (found == guests_.end() || found->second.vmm.get() != &vmm || found->second.told ||
        !instance_.has_value() || !vmm.status().has_value() || vmm.status()->role != "owner") {
        return;
    }
    found->second.told = true;
    const Status told = instance_->mover().running({.slot = found->second.slot, .program = {}});
    if (!told.has_value()) {
        log::warn("running_not_told",
                  {{"machine", vmm.machine()}, {"reason", told.error().to_string()}});
    }
}

void HostHeir::vmm_event(VmmInstance& vmm, const Json& event) {
    if (text_member(event, "event") == "state") {
        vmm.refresh_status(Reply<void>());
    }
}

/// It starts its VMMs unconfined: they claim extents of the pool, which takes rights.
void HostHeir::vmm_refused(VmmInstance& vmm, const std::string& what) {
    log::warn("heir_vmm_refused", {{"machine", vmm.machine()}, {"what", what}});
}

void HostHeir::vmm_ended(VmmInstance& vmm, const sys::ExitStatus& exit) {
    log::info("heir_vmm_ended", {{"machine", vmm.machine()}, {"how", exit.to_string()}});
    const auto found = guests_.find(vmm.machine());
    if (found != guests_.end() && found->second.vmm.get() == &vmm) {
        // Not here: it is in the middle of its last words.
        loop_.post([gone = std::move(found->second.vmm)] {});
        guests_.erase(found);
    }
}

// -- the end --------------------------------------------------------------------------------------

/// The old godwitd's last report lies in memory of its own, which is scrubbed when it is claimed.
Status HostHeir::read_testament(const Json& message) {
    const std::uint64_t offset = number_member(message, "offset");
    const std::uint64_t bytes = number_member(message, "bytes");
    if (bytes > division::testament_bytes_max || offset > pool_->bytes() ||
        bytes > pool_->bytes() - offset) {
        return Error(ErrorCode::corrupt, "the old godwitd's report lies nowhere");
    }
    std::string text(bytes, '\0');
    GODWIT_TRY(
        sys::pread_exact(pool_->memory_fd(), std::as_writable_bytes(std::span(text)), offset));
    JsonLimits limits;
    limits.bytes_max = division::testament_bytes_max;
    *report_ = GODWIT_TRY(parse_json(text, limits));
    return ok();
}

void HostHeir::complete_report() {
    const partition::Legacy& legacy = instance_->legacy();
    Json estate{{"extents_claimed", legacy.claimed.size()},
                {"frames_scrubbed", legacy.frames_scrubbed},
                {"cpus", legacy.cpus},
                {"programs", legacy.programs.size()},
                {"notice_us", nullptr},
                {"waited_us", nullptr}};
    if (const auto& written = instance_->estate(); written.has_value()) {
        const sys::Moment now = sys::system_clock().now();
        estate["notice_us"] = sys::microseconds_between(written->written_at, written->deadline);
        estate["waited_us"] = sys::microseconds_between(written->written_at, now);
    }
    log::info("everything_inherited",
              {{"extents", legacy.claimed.size()}, {"frames_scrubbed", legacy.frames_scrubbed}});
    if (!report_->is_object() || !report_->contains("partition")) {
        return;
    }
    const auto all = pool_->table().snapshot();
    const auto proven =
        all.has_value() ? pool_->table().prove(*all) : Result<std::size_t>(all.error());
    (*report_)["partition"]["estate"] = std::move(estate);
    if (!proven.has_value()) {
        log::warn("pool_changes_not_proven", {{"reason", proven.error().to_string()}});
    }
    (*report_)["partition"]["changes_proven"] = proven.has_value() ? Json(*proven) : Json();
    (*report_)["finished"] = time_text(sys::system_clock().unix_nanoseconds());
}

HostHeir::Inheritance HostHeir::take() {
    instance_.reset();
    return {.pool = std::move(*pool_),
            .self = {region_->names().new_instance.value},
            .lock = std::move(*lock_),
            .operation = operation_,
            .report = std::exchange(report_, std::make_unique<Json>())};
}

} // namespace godwit::control
