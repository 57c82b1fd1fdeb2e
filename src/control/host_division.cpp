#include "control/host_division.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "control/division_words.h"
#include "control/supervisor.h"
#include "sys/entropy.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>

namespace godwit::control {

namespace partition = exchange::partition;
using partition::CpuSet;
using partition::InstanceId;
using partition::MessageType;
using partition::Side;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds launch_time_max{20'000};
constexpr int join_fd_number = 3;

Result<InstanceId> fresh_instance(InstanceId other) {
    InstanceId made;
    while (made.value == 0 || made == other) {
        GODWIT_TRY(
            sys::system_random().random_bytes(std::as_writable_bytes(std::span(&made.value, 1))));
    }
    return made;
}

CpuSet without(const CpuSet& all, const CpuSet& some) {
    CpuSet rest;
    std::ranges::set_difference(all, some, std::inserter(rest, rest.end()));
    return rest;
}

} // namespace

std::size_t cpus_to_keep(std::size_t had, std::size_t left, std::size_t total) {
    const std::size_t share = total == 0 ? 0 : (had * left + total - 1) / total;
    return std::max<std::size_t>(1, share);
}

HostDivision::HostDivision(Supervisor& supervisor,
                           DivisionRequest request,
                           std::function<void(const Error&)> lost)
    : supervisor_(supervisor), request_(std::move(request)), lost_(std::move(lost)) {}

HostDivision::~HostDivision() = default;

void HostDivision::arm(milliseconds delay, void (HostDivision::*action)()) {
    Result<sys::EventLoop::Handle> timer =
        supervisor_.parts_.loop.schedule(delay, {}, [weak = weak_from_this(), action] {
            if (const auto self = weak.lock()) {
                (self.get()->*action)();
            }
        });
    if (timer.has_value()) {
        timer_ = std::move(*timer);
    } else {
        log::error("division_timer_missing", {{"reason", timer.error().to_string()}});
    }
}

void HostDivision::open(Reply<void> opened) {
    opened_ = std::move(opened);
    Status begun = begin();
    if (!begun.has_value()) {
        opened_(std::move(begun));
    }
}

Status HostDivision::begin() {
    fault_point("control.division.1");
    GODWIT_TRY(make_region());
    fault_point("control.division.2");
    GODWIT_TRY(divide());
    GODWIT_TRY(partition_cpus());
    fault_point("control.division.3");
    GODWIT_TRY(start_heir());
    GODWIT_TRY(watch_heir());
    GODWIT_TRY(heir_cpus_->add_process(heir_->pid())); // It does nothing before its welcome.
    GODWIT_TRY(welcome());
    arm(division::greeting_time_max, &HostDivision::check_beside);
    return ok();
}

Status HostDivision::make_region() {
    GODWIT_TRY(supervisor_.pool_.make());
    memory::Pool& pool = *supervisor_.pool_.pool();
    const InstanceId self{supervisor_.pool_.self().value};
    region_ =
        GODWIT_TRY(partition::Region::create({.old_instance = self,
                                              .new_instance = GODWIT_TRY(fresh_instance(self)),
                                              .pool_id = pool.table().pool_id()}));
    own_bell_ = GODWIT_TRY(sys::EventFd::create());
    heir_bell_ = GODWIT_TRY(sys::EventFd::create());
    // What this instance writes down last lies in memory of its own, which it needs until its end.
    own_memory_ =
        GODWIT_TRY(pool.allocate(supervisor_.pool_.self(), 1, memory::Purpose::instance, self.value)
                       .with_context("memory of the old instance"));
    old_.emplace(GODWIT_TRY(partition::OldInstance::create({.pool = pool,
                                                            .region = *region_,
                                                            .clock = supervisor_.parts_.clock,
                                                            .self = Side::old_instance,
                                                            .doorbell = &*heir_bell_})));
    return ok();
}

Status HostDivision::divide() {
    host_cpus_ = GODWIT_TRY(partition::allowed_cpus(::getpid()));
    frames_given_ = supervisor_.pool_.free_frames() / 2;
    return old_->partition(
        {.frames = frames_given_, .cpus = request_.target_cpus, .host_cpus = host_cpus_});
}

/// Ourselves and our VMMs on our part; the new godwitd starts what it takes on its own.
Status HostDivision::partition_cpus() {
    own_cpus_ = GODWIT_TRY(partition::CpuPartition::create(
        division::cpu_partition_name(region_->names().old_instance.value),
        without(host_cpus_, request_.target_cpus)));
    GODWIT_TRY(own_cpus_->add_process(::getpid()));
    for (const auto& [name, entry] : supervisor_.machines_) {
        if (entry->owner != nullptr && entry->owner->alive()) {
            GODWIT_TRY(own_cpus_->add_process(entry->owner->pid()));
        }
    }
    heir_cpus_ = GODWIT_TRY(partition::CpuPartition::create(
        division::cpu_partition_name(region_->names().new_instance.value), request_.target_cpus));
    return ok();
}

Status HostDivision::start_heir() {
    auto [ours, theirs] = GODWIT_TRY(sys::MessageSocket::pair());
    std::vector<std::string> arguments{"--run-dir",
                                       supervisor_.parts_.run.path(),
                                       "--vmm",
                                       request_.vmm_program,
                                       "--join-fd",
                                       std::to_string(join_fd_number)};
    const auto& kept = supervisor_.parts_.succession.arguments;
    arguments.insert(arguments.end(), kept.begin(), kept.end());
    heir_ = GODWIT_TRY(sys::Process::spawn({.program = request_.daemon_program,
                                            .arguments = std::move(arguments),
                                            .fds = {{.fd = &theirs.fd(), .number = join_fd_number}},
                                            .standard_error = nullptr,
                                            .new_session = true}));
    heir_lives_ = true;
    socket_ = std::move(ours);
    log::info("heir_started", {{"heir_pid", heir_->pid()}, {"program", request_.daemon_program}});
    return ok();
}

Status HostDivision::watch_heir() {
    sys::EventLoop& loop = supervisor_.parts_.loop;
    const auto weak = weak_from_this();
    const auto calling = [weak](void (HostDivision::*action)()) {
        return [weak, action](auto...) {
            if (const auto self = weak.lock()) {
                (self.get()->*action)();
            }
        };
    };
    heir_watch_ = GODWIT_TRY(loop.watch(heir_->fd(), EPOLLIN, calling(&HostDivision::heir_ended)));
    socket_watch_ = GODWIT_TRY(loop.watch(socket_->fd(), EPOLLIN, calling(&HostDivision::hear)));
    bell_watch_ =
        GODWIT_TRY(loop.watch(own_bell_->fd(), EPOLLIN, calling(&HostDivision::look_at_news)));
    tick_ = GODWIT_TRY(
        loop.schedule(division::beat_period, division::beat_period, calling(&HostDivision::tick)));
    return ok();
}

Status HostDivision::welcome() {
    const memory::Pool& pool = *supervisor_.pool_.pool();
    const Json message{{"message", "welcome"},
                       {"protocol", division::protocol},
                       {"operation", request_.operation}};
    const std::array<const sys::Fd*, division::welcome_descriptors> fds{
        &pool.memory_fd(),
        &pool.table().fd(),
        &region_->fd(),
        supervisor_.parts_.succession.lock,
        &heir_bell_->fd(),
        &own_bell_->fd()};
    return socket_->send(json_text(message), fds);
}

void HostDivision::tick() {
    region_->beat(Side::old_instance, supervisor_.parts_.clock.now());
    look_at_news();
}

void HostDivision::look_at_news() {
    own_bell_->drain();
    const auto news = old_->mover().news();
    if (!news.has_value()) {
        fail(news.error());
        return;
    }
    for (const partition::News& item : *news) {
        if (item.type == MessageType::hello && opened_.pending()) {
            greeted();
        } else if (item.type == MessageType::estate_refused && failed_.pending()) {
            const Status back = old_->estate_refused(item.value);
            timer_.reset();
            failed_(back.has_value()
                        ? Error(ErrorCode::conflict, "the new godwitd does not accept the estate")
                        : back.error());
        }
    }
}

void HostDivision::greeted() {
    fault_point("control.division.4");
    met_at_ = supervisor_.parts_.clock.now();
    met_beats_ = {region_->beats(Side::old_instance), region_->beats(Side::new_instance)};
    arm(division::beside_min, &HostDivision::check_beside);
}

/// Both have run at the same time, or one of them has not (requirement MP-1).
void HostDivision::check_beside() {
    if (!opened_.pending()) {
        return;
    }
    if (met_at_ == sys::Moment()) {
        opened_(Error(ErrorCode::timeout, "the new godwitd did not say hello in time"));
        return;
    }
    together_us_ = sys::microseconds_between(met_at_, supervisor_.parts_.clock.now());
    beats_together_ = {region_->beats(Side::old_instance) - met_beats_[0],
                       region_->beats(Side::new_instance) - met_beats_[1]};
    if (std::ranges::min(beats_together_) < division::beats_beside_min) {
        opened_(Error(
            ErrorCode::timeout,
            "the two instances do not run side by side: " + std::to_string(beats_together_[0]) +
                " and " + std::to_string(beats_together_[1]) + " heartbeats within a second"));
        return;
    }
    log::info("instances_side_by_side",
              {{"microseconds", together_us_},
               {"old_beats", beats_together_[0]},
               {"new_beats", beats_together_[1]}});
    opened_(ok());
}

void HostDivision::fail(const Error& why) {
    if (aborting_) {
        return;
    }
    log::warn("division_failed", {{"reason", why.to_string()}});
    launch_failed(why);
    if (opened_.pending()) {
        opened_(why);
    } else if (lost_ && !failed_.pending()) {
        std::exchange(lost_, {})(why);
    } else if (failed_.pending()) {
        failed_(why);
    }
}

// -- step 5: machines -------------------------------------------------------------------------

void HostDivision::launch(const std::string& machine,
                          sys::Fd incoming,
                          Reply<std::shared_ptr<VmmInstance>> launched) {
    fault_point("control.division.5");
    launch_.emplace(
        Launch{.machine = machine, .slot = 0, .reply = std::move(launched), .timer = {}});
    const Status offered = heir_lives_
                               ? offer(machine, incoming)
                               : Status(Error(ErrorCode::peer_closed, "the new godwitd has ended"));
    if (!offered.has_value()) {
        launch_failed(offered.error());
        return;
    }
    Result<sys::EventLoop::Handle> timer =
        supervisor_.parts_.loop.schedule(launch_time_max, {}, [weak = weak_from_this()] {
            if (const auto self = weak.lock()) {
                self->launch_failed(
                    Error(ErrorCode::timeout, "the new godwitd did not start the machine's VMM"));
            }
        });
    if (timer.has_value()) {
        launch_->timer = std::move(*timer);
    }
}

Status HostDivision::offer(const std::string& machine, const sys::Fd& incoming) {
    partition::ProgramMover& mover = old_->mover();
    Move move{.slot = GODWIT_TRY(mover.give({.name = machine,
                                             .kind = partition::ProgramKind::machine,
                                             .tag = HostPool::tag_of(machine)}))};
    const auto program = GODWIT_TRY(region_->read_program(move.slot));
    move.extents = program.memory.size();
    for (const memory::Extent& extent : program.memory) {
        move.frames += extent.run.frames;
    }
    moves_[machine] = move;
    launch_->slot = move.slot;
    const auto word = region_->program_owner(move.slot);
    const Json message{{"message", "take"},
                       {"machine", machine},
                       {"slot", move.slot},
                       {"epoch", word.has_value() ? word->epoch : 0}};
    const std::array<const sys::Fd*, 1> fds{&incoming};
    return socket_->send(json_text(message), fds);
}

void HostDivision::launch_failed(const Error& why) {
    if (!launch_.has_value()) {
        return;
    }
    Launch gone = std::move(*launch_);
    launch_.reset();
    gone.reply(why);
}

void HostDivision::hear() {
    Result<sys::Message> message = socket_->receive(milliseconds(0));
    if (!message.has_value()) {
        if (message.error().code() != ErrorCode::timeout) {
            socket_watch_.reset(); // Its end is noticed by itself.
        }
        return;
    }
    const Result<Json> answer = parse_json(message->bytes);
    if (!answer.has_value()) {
        fail(Error(ErrorCode::corrupt, "the new godwitd says what makes no sense"));
        return;
    }
    answered(*answer);
}

void HostDivision::answered(const Json& answer) {
    if (!launch_.has_value() || number_member(answer, "slot") != launch_->slot) {
        return; // Of one that was given up.
    }
    if (text_member(answer, "message") != "taken") {
        launch_failed(error_of(answer.value("error", Json())));
        return;
    }
    const std::string id = text_member(answer, "instance");
    if (!is_instance_id(id)) {
        launch_failed(Error(ErrorCode::corrupt, "the new godwitd names no VMM"));
        return;
    }
    Result<std::shared_ptr<VmmInstance>> vmm = VmmInstance::adopt(
        supervisor_.parts_.loop, supervisor_.parts_.run, launch_->machine, id, supervisor_);
    if (!vmm.has_value()) {
        launch_failed(vmm.error());
        return;
    }
    Launch done = std::move(*launch_);
    launch_.reset();
    done.reply(std::move(*vmm));
}

void HostDivision::exchange_ended(const std::string& machine, bool arrived) {
    const auto found = moves_.find(machine);
    if (found == moves_.end()) {
        return;
    }
    if (arrived) {
        found->second.arrived = true;
        give_freed_cpus();
        return;
    }
    // The machine is ours by its record, and its successor has ended: so is its memory.
    const Status back = old_->mover().take_back_claimed(found->second.slot);
    if (!back.has_value()) {
        log::error("memory_not_taken_back",
                   {{"machine", machine}, {"reason", back.error().to_string()}});
    }
    moves_.erase(found);
}

/// Requirement MP-4: CPUs follow the machines; the last one is bequeathed.
void HostDivision::give_freed_cpus() {
    const auto arrived = static_cast<std::size_t>(
        std::ranges::count_if(moves_, [](const auto& move) { return move.second.arrived; }));
    const std::size_t left = request_.machines > arrived ? request_.machines - arrived : 0;
    const std::size_t keep =
        cpus_to_keep(host_cpus_.size() - request_.target_cpus.size(), left, request_.machines);
    CpuSet ours;
    for (const std::uint32_t cpu : region_->cpus_of(region_->names().old_instance)) {
        ours.insert(cpu);
    }
    CpuSet kept = ours;
    while (kept.size() > keep) {
        kept.erase(std::prev(kept.end()));
    }
    if (kept == ours) {
        return;
    }
    Status given = own_cpus_->set_cpus(kept); // Before the other side may use them.
    for (const std::uint32_t cpu : without(ours, kept)) {
        given = given.has_value() ? old_->mover().give_cpu(cpu) : given;
    }
    if (!given.has_value()) {
        fail(given.error());
    }
}

Json HostDivision::facts() const {
    Json moves = Json::array();
    for (const auto& [name, move] : moves_) {
        if (move.arrived) {
            moves.push_back(
                {{"machine", name}, {"extents", move.extents}, {"frames", move.frames}});
        }
    }
    Json facts{{"target_cpus", partition::to_string(request_.target_cpus)},
               {"host_cpus", partition::to_string(host_cpus_)},
               {"cpus_by", nullptr},
               {"cpus_note", nullptr},
               {"instances", Json::array()},
               {"together_us", together_us_},
               {"beats_together", beats_together_},
               {"frames_given", frames_given_},
               {"moves", std::move(moves)},
               {"estate", nullptr}};
    if (own_cpus_.has_value()) {
        facts["cpus_by"] = partition::name_of(own_cpus_->mechanism());
        facts["cpus_note"] = own_cpus_->note();
    }
    if (region_.has_value()) {
        facts["instances"] = {region_->names().old_instance.value,
                              region_->names().new_instance.value};
    }
    return facts;
}

} // namespace godwit::control
