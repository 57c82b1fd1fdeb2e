#include "exchange/destination.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "base/scope_guard.h"
#include "base/version.h"
#include "exchange/frames.h"
#include "exchange/trespass.h"
#include "state/section_check.h"
#include "sys/mapping.h"
#include "sys/prefault.h"
#include "sys/process.h"

#include <fcntl.h>

#include <cstring>
#include <optional>
#include <vector>

namespace godwit::exchange {

namespace {

constexpr std::chrono::milliseconds offer_timeout = std::chrono::seconds(30);
/// The source decides how long it waits; this only ends a successor nobody talks to any more.
constexpr std::chrono::milliseconds take_over_timeout = std::chrono::minutes(10);
constexpr std::chrono::milliseconds settle_timeout = std::chrono::seconds(5);

/// Everything that stands before the guest is paused.
struct Standing {
    machine::MachineSpec spec;
    std::optional<handover::OwnerRecord> record; ///< Once the source trusts us with it.
    handover::Ownership source;
    sys::MappedRegion state_buffer;
    std::unique_ptr<machine::Machine> machine;
    std::vector<Frame> frames;
    bool paused = false;
    machine::Machine::Fetch fetch; ///< Empty: page tables are filled already.
};

Result<sys::MappedRegion> map_state_buffer(const sys::Fd& fd) {
    const int seals = ::fcntl(fd.raw(), F_GET_SEALS);
    if (GODWIT_TRY(sys::file_size(fd)) != state_buffer_bytes || seals < 0 ||
        (seals & F_SEAL_SHRINK) == 0) {
        return Error(ErrorCode::corrupt,
                     "the state buffer handed over is not a sealed one of the right size");
    }
    return sys::MappedRegion::create(fd, 0, state_buffer_bytes, sys::MapMode::shared_read_only);
}

/// What this build reads: the machine's sections and that of the endpoints.
std::vector<state::SectionType> known_sections(const DestinationParts& parts) {
    const auto of_machine = machine::Machine::known_sections();
    std::vector<state::SectionType> known(of_machine.begin(), of_machine.end());
    known.push_back(parts.endpoints_section);
    return known;
}

Status check_sections(const std::vector<SectionKind>& sections, const DestinationParts& parts) {
    const std::vector<state::SectionType> known = known_sections(parts);
    for (const SectionKind& kind : sections) {
        GODWIT_TRY(state::check_readable(
            known, {.name = kind.name, .version = kind.version, .required = kind.required}));
    }
    return ok();
}

Result<machine::Resources> resources_from(sys::FdManifest& descriptors) {
    machine::Resources resources;
    const std::vector<std::string> names = descriptors.names(); // take() shortens the list
    for (const std::string& name : names) {
        resources.push_back({.name = name, .fd = GODWIT_TRY(descriptors.take(name))});
    }
    return resources;
}

/// The owner record, if it is among the descriptors.
Result<std::optional<handover::OwnerRecord>> take_record(sys::FdManifest& descriptors,
                                                         const std::string& machine_id) {
    if (!descriptors.has("owner")) {
        return std::optional<handover::OwnerRecord>();
    }
    return std::optional(GODWIT_TRY(
        handover::OwnerRecord::adopt(GODWIT_TRY(descriptors.take("owner")), machine_id)));
}

void show_record(const Standing& standing, const DestinationParts& parts) {
    if (!standing.record.has_value() || !parts.record_known) {
        return;
    }
    if (Result<sys::Fd> copy = standing.record->fd().duplicate(); copy.has_value()) {
        parts.record_known(standing.spec.id, std::move(*copy));
    }
}

/// The machine as it may be built before the source trusts it: nothing here can be changed.
Result<std::unique_ptr<machine::Machine>> build_without_rights(const machine::MachineSpec& spec,
                                                               machine::Resources resources,
                                                               DestinationParts& parts) {
    if (resources.size() != 1 || resources.front().name != "ram") {
        return Error(ErrorCode::corrupt, "an offer without rights holds more than guest memory");
    }
    return machine::Machine::build_without_rights(
        spec, std::move(resources.front().fd), std::move(parts.events), parts.clock);
}

Result<Standing> build(Offer offer, DestinationParts& parts) {
    if (offer.protocol != protocol_version) {
        return Error(ErrorCode::unsupported,
                     "the source speaks handover protocol " + std::to_string(offer.protocol) +
                         ", this build " + std::to_string(protocol_version));
    }
    GODWIT_TRY(check_sections(offer.sections, parts));
    machine::MachineSpec spec = GODWIT_TRY(machine::parse_machine_spec(offer.spec_json));
    if (parts.memory != nullptr) {
        GODWIT_TRY(parts.memory->check(spec));
    }
    auto record = GODWIT_TRY(take_record(offer.descriptors, spec.id));
    auto state_buffer = GODWIT_TRY(map_state_buffer(GODWIT_TRY(offer.descriptors.take("state"))));
    machine::Resources resources = GODWIT_TRY(resources_from(offer.descriptors));
    fault_point("exchange.destination.build");
    auto machine =
        GODWIT_TRY(offer.without_rights ? build_without_rights(spec, std::move(resources), parts)
                                        : machine::Machine::build(spec,
                                                                  std::move(resources),
                                                                  machine::RamMapping::shared,
                                                                  std::move(parts.events),
                                                                  parts.clock));
    GODWIT_TRY(machine->prewire(offer.wiring));
    sys::prefault_process();
    discard(state_buffer.populate(state_bytes_usual), "then it faults as it is read");
    return Standing{.spec = std::move(spec),
                    .record = std::move(record),
                    .source = {.owner = handover::InstanceId{offer.instance}, .epoch = offer.epoch},
                    .state_buffer = std::move(state_buffer),
                    .machine = std::move(machine),
                    .frames = std::move(offer.frames),
                    .paused = offer.paused};
}

/// Copies the state out of shared memory before looking at it: the source could still write there.
Result<state::SavedState> read_state(const Standing& standing, std::uint64_t bytes) {
    if (bytes > standing.state_buffer.size()) {
        return Error(ErrorCode::corrupt, "the state is announced larger than its buffer");
    }
    std::vector<std::byte> copy(bytes);
    std::memcpy(copy.data(), standing.state_buffer.data(), bytes);
    return state::SavedState::decode(copy);
}

Status
load(Standing& standing, TakeOver take_over, const DestinationParts& parts, sys::TimeLine& times) {
    state::SavedState saved = GODWIT_TRY(read_state(standing, take_over.state_bytes));
    state::Section endpoints = GODWIT_TRY(saved.take(parts.endpoints_section.id()));
    fault_point("exchange.destination.load");
    times.mark("decode");
    const auto adopt = [&]() -> Status {
        GODWIT_TRY(parts.adopt_endpoints(
            standing.spec, std::move(endpoints), std::move(take_over.descriptors)));
        times.mark("consoles");
        return ok();
    };
    return standing.machine->load(std::move(saved),
                                  {.clock = machine::Machine::ClockPolicy::running,
                                   .devices_ahead = take_over.devices_ahead,
                                   .starts_at_once = !standing.paused,
                                   .meanwhile = adopt,
                                   .times = &times});
}

/// Tells the source why not; the error goes on to our own caller.
template <typename T>
Result<T> tell(const sys::MessageSocket& source, Result<T> result) {
    if (!result.has_value()) {
        const Error& error = result.error();
        discard(send(source, Failed{.code = error.code(), .message = error.to_string()}),
                "the source may be gone");
    }
    return result;
}

/// One generation: sets in advance what can be, and says what stands here by now.
Result<Previewed>
mirror(Standing& standing, const DestinationParts& parts, const Preview& preview) {
    machine::Machine& machine = *standing.machine;
    GODWIT_TRY(machine.prewire(preview.wiring));
    if (preview.state_bytes != 0) {
        GODWIT_TRY(machine.preload(GODWIT_TRY(read_state(standing, preview.state_bytes))));
    }
    return Previewed{.generation = preview.generation,
                     .mirror = GODWIT_TRY(machine.mirror(machine.wired())),
                     .frames_identical =
                         count_identical(machine.memory(), parts.page_map, standing.frames)};
}

Status take_rights(Standing& standing, Grant& grant) {
    auto record = GODWIT_TRY(take_record(grant.descriptors, standing.spec.id));
    if (record.has_value()) {
        standing.record = std::move(record);
    }
    return standing.machine->grant(GODWIT_TRY(resources_from(grant.descriptors)));
}

/// The rights have replaced the mapping of guest memory; its page tables are filled while the guest
/// still runs elsewhere, unless the source wants to switch first.
Granted warm(machine::Machine& machine) {
    const auto warmth = fault_action("exchange.destination.warm") == "skip"
                            ? Result<machine::Machine::Warmth>(machine::Machine::Warmth{})
                            : machine.warm(warm_time_max);
    if (!warmth.has_value()) {
        log::warn("memory_not_warmed", {{"reason", warmth.error().to_string()}});
        return {};
    }
    return {.warmed_bytes = warmth->bytes, .second_level = warmth->second_level};
}

/// Mirrors the machine and takes the rights to it, until the machine itself comes.
Result<TakeOver> await_take_over(Standing& standing,
                                 const DestinationParts& parts,
                                 const sys::MessageSocket& source,
                                 sys::StayOffCpus& off_vcpus) {
    for (;;) {
        WireMessage message = GODWIT_TRY(receive(source, take_over_timeout));
        if (auto* take_over = std::get_if<TakeOver>(&message)) {
            if (!standing.record.has_value()) {
                return Error(ErrorCode::corrupt, "the source hands over without an owner record");
            }
            return std::move(*take_over);
        }
        if (const auto* preview = std::get_if<Preview>(&message)) {
            fault_point("exchange.destination.preload");
            Previewed previewed = GODWIT_TRY(mirror(standing, parts, *preview));
            off_vcpus = standing.machine->stay_off_vcpus();
            GODWIT_TRY(send(source, std::move(previewed)));
        } else if (const auto* devices = std::get_if<Devices>(&message)) {
            fault_point("exchange.destination.devices");
            GODWIT_TRY(standing.machine->preload_devices(
                GODWIT_TRY(read_state(standing, devices->state_bytes))));
            GODWIT_TRY(send(source, DevicesLoaded{}));
        } else if (auto* grant = std::get_if<Grant>(&message)) {
            fault_point("exchange.destination.grant");
            GODWIT_TRY(take_rights(standing, *grant));
            show_record(standing, parts);
            if (grant->fetch_later) {
                standing.fetch = GODWIT_TRY(standing.machine->prepare_fetch(warm_time_max));
                GODWIT_TRY(send(source, Granted{}));
            } else {
                GODWIT_TRY(send(source, warm(*standing.machine)));
            }
        } else {
            return Error(ErrorCode::corrupt,
                         "the source sent message " + std::to_string(message.index()) +
                             " out of order");
        }
    }
}

struct Claimed {
    handover::Ownership mine;
    sys::Moment at;
};

/// Makes the loaded machine ours. Between the two steps on the record nobody runs the guest.
Result<Claimed> claim(Standing& standing, const DestinationParts& parts) {
    ScopeGuard give_back([&] {
        if (parts.memory != nullptr) {
            parts.memory->give_back();
        }
    });
    if (parts.memory != nullptr) {
        GODWIT_TRY(parts.memory->claim());
    }
    fault_point("exchange.destination.claim");
    // The commit: from here the source does not run the guest again by itself.
    const handover::Ownership claimed =
        GODWIT_TRY(standing.record->claim(standing.source, parts.self));
    const sys::Moment claimed_at = parts.clock.now();
    fault_point("exchange.destination.claimed");
    if (parts.memory != nullptr) {
        GODWIT_TRY(parts.memory->take());
    }
    // The point of no return: a recovery that was quicker has given the guest back, ours is void.
    const handover::Ownership mine = GODWIT_TRY(standing.record->confirm(claimed));
    give_back.commit();
    fault_point("exchange.destination.running");
    return Claimed{.mine = mine, .at = claimed_at};
}

} // namespace

Result<std::pair<TakenMachine, LateWork>> run_destination(DestinationParts parts,
                                                          const sys::MessageSocket& source) {
    Hello hello{.instance = parts.self.value,
                .version = std::string(version()),
                .build_id = std::string(build_id()),
                .takes_previews = true,
                .takes_record_with_grant = true,
                .takes_devices_ahead = true,
                .sections = {}};
    for (const state::SectionType& type : known_sections(parts)) {
        hello.sections.push_back({.name = std::string(type.name), .version = type.version});
    }
    GODWIT_TRY(send(source, std::move(hello)));
    fault_point("exchange.destination.hello");
    Offer offer = GODWIT_TRY(tell(source, expect<Offer>(source, offer_timeout)));
    Standing standing = GODWIT_TRY(tell(source, build(std::move(offer), parts)));
    show_record(standing, parts);
    GODWIT_TRY(send(source, Prepared{}));
    fault_point("exchange.destination.prepared");
    GODWIT_TRY(
        tell(source, trespass(fault_action("exchange.destination.trespass"), *standing.machine)));
    sys::StayOffCpus off_vcpus;
    TakeOver take_over =
        GODWIT_TRY(tell(source, await_take_over(standing, parts, source, off_vcpus)));
    sys::TimeLine times(parts.clock);
    times.mark("hand over");
    GODWIT_TRY(tell(source, load(standing, std::move(take_over), parts, times)));
    const Claimed claimed = GODWIT_TRY(tell(source, claim(standing, parts)));
    const handover::Ownership mine = claimed.mine;
    const sys::Moment claimed_at = claimed.at;
    LateWork work{.frames = std::move(standing.frames),
                  .fetch = std::move(standing.fetch),
                  .faults_before = sys::page_faults().process};
    sys::Moment first_entry_at;
    if (!standing.paused) {
        GODWIT_TRY(tell(source, standing.machine->start()));
        first_entry_at = standing.machine->first_entry_at();
    }
    Running running{.epoch = mine.epoch,
                    .claimed_at_ns = claimed_at.time_since_epoch().count(),
                    .first_entry_ns = first_entry_at.time_since_epoch().count()};
    for (const auto& mark : times.marks()) {
        running.marks.push_back(
            {.name = std::string(mark.name), .at_ns = mark.at.time_since_epoch().count()});
    }
    discard(send(source, running), "the source may have died after its offer; the guest runs here");
    return std::pair(TakenMachine{.machine = std::move(standing.machine),
                                  .record = std::move(*standing.record),
                                  .ownership = mine,
                                  .paused = standing.paused},
                     std::move(work));
}

namespace {

/// What the guest has not touched by now. Faults of this thread are not the guest's.
handover::Fetched fetch_rest(LateWork& work) {
    fault_point("exchange.destination.fetch");
    const std::uint64_t own_before = sys::page_faults().thread;
    const Result<std::uint64_t> bytes = work.fetch();
    const sys::PageFaults now = sys::page_faults();
    const std::uint64_t own = now.thread - own_before;
    const std::uint64_t all = now.process - work.faults_before;
    if (!bytes.has_value()) {
        log::warn("memory_not_fetched", {{"reason", bytes.error().to_string()}});
    }
    return {.bytes = bytes.has_value() ? *bytes : 0, .demand_faults = all > own ? all - own : 0};
}

} // namespace

void answer_settle(machine::Machine& machine,
                   const PageMap& page_map,
                   LateWork work,
                   const sys::MessageSocket& source) {
    const auto question = expect<Settle>(source, settle_timeout);
    if (!question.has_value()) {
        log::warn("settle_not_asked", {{"reason", question.error().to_string()}});
    }
    // Also if the source is gone: the guest is better off with it.
    const handover::Fetched fetched = work.fetch ? fetch_rest(work) : handover::Fetched{};
    const SettleAnswer answer{.frames_sampled = static_cast<std::uint32_t>(work.frames.size()),
                              .frames_identical =
                                  count_identical(machine.memory(), page_map, work.frames),
                              .fetched = fetched};
    discard(send(source, answer), "the report of the source is only poorer without it");
}

} // namespace godwit::exchange
