#include "control/vmm_instance.h"

#include "base/log.h"
#include "base/units.h"
#include "control/vmm_spawn.h"
#include "sys/entropy.h"
#include "sys/stream.h"

#include <sys/epoll.h>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t ready_bytes_max = 64 * kib;
constexpr milliseconds status_time_max{5'000};
constexpr milliseconds retry_first{50};
constexpr milliseconds retry_max{2'000};
constexpr int ready_fd_number = 3;
constexpr int incoming_fd_number = 4;
constexpr int extra_fd_number = 5;

/// The ready line: {"ok":true} or {"error":{...}}.
Status outcome_of(std::string_view line) {
    const Result<Json> parsed = parse_json(line);
    if (!parsed.has_value() || !parsed->is_object()) {
        return Error(ErrorCode::corrupt, "godwit-vmm did not say whether it is ready");
    }
    if (parsed->contains("error")) {
        return error_of((*parsed)["error"]);
    }
    return ok();
}

std::vector<std::string>
arguments_of(const RunDirectory& run, const VmmLaunch& options, const std::string& id) {
    std::vector<std::string> arguments{"--machine",
                                       options.machine,
                                       "--run-dir",
                                       run.path(),
                                       "--instance",
                                       id,
                                       "--ready-fd",
                                       std::to_string(ready_fd_number)};
    arguments.insert(arguments.end(), options.source.begin(), options.source.end());
    if (options.incoming != nullptr) {
        arguments.insert(arguments.end(), {"--incoming-fd", std::to_string(incoming_fd_number)});
    }
    int number = extra_fd_number;
    for (const InheritedFd& extra : options.extra) {
        arguments.insert(arguments.end(), {extra.flag, std::to_string(number++)});
    }
    return arguments;
}

} // namespace

Result<std::string> fresh_instance_id() {
    std::uint32_t number = 0;
    GODWIT_TRY(sys::system_random().random_bytes(std::as_writable_bytes(std::span(&number, 1))));
    std::string text(8, '0');
    for (char& digit : text) {
        digit = "0123456789abcdef"[number & 0xFU];
        number >>= 4U;
    }
    return text;
}

VmmInstance::VmmInstance(sys::EventLoop& loop,
                         const RunDirectory& run,
                         std::string machine,
                         std::string id,
                         sys::Process process,
                         VmmWatcher& watcher)
    : loop_(loop), run_(run), machine_(std::move(machine)), id_(std::move(id)),
      process_(std::move(process)), watcher_(watcher) {}

VmmInstance::~VmmInstance() = default;

Result<std::shared_ptr<VmmInstance>> VmmInstance::launch(sys::EventLoop& loop,
                                                         const RunDirectory& run,
                                                         const VmmLaunch& options,
                                                         VmmWatcher& watcher,
                                                         Reply<void>& ready) {
    std::string id = GODWIT_TRY(fresh_instance_id());
    sys::Pipe pipe = GODWIT_TRY(sys::create_pipe());
    const sys::Fd log =
        GODWIT_TRY(sys::open(run.vmm_log(options.machine), O_WRONLY | O_CREAT | O_APPEND, 0600));
    sys::SpawnOptions spawn{.program = options.program,
                            .arguments = arguments_of(run, options, id),
                            .fds = {{.fd = &pipe.write_end, .number = ready_fd_number}},
                            .standard_error = &log,
                            .new_session = true};
    if (options.incoming != nullptr) {
        spawn.fds.push_back({.fd = options.incoming, .number = incoming_fd_number});
    }
    int number = extra_fd_number;
    for (const InheritedFd& extra : options.extra) {
        spawn.fds.push_back({.fd = extra.fd, .number = number++});
    }
    // The instance is made after its process, whose partition tells it things.
    const auto self = std::make_shared<VmmInstance*>(nullptr);
    SpawnedVmm spawned = GODWIT_TRY(
        spawn_vmm(loop, run, options, id, std::move(spawn), [self](const std::string& what) {
            if (*self != nullptr) {
                (*self)->refused(what);
            }
        }));
    std::shared_ptr<VmmInstance> made(new VmmInstance(
        loop, run, options.machine, std::move(id), std::move(spawned.process), watcher));
    *self = made.get();
    made->partition_ = std::move(spawned.partition);
    made->partition_reason_ = std::move(spawned.reason);
    pipe.write_end.reset();
    Status watched = made->watch_process();
    if (watched.has_value()) {
        watched = made->expect_ready(std::move(pipe.read_end), options.ready_time_max, ready);
    }
    if (!watched.has_value()) {
        made->kill("it cannot be watched");
        return std::move(watched.error());
    }
    log::info("vmm_started",
              {{"machine", made->machine_},
               {"instance", made->id_},
               {"vmm_pid", made->pid()},
               {"confined", made->partition_ != nullptr},
               {"program", options.program}});
    return made;
}

Result<std::shared_ptr<VmmInstance>> VmmInstance::adopt(sys::EventLoop& loop,
                                                        const RunDirectory& run,
                                                        const std::string& machine,
                                                        const std::string& id,
                                                        VmmWatcher& watcher) {
    // The kernel tells who listens; the pidfd is taken before the first answer comes from there, so
    // the number cannot have passed to another process in between.
    const sys::MessageSocket probe =
        GODWIT_TRY(sys::MessageSocket::connect(run.vmm_socket(machine, id)));
    const sys::PeerCredentials peer = GODWIT_TRY(probe.peer());
    sys::Process process = GODWIT_TRY(sys::Process::adopt(peer.pid));
    std::shared_ptr<VmmInstance> made(
        new VmmInstance(loop, run, machine, id, std::move(process), watcher));
    GODWIT_TRY(made->watch_process());
    GODWIT_TRY(made->connect());
    return made;
}

Status VmmInstance::watch_process() {
    process_watch_ = GODWIT_TRY(loop_.watch(process_.fd(), EPOLLIN, [this](std::uint32_t) {
        const std::shared_ptr<VmmInstance> keep = shared_from_this();
        process_ended();
    }));
    return ok();
}

Status VmmInstance::expect_ready(sys::Fd pipe, milliseconds time_max, Reply<void>& ready) {
    ready_pipe_ = std::move(pipe);
    GODWIT_TRY(sys::set_nonblocking(ready_pipe_));
    ready_watch_ = GODWIT_TRY(loop_.watch(ready_pipe_, EPOLLIN, [this](std::uint32_t) {
        const std::shared_ptr<VmmInstance> keep = shared_from_this();
        read_ready();
    }));
    ready_timer_ = GODWIT_TRY(loop_.schedule(time_max, {}, [this, time_max] {
        const std::shared_ptr<VmmInstance> keep = shared_from_this();
        kill("it was not ready in time");
        ready_decided(
            Error(ErrorCode::timeout,
                  "godwit-vmm was not ready within " + std::to_string(time_max.count()) + " ms"));
    }));
    ready_ = std::move(ready);
    return ok();
}

void VmmInstance::read_ready() {
    std::array<std::byte, 4096> bytes{};
    const Result<std::size_t> got = sys::read_some(ready_pipe_, bytes);
    if (!got.has_value()) {
        if (got.error().code() != ErrorCode::busy) {
            ready_decided(Error(got.error()));
        }
        return;
    }
    ready_text_.append(reinterpret_cast<const char*>(bytes.data()), *got);
    const std::size_t end = ready_text_.find('\n');
    if (end != std::string::npos) {
        ready_decided(outcome_of(std::string_view(ready_text_).substr(0, end)));
    } else if (ready_text_.size() > ready_bytes_max) {
        ready_decided(Error(ErrorCode::corrupt, "godwit-vmm said too much before it was ready"));
    } else if (*got == 0) {
        // The end of the process is noticed separately and knows the exit code.
        ready_watch_.reset();
    }
}

void VmmInstance::ready_decided(Status outcome) {
    ready_watch_.reset();
    ready_timer_.reset();
    ready_pipe_.reset();
    if (!ready_.pending()) {
        return;
    }
    if (outcome.has_value()) {
        connect_or_retry();
    }
    Reply<void> ready = std::move(ready_);
    ready(std::move(outcome));
}

void VmmInstance::connect_or_retry() {
    const Status done = connect();
    if (!done.has_value()) {
        trouble_ = done.error().to_string();
        retry_later();
        watcher_.vmm_changed(*this);
    }
}

Status VmmInstance::connect() {
    const std::weak_ptr<VmmInstance> weak = weak_from_this();
    VmmClient::Callbacks callbacks;
    callbacks.event = [weak](const Json& event) {
        if (const auto self = weak.lock(); self != nullptr) {
            self->watcher_.vmm_event(*self, event);
        }
    };
    callbacks.closed = [weak](const Error& reason) {
        if (const auto self = weak.lock(); self != nullptr) {
            self->client_.reset();
            self->trouble_ = reason.to_string();
            if (self->alive_) {
                // Mostly it ends and its pidfd tells so next; news only if it cannot be reached.
                self->retry_later();
            }
        }
    };
    std::shared_ptr<VmmClient> client =
        GODWIT_TRY(VmmClient::connect(loop_, run_.vmm_socket(machine_, id_), std::move(callbacks)));
    if (client->peer_pid() != pid()) {
        return Error(ErrorCode::conflict, "another process listens on the VMM's socket");
    }
    client_ = std::move(client);
    client_->call("subscribe", Json::object(), status_time_max, Reply<Json>());
    refresh_status(Reply<void>());
    return ok();
}

handover::InstanceId VmmInstance::instance() const noexcept {
    return handover::parse_instance_id(id_).value_or(handover::InstanceId{});
}

/// The record is shared memory: one look tells who owns the machine, however its processes are.
void VmmInstance::fetch_record() {
    if (client_ == nullptr || record_ != nullptr) {
        return;
    }
    const std::weak_ptr<VmmInstance> weak = weak_from_this();
    client_->call_for_fds(
        "owner_record",
        Json::object(),
        status_time_max,
        Reply<VmmAnswer>([weak](Result<VmmAnswer> answer) {
            const auto self = weak.lock();
            if (self == nullptr || !answer.has_value() || answer->fds.size() != 1) {
                return; // A successor has none before it is offered a machine.
            }
            auto record = handover::OwnerRecord::adopt(std::move(answer->fds[0]),
                                                       text_member(*answer->result, "machine_id"));
            if (!record.has_value()) {
                log::warn("owner_record_refused",
                          {{"machine", self->machine_}, {"reason", record.error().to_string()}});
                return;
            }
            self->record_ = std::make_shared<handover::OwnerRecord>(std::move(*record));
        }));
}

void VmmInstance::fetch_pool(Reply<VmmAnswer> reply) {
    if (client_ == nullptr) {
        reply(Error(ErrorCode::peer_closed, "no connection to the VMM: " + trouble_));
        return;
    }
    client_->call_for_fds("pool", Json::object(), status_time_max, std::move(reply));
}

void VmmInstance::retry_later() {
    retry_after_ = std::clamp(retry_after_ * 2, retry_first, retry_max);
    Result<sys::EventLoop::Handle> timer = loop_.schedule(retry_after_, {}, [this] {
        const std::shared_ptr<VmmInstance> keep = shared_from_this();
        if (client_ == nullptr) {
            connect_or_retry();
        } else {
            refresh_status(Reply<void>());
        }
    });
    if (timer.has_value()) {
        retry_timer_ = std::move(*timer);
    }
}

void VmmInstance::call(std::string_view method,
                       const Json& params,
                       milliseconds timeout,
                       Reply<Json> reply,
                       const sys::Fd* passed) {
    if (client_ == nullptr) {
        loop_.post([reply = std::move(reply), why = trouble_]() mutable {
            reply(Error(ErrorCode::peer_closed, "no connection to the VMM: " + why));
        });
        return;
    }
    client_->call(method, params, timeout, std::move(reply), passed);
}

void VmmInstance::refresh_status(Reply<void> done) {
    fetch_record(); // Answered before the status, so that who learns of that knows the owner too.
    const std::weak_ptr<VmmInstance> weak = weak_from_this();
    call("status",
         Json::object(),
         status_time_max,
         Reply<Json>([weak, done = std::move(done)](Result<Json> answer) mutable {
             const auto self = weak.lock();
             if (self == nullptr) {
                 return;
             }
             if (!answer.has_value()) {
                 self->trouble_ = answer.error().to_string();
                 // Without a connection the next attempt to get one brings the news.
                 if (self->alive_ && answer.error().code() != ErrorCode::peer_closed) {
                     self->retry_later();
                     self->watcher_.vmm_changed(*self);
                 }
                 done(std::move(answer.error()));
                 return;
             }
             self->status_ = vmm_status_of(*answer);
             self->trouble_.clear();
             self->retry_after_ = milliseconds(0);
             self->watcher_.vmm_changed(*self);
             done(ok());
         }));
}

void VmmInstance::kill(std::string_view why) {
    if (!alive_) {
        return;
    }
    log::warn("vmm_killed",
              {{"machine", machine_}, {"instance", id_}, {"vmm_pid", pid()}, {"why", why}});
    discard(process_.signal(SIGKILL), "it may be gone already");
}

void VmmInstance::process_ended() {
    const Result<std::optional<sys::ExitStatus>> ended = process_.wait(milliseconds(0));
    if (ended.has_value() && !ended->has_value()) {
        return;
    }
    const sys::ExitStatus exit = ended.has_value() ? **ended : sys::ExitStatus{};
    process_watch_.reset();
    retry_timer_.reset();
    if (ready_.pending()) {
        while (ready_.pending() && ready_watch_.active()) {
            const std::size_t before = ready_text_.size();
            read_ready();
            if (ready_text_.size() == before) {
                break;
            }
        }
        ready_decided(Error(ErrorCode::internal,
                            "godwit-vmm ended before it was ready (" + exit.to_string() +
                                "); see " + run_.vmm_log(machine_)));
    }
    alive_ = false;
    if (client_ != nullptr) {
        const std::shared_ptr<VmmClient> client = client_;
        client->drain();
    }
    client_.reset();
    trouble_ = "the process has ended (" + exit.to_string() + ")";
    log::info(
        "vmm_ended",
        {{"machine", machine_}, {"instance", id_}, {"vmm_pid", pid()}, {"how", exit.to_string()}});
    ::unlink(run_.vmm_socket(machine_, id_).c_str());
    watcher_.vmm_ended(*this, exit);
}

} // namespace godwit::control
