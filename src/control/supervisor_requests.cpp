/// What the API asks of a running machine.

#include "base/log.h"
#include "base/units.h"
#include "control/exchange_run.h"
#include "control/recover_run.h"
#include "control/supervisor.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <filesystem>

namespace godwit::control {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds request_time_max{10'000};
constexpr milliseconds info_time_max{3'000};
constexpr milliseconds force_time_max{2'000};
/// How long after the asked time the VMM may still say what became of a stop.
constexpr milliseconds stop_grace{5'000};
/// A snapshot may take this long plus the time to write all memory at this rate.
constexpr milliseconds snapshot_base_time{120'000};
constexpr std::uint64_t snapshot_bytes_per_ms_min = 16 * kib;

Status check_directory_path(const std::string& path) {
    if (!std::filesystem::path(path).is_absolute()) {
        return Error(ErrorCode::invalid_argument,
                     "request: /directory is '" + path + "': must be an absolute path");
    }
    return ok();
}

Error in_doubt(const MachineEntry& entry) {
    return Error(ErrorCode::conflict,
                 "not every process of machine '" + entry.document.name +
                     "' could be reached: " + entry.doubt + "; it is tried again every second");
}

} // namespace

void Supervisor::info(const std::string& name, Reply<Json> reply) {
    const Result<MachineEntry*> found = find_or_error(name);
    if (!found.has_value()) {
        reply(found.error());
        return;
    }
    if ((*found)->owner == nullptr || (*found)->starting) {
        reply(summary(**found));
        return;
    }
    const std::shared_ptr<VmmInstance> owner = (*found)->owner;
    owner->call("info",
                Json::object(),
                info_time_max,
                Reply<Json>([this, name, reply = std::move(reply)](Result<Json> answer) mutable {
                    MachineEntry* const entry = find(name);
                    if (entry == nullptr) {
                        reply(Error(ErrorCode::not_found, "machine '" + name + "' has just ended"));
                        return;
                    }
                    Json body = summary(*entry);
                    if (answer.has_value()) {
                        for (const char* member : {"spec", "statistics", "consoles"}) {
                            body[member] =
                                answer->is_object() ? answer->value(member, Json()) : Json();
                        }
                    } else {
                        body["trouble"] = answer.error().to_string();
                    }
                    reply(std::move(body));
                }));
}

Result<Json> Supervisor::reports(const std::string& name) const {
    const MachineEntry* const entry = GODWIT_TRY(find_or_error(name));
    Json list = Json::array();
    for (const std::string& text : entry->reports) {
        list.push_back(GODWIT_TRY(parse_json(text)));
    }
    return list;
}

void Supervisor::ask(const std::string& name,
                     std::string_view method,
                     const Json& params,
                     Reply<Json> reply) {
    const Result<MachineEntry*> found = find_idle(name);
    if (!found.has_value()) {
        reply(found.error());
        return;
    }
    const std::weak_ptr<VmmInstance> weak = (*found)->owner;
    (*found)->owner->call(
        method,
        params,
        request_time_max,
        Reply<Json>([weak, reply = std::move(reply)](Result<Json> answer) mutable {
            const auto owner = weak.lock();
            if (owner == nullptr) {
                reply(std::move(answer));
                return;
            }
            // The caller sees the new state, or learns that the VMM hangs.
            owner->refresh_status(
                Reply<void>([reply = std::move(reply), answer = std::move(answer)](
                                const Status&) mutable { reply(std::move(answer)); }));
        }));
}

Result<std::uint64_t> Supervisor::stop(const std::string& name, StopRequest request) {
    MachineEntry* const entry =
        request.force ? GODWIT_TRY(find_or_error(name)) : GODWIT_TRY(find_idle(name));
    if (entry->owner == nullptr && entry->others.empty() && !entry->doubt.empty()) {
        return in_doubt(*entry);
    }
    if (request.force) {
        GODWIT_TRY(check_disks_complete(name));
    }
    const auto operation = std::make_shared<std::uint64_t>(0);
    *operation = parts_.operations.begin("stop", name, [this, operation]() -> Status {
        parts_.operations.fail(
            *operation,
            Error(ErrorCode::cancelled, "nobody waits for the guest any more; it may still stop"),
            Json());
        return ok();
    });
    std::erase_if(entry->stop_operations,
                  [this](std::uint64_t id) { return !parts_.operations.running(id); });
    entry->stop_operations.push_back(*operation);
    if (request.force) {
        force_stop(*entry);
    } else {
        entry->operation = *operation;
        press_power_button(*entry, *operation, request);
    }
    return *operation;
}

void Supervisor::force_stop(MachineEntry& entry) {
    entry.end = MachineEnd{.reason = "killed", .detail = "stopped by force"};
    const auto others = entry.others;
    for (const auto& other : others) {
        other->kill("its machine is stopped by force");
    }
    if (entry.owner == nullptr) {
        return;
    }
    // It is asked first, so that disks are closed in order; the process goes either way.
    entry.owner->call("stop", {{"force", true}, {"timeout_s", 0}}, force_time_max, Reply<Json>());
    Result<sys::EventLoop::Handle> timer =
        parts_.loop.schedule(entry.owner->connected() ? force_time_max : milliseconds(0),
                             {},
                             [weak = std::weak_ptr(entry.owner)] {
                                 if (const auto owner = weak.lock(); owner != nullptr) {
                                     owner->kill("its machine is stopped by force");
                                 }
                             });
    if (timer.has_value()) {
        entry.stop_timer = std::move(*timer);
    } else {
        entry.owner->kill("its machine is stopped by force");
    }
}

void Supervisor::press_power_button(MachineEntry& entry,
                                    std::uint64_t operation,
                                    StopRequest request) {
    const std::string name = entry.document.name;
    parts_.operations.set_phase(operation, "waiting for the guest");
    entry.owner->call("stop",
                      {{"force", false}, {"timeout_s", request.timeout.count()}},
                      milliseconds(request.timeout) + stop_grace,
                      Reply<Json>([this, operation](const Result<Json>& answer) {
                          // A lost connection means that it ends, which is noticed by itself.
                          if (!answer.has_value() &&
                              answer.error().code() != ErrorCode::peer_closed) {
                              parts_.operations.fail(operation, answer.error(), Json());
                          }
                      }));
    Result<sys::EventLoop::Handle> timer =
        parts_.loop.schedule(request.timeout, {}, [this, operation, name, request] {
            parts_.operations.fail(operation,
                                   Error(ErrorCode::timeout,
                                         "the guest of '" + name + "' did not power off within " +
                                             std::to_string(request.timeout.count()) +
                                             " s; it still runs. Use --force to end it at once"),
                                   Json());
        });
    if (timer.has_value()) {
        entry.stop_timer = std::move(*timer);
    }
}

Result<std::uint64_t> Supervisor::snapshot(const std::string& name, const std::string& directory) {
    GODWIT_TRY(check_directory_path(directory));
    MachineEntry* const entry = GODWIT_TRY(find_idle(name));
    const std::weak_ptr<VmmInstance> weak = entry->owner;
    const std::uint64_t operation = parts_.operations.begin("snapshot", name, [weak]() -> Status {
        if (const auto owner = weak.lock(); owner != nullptr) {
            owner->call("cancel", Json::object(), request_time_max, Reply<Json>());
        }
        return ok();
    });
    entry->operation = operation;
    parts_.operations.set_phase(operation, "saving");
    const milliseconds time_max =
        snapshot_base_time + milliseconds(static_cast<std::int64_t>(entry->document.memory_bytes /
                                                                    snapshot_bytes_per_ms_min));
    entry->owner->call("snapshot",
                       {{"directory", directory}},
                       time_max,
                       Reply<Json>([this, operation, name](Result<Json> answer) {
                           if (!answer.has_value()) {
                               parts_.operations.fail(operation, answer.error(), Json());
                               return;
                           }
                           history_.append(*answer);
                           parts_.operations.succeed(operation, *answer);
                       }));
    return operation;
}

Result<std::uint64_t> Supervisor::exchange(const std::string& name, ExchangeRequest request) {
    // Of a divided host each machine is exchanged for itself.
    GODWIT_TRY(
        check_reach(request.mode,
                    division() == nullptr ? ExchangeReach::machine : ExchangeReach::all_machines));
    GODWIT_TRY(choose_program(request.program));
    MachineEntry* const entry = GODWIT_TRY(find_idle(name));
    auto made = std::make_shared<ExchangeRun>(*this, name, std::move(request));
    entry->operation =
        parts_.operations.begin("exchange", name, [weak = std::weak_ptr(made)]() -> Status {
            const auto run = weak.lock();
            return run == nullptr ? Error(ErrorCode::conflict, "the exchange is over")
                                  : run->cancel();
        });
    exchanges_.emplace(name, made);
    made->start(entry->operation);
    return entry->operation;
}

Result<std::uint64_t> Supervisor::recover(const std::string& name) {
    MachineEntry* const entry = GODWIT_TRY(find_or_error(name));
    if (entry->starting || parts_.operations.running(entry->operation)) {
        return Error(ErrorCode::conflict,
                     "machine '" + name + "' is busy (operation " +
                         std::to_string(entry->operation) + "): wait for its end or cancel it");
    }
    if (!entry->doubt.empty()) {
        return in_doubt(*entry);
    }
    if (entry->record == nullptr) {
        return Error(ErrorCode::conflict,
                     "no VMM of machine '" + name +
                         "' has handed out its owner record: nobody knows who may run it");
    }
    if (const std::shared_ptr<VmmInstance> owner = entry->owner;
        owner != nullptr && owner->status().has_value() &&
        (owner->status()->role == "keeper" || owner->status()->role == "guard") &&
        entry->record->read() ==
            handover::Ownership{.owner = owner->instance(), .epoch = entry->record->read().epoch}) {
        // Suspended in memory, and its new VMM is gone: it goes on in another one.
        return exchange(name, {});
    }
    auto made = std::make_shared<RecoverRun>(*this, name);
    entry->operation = parts_.operations.begin("recover", name, {});
    const std::uint64_t operation = entry->operation;
    recoveries_.insert_or_assign(name, made);
    made->start(operation);
    return operation;
}

} // namespace godwit::control
