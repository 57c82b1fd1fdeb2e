#include "exchange/source.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "base/version.h"
#include "exchange/frames.h"
#include "state/schema_trial.h"
#include "state/section_check.h"
#include "sys/mapping.h"

#include <sys/mman.h>

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace godwit::exchange {

namespace {

constexpr std::string_view ram_resource_name = "ram";

/// What the carriers put together and the successor gets: one offer, one take-over.
struct Parcel {
    Offer offer;
    TakeOver take_over;
    sys::MappedRegion state_buffer;
    bool previews_wanted = false;      ///< By the successor.
    bool record_later = false;         ///< It takes the owner record with its other rights.
    bool mirrored = false;             ///< It has proven that it has built the same machine.
    bool fetch_later = false;          ///< It fills its page tables once the guest runs there.
    bool granted = false;              ///< It has the right to change what belongs to the machine.
    bool devices_ahead_wanted = false; ///< It takes devices while the guest runs.
    bool devices_ahead = false;        ///< And they are the same in the pause.
    Granted warmth;                    ///< What it has filled of its page tables.
    std::vector<std::pair<std::string, std::uint32_t>> inverse_calls; ///< By name.
};

/// A call from the side that runs the guest into the one that shall, counted (requirement HR-3).
Status call(Parcel& parcel,
            const sys::MessageSocket& successor,
            std::string_view name,
            const WireMessage& message) {
    const auto found = std::ranges::find(parcel.inverse_calls, name, [](const auto& counted) {
        return std::string_view(counted.first);
    });
    if (found == parcel.inverse_calls.end()) {
        parcel.inverse_calls.emplace_back(name, 1);
    } else {
        ++found->second;
    }
    Status sent = send(successor, message);
    if (!sent.has_value()) {
        // Who has gone may have said why before: that is the better reason.
        const Result<WireMessage> last = receive(successor, std::chrono::milliseconds(0));
        if (!last.has_value() && last.error().code() != ErrorCode::timeout &&
            last.error().code() != ErrorCode::peer_closed) {
            return last.error();
        }
    }
    return sent;
}

/// The way to the successor while the guest runs. Without one a carrier is only asked what it is.
struct Channel {
    const sys::MessageSocket* successor = nullptr;
    const sys::Cancel* cancel = nullptr;
    const PageMap* page_map = nullptr;
    std::chrono::milliseconds limit{};
    std::chrono::milliseconds rest_limit{}; ///< While the devices are at rest.
};

/// The machine itself, for the engine.
class ExchangedMachine final : public handover::SourceMachine {
  public:
    explicit ExchangedMachine(machine::Machine& machine)
        : machine_(machine), was_running_(machine.running()) {}
    [[nodiscard]] std::vector<std::string> blockers() const override {
        return machine_.save_blockers();
    }
    Status quiesce(std::chrono::milliseconds limit) override {
        return machine_.quiesce_devices(limit);
    }
    Status pause(std::chrono::milliseconds limit) override { return machine_.pause_to_save(limit); }
    Status resume() override {
        if (was_running_) {
            return machine_.start();
        }
        machine_.stay_paused();
        return ok();
    }
    [[nodiscard]] sys::Moment stopped_at() const override { return machine_.vcpus_stopped_at(); }

  private:
    machine::Machine& machine_;
    bool was_running_;
};

/// RAM, disks and taps: the same open files under a new owner, not a byte copied.
class DescriptorCarrier final : public handover::Carrier {
  public:
    DescriptorCarrier(machine::Machine& machine, Parcel& parcel, Channel channel = {})
        : machine_(machine), channel_(channel), parcel_(parcel) {}
    [[nodiscard]] std::string_view resource() const noexcept override {
        return "memory, disks and taps";
    }
    [[nodiscard]] std::vector<std::string> blockers() const override {
        if (machine_.ram_mapping() == machine::RamMapping::shared) {
            return {};
        }
        return {"the machine's RAM is a private copy of its snapshot, which cannot change hands: "
                "restore it with --copy-ram"};
    }

    /// To a successor that knows grants only what it may read: RAM, and that for reading.
    Status prepare() override {
        Parcel& parcel = parcel_;
        parcel.offer.wiring = machine_.wiring();
        parcel.offer.frames =
            sample_frames(machine_.memory(), *channel_.page_map, frames_sampled_default);
        parcel.offer.without_rights = parcel.previews_wanted;
        if (parcel.record_later) {
            // Who cannot claim the machine cannot take it before it is trusted.
            GODWIT_TRY(grant_.descriptors.add("owner",
                                              GODWIT_TRY(parcel.offer.descriptors.take("owner"))));
        }
        machine::Resources resources = GODWIT_TRY(machine_.duplicate_resources());
        for (machine::Resource& resource : resources) {
            sys::FdManifest& to =
                parcel.previews_wanted ? grant_.descriptors : parcel.offer.descriptors;
            if (parcel.previews_wanted && resource.name == ram_resource_name) {
                GODWIT_TRY(parcel.offer.descriptors.add(
                    resource.name, GODWIT_TRY(sys::reopen_read_only(resource.fd))));
            }
            GODWIT_TRY(to.add(std::move(resource.name), std::move(resource.fd)));
        }
        return ok();
    }
    /// Once the successor has mirrored the machine it gets the rights it lacks.
    Result<handover::Remaining> sync() override {
        if (!parcel_.previews_wanted) {
            return handover::Remaining{};
        }
        if (!parcel_.mirrored) {
            return handover::Remaining{.bytes = 1};
        }
        if (!std::exchange(parcel_.granted, true)) {
            fault_point("exchange.source.grant");
            grant_.fetch_later = parcel_.fetch_later;
            GODWIT_TRY(call(parcel_, *channel_.successor, "grant", WireMessage(std::move(grant_))));
            parcel_.warmth = GODWIT_TRY(
                expect<Granted>(*channel_.successor, channel_.limit, channel_.cancel->fd()));
        }
        return handover::Remaining{};
    }
    Status carry_paused() override { return ok(); }
    Status settle() override { return ok(); }
    void abort() noexcept override {}
    [[nodiscard]] handover::CarriedResource carried() const override {
        return {.resource = "memory, disks and taps", .carrier = "pointer", .bytes_copied = 0};
    }

  private:
    machine::Machine& machine_;
    const Channel channel_;
    Parcel& parcel_;
    Grant grant_;
};

/// Consoles: listeners are bound anew by the successor, the clients go over as descriptors.
class EndpointCarrier final : public handover::Carrier {
  public:
    EndpointCarrier(Endpoints& endpoints, Parcel& parcel)
        : endpoints_(endpoints), parcel_(parcel) {}
    [[nodiscard]] std::string_view resource() const noexcept override { return "consoles"; }
    [[nodiscard]] std::vector<std::string> blockers() const override {
        std::string blocker = endpoints_.save_blocker();
        return blocker.empty() ? std::vector<std::string>{}
                               : std::vector<std::string>{std::move(blocker)};
    }
    Status prepare() override { return ok(); }
    /// Before the pause: what the guest still prints waits in the backlog that goes over.
    Result<handover::Remaining> sync() override {
        const bool last_round = parcel_.granted || !parcel_.previews_wanted;
        if (last_round && !std::exchange(frozen_, true)) {
            endpoints_.freeze();
        }
        return handover::Remaining{};
    }
    Status carry_paused() override {
        parcel_.take_over.descriptors = GODWIT_TRY(endpoints_.descriptors());
        return ok();
    }
    Status settle() override { return ok(); }
    void abort() noexcept override {
        if (frozen_) {
            endpoints_.thaw();
        }
    }
    [[nodiscard]] handover::CarriedResource carried() const override {
        return {.resource = "consoles", .carrier = "descriptor", .bytes_copied = 0};
    }

  private:
    Endpoints& endpoints_;
    Parcel& parcel_;
    bool frozen_ = false;
};

/// Processor and device state: one record in memory both ends map.
class StateCarrier final : public handover::Carrier {
  public:
    StateCarrier(machine::Machine& machine,
                 const Endpoints& endpoints,
                 Parcel& parcel,
                 Channel channel = {})
        : machine_(machine), endpoints_(endpoints), channel_(channel), parcel_(parcel) {}
    [[nodiscard]] std::string_view resource() const noexcept override { return "state"; }
    /// Those of the machine are asked by the engine itself.
    [[nodiscard]] std::vector<std::string> blockers() const override { return {}; }

    Status prepare() override {
        sys::Fd buffer = GODWIT_TRY(sys::create_memfd("godwit-state", state_buffer_bytes));
        // The successor reads it through its own mapping: it must not be able to shrink under it.
        if (::fcntl(buffer.raw(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
            return Error::from_errno(errno, "seal the state buffer");
        }
        parcel_.state_buffer = GODWIT_TRY(
            sys::MappedRegion::create(buffer, 0, state_buffer_bytes, sys::MapMode::shared));
        // Touched now, not in the pause.
        discard(parcel_.state_buffer.populate(state_bytes_usual),
                "then it faults as it is written");
        return parcel_.offer.descriptors.add("state", std::move(buffer));
    }
    /// One generation of the mirror: most of a vCPU's state stays as it is, so the successor sets
    /// it in advance, and the wiring with it; then both compare what they have (HR-4).
    Result<handover::Remaining> sync() override {
        if (!parcel_.previews_wanted || parcel_.mirrored) {
            return handover::Remaining{};
        }
        Preview preview{.generation = ++generation_, .wiring = machine_.wiring()};
        if (generation_ == 1) {
            preview.state_bytes = GODWIT_TRY(write(GODWIT_TRY(machine_.preview())));
        }
        const machine::MirrorDigest here = GODWIT_TRY(machine_.mirror(preview.wiring));
        GODWIT_TRY(call(parcel_, *channel_.successor, "preview", preview));
        const auto there = GODWIT_TRY(
            expect<Previewed>(*channel_.successor, channel_.limit, channel_.cancel->fd()));
        GODWIT_TRY(compare(here, there));
        // What has changed meanwhile is the next generation's.
        parcel_.mirrored = machine_.wiring() == preview.wiring;
        return handover::Remaining{.bytes = parcel_.mirrored ? 0U : 1U};
    }

    /// The successor loads them while the guest runs, not in the pause.
    Status carry_at_rest() override {
        if (!parcel_.granted || !parcel_.devices_ahead_wanted || !machine_.running()) {
            return ok();
        }
        ahead_ = GODWIT_TRY(machine_.save_devices());
        GODWIT_TRY(call(parcel_,
                        *channel_.successor,
                        "devices",
                        Devices{.state_bytes = GODWIT_TRY(write(ahead_->state))}));
        GODWIT_TRY(
            expect<DevicesLoaded>(*channel_.successor, channel_.rest_limit, channel_.cancel->fd()));
        return ok();
    }

    Status carry_paused() override {
        // While the vCPUs still read their state.
        state::SavedState consoles;
        GODWIT_TRY(consoles.add(endpoints_));
        if (fault_action("exchange.source.devices") == "changed") {
            ahead_.reset();
        }
        const bool untouched = ahead_.has_value() && machine_.untouched_since(*ahead_);
        state::SavedState saved = GODWIT_TRY(machine_.save(
            untouched ? machine::Machine::Save::without_functions : machine::Machine::Save::all));
        parcel_.devices_ahead = untouched || (ahead_.has_value() && saved.leave_out(ahead_->state));
        parcel_.take_over.devices_ahead = parcel_.devices_ahead;
        GODWIT_TRY(saved.append(std::move(consoles)));
        GODWIT_TRY(state::add_trial_section(saved));
        parcel_.take_over.state_bytes = GODWIT_TRY(write(saved));
        return ok();
    }
    Status settle() override { return ok(); }
    void abort() noexcept override {}
    [[nodiscard]] handover::CarriedResource carried() const override {
        return {.resource = "state",
                .carrier = "record",
                .bytes_copied = parcel_.take_over.state_bytes};
    }

  private:
    [[nodiscard]] Status compare(const machine::MirrorDigest& here, const Previewed& there) const {
        const std::string_view unequal = machine::difference(here, there.mirror);
        if (there.generation != generation_ || !unequal.empty()) {
            return Error(ErrorCode::conflict,
                         "the successor has not built the machine that runs here: generation " +
                             std::to_string(there.generation) + " of " +
                             std::to_string(generation_) + " differs in " +
                             std::string(unequal.empty() ? "its number" : unequal));
        }
        return ok();
    }

    [[nodiscard]] Result<std::uint64_t> write(const state::SavedState& saved) const {
        const std::string bytes = saved.encode();
        if (bytes.size() > parcel_.state_buffer.size()) {
            return Error(ErrorCode::resource_exhausted,
                         "the state of " + std::to_string(bytes.size()) +
                             " bytes exceeds its buffer");
        }
        std::memcpy(parcel_.state_buffer.data(), bytes.data(), bytes.size());
        return bytes.size();
    }

    machine::Machine& machine_;
    const Endpoints& endpoints_;
    const Channel channel_;
    Parcel& parcel_;
    std::uint32_t generation_ = 0;
    std::optional<machine::Machine::DevicesAtRest> ahead_; ///< What the successor has loaded.
};

/// The successor process at the other end of the socket.
class Successor final : public handover::Destination {
  public:
    Successor(const sys::MessageSocket& socket, Parcel& parcel, const sys::Cancel& cancel)
        : socket_(socket), parcel_(parcel), cancel_(cancel) {}

    Status introduce(std::vector<std::string>& blockers,
                     std::chrono::milliseconds timeout) override {
        hello_ = GODWIT_TRY(expect<Hello>(socket_, timeout, cancel_.fd()));
        parcel_.previews_wanted = hello_.takes_previews;
        parcel_.devices_ahead_wanted = hello_.takes_previews && hello_.takes_devices_ahead;
        parcel_.record_later = hello_.takes_previews && hello_.takes_record_with_grant;
        if (hello_.protocol != protocol_version) {
            blockers.push_back("the successor speaks handover protocol " +
                               std::to_string(hello_.protocol) + ", this build " +
                               std::to_string(protocol_version));
        }
        check_sections(blockers);
        return ok();
    }
    [[nodiscard]] std::string build_id() const override { return hello_.build_id; }

    Status prepare(std::chrono::milliseconds timeout) override {
        GODWIT_TRY(call(parcel_, socket_, "offer", std::move(parcel_.offer)));
        parcel_.offer = {};
        GODWIT_TRY(expect<Prepared>(socket_, timeout, cancel_.fd()));
        return ok();
    }

    Status offer() override {
        GODWIT_TRY(call(parcel_, socket_, "take_over", WireMessage(std::move(parcel_.take_over))));
        return ok();
    }

    Result<handover::Resumed> await_resumed(std::chrono::milliseconds timeout) override {
        Running running = GODWIT_TRY(expect<Running>(socket_, timeout));
        handover::Resumed resumed{
            .ownership = {.owner = handover::InstanceId{hello_.instance}, .epoch = running.epoch},
            .claimed_at = sys::Moment(sys::Nanoseconds(running.claimed_at_ns)),
            .first_entry_at = sys::Moment(sys::Nanoseconds(running.first_entry_ns)),
            .entered = running.first_entry_ns != 0};
        for (Mark& mark : running.marks) {
            resumed.marks.emplace_back(std::move(mark.name),
                                       sys::Moment(sys::Nanoseconds(mark.at_ns)));
        }
        return resumed;
    }

    Result<handover::Settled> settle(std::chrono::milliseconds timeout) override {
        GODWIT_TRY(call(parcel_, socket_, "settle", Settle{}));
        const SettleAnswer answer = GODWIT_TRY(expect<SettleAnswer>(socket_, timeout));
        return handover::Settled{.frames_sampled = answer.frames_sampled,
                                 .frames_identical = answer.frames_identical,
                                 .fetched = answer.fetched};
    }

    void abort(const Error& reason) noexcept override {
        discard(call(parcel_, socket_, "abort", Abort{.reason = reason.to_string()}),
                "it may be gone already");
    }

  private:
    /// A successor that says what it reads is refused here already; one that does not, refuses the
    /// offer itself.
    void check_sections(std::vector<std::string>& blockers) const {
        if (hello_.sections.empty()) {
            return;
        }
        std::vector<state::SectionType> known;
        for (const SectionKind& kind : hello_.sections) {
            known.push_back({.name = kind.name, .version = kind.version});
        }
        for (const SectionKind& kind : parcel_.offer.sections) {
            const Status readable = state::check_readable(
                known, {.name = kind.name, .version = kind.version, .required = kind.required});
            if (!readable.has_value()) {
                blockers.push_back("the successor: " + readable.error().to_string());
            }
        }
    }

    const sys::MessageSocket& socket_;
    Parcel& parcel_;
    const sys::Cancel& cancel_;
    Hello hello_;
};

/// Every kind of section once, however many of it there are.
std::vector<SectionKind> sections_of(const machine::Machine& machine, const Endpoints& ends) {
    std::vector<SectionKind> kinds;
    for (const machine::Machine::PlannedSection& section : machine.planned_sections()) {
        if (std::ranges::find(kinds, section.id.name, &SectionKind::name) == kinds.end()) {
            kinds.push_back({.name = section.id.name, .version = section.version});
        }
    }
    const state::SectionType endpoints = ends.section_type();
    kinds.push_back({.name = std::string(endpoints.name), .version = endpoints.version});
    return kinds;
}

/// The part of the offer that needs no carrier.
Status begin_offer(const SourceParts& parts, Parcel& parcel) {
    parcel.offer.instance = parts.self.value;
    parcel.offer.epoch = parts.expected.epoch;
    parcel.offer.paused = !parts.machine.running();
    parcel.offer.spec_json = machine::to_json(parts.machine.spec());
    parcel.offer.sections = sections_of(parts.machine, parts.endpoints);
    return parcel.offer.descriptors.add("owner", GODWIT_TRY(parts.record.fd().duplicate()));
}

} // namespace

SourcePlan plan_source(machine::Machine& machine, Endpoints& endpoints) {
    Parcel parcel;
    const DescriptorCarrier descriptors(machine, parcel);
    const EndpointCarrier consoles(endpoints, parcel);
    const StateCarrier state(machine, endpoints, parcel);
    const std::array<const handover::Carrier*, 3> carriers{&descriptors, &consoles, &state};
    SourcePlan plan{.blockers = machine.save_blockers(),
                    .carriers = {},
                    .sections = sections_of(machine, endpoints)};
    for (const handover::Carrier* carrier : carriers) {
        for (std::string& blocker : carrier->blockers()) {
            plan.blockers.push_back(std::move(blocker));
        }
        plan.carriers.push_back(carrier->carried());
    }
    return plan;
}

handover::Report run_source(SourceParts parts, const sys::MessageSocket& successor) {
    handover::Report report{.machine = parts.machine.spec().name,
                            .source_build_id = std::string(build_id()),
                            .before = parts.expected};
    Parcel parcel;
    const Status begun = begin_offer(parts, parcel);
    if (!begun.has_value()) {
        report.after = parts.record.read();
        report.fail(handover::Outcome::rolled_back, "plan", "source", begun.error());
        return report;
    }
    ExchangedMachine machine(parts.machine);
    const Channel channel{.successor = &successor,
                          .cancel = &parts.cancel,
                          .page_map = &parts.page_map,
                          .limit = parts.limits.prepare_timeout,
                          .rest_limit = parts.limits.commit_timeout};
    parcel.fetch_later = parts.timing == handover::Timing::early;
    if (parcel.fetch_later) {
        parts.limits.settle_timeout += warm_time_max;
    }
    DescriptorCarrier descriptors(parts.machine, parcel, channel);
    EndpointCarrier endpoints(parts.endpoints, parcel);
    StateCarrier state(parts.machine, parts.endpoints, parcel, channel);
    const std::array<handover::Carrier*, 3> carriers{&descriptors, &endpoints, &state};
    Successor destination(successor, parcel, parts.cancel);
    report = handover::run_handover({.machine = machine,
                                     .destination = destination,
                                     .carriers = carriers,
                                     .record = parts.record,
                                     .self = parts.self,
                                     .expected = parts.expected,
                                     .limits = parts.limits,
                                     .clock = parts.clock,
                                     .cancel = &parts.cancel.wanted(),
                                     .progress = std::move(parts.progress)},
                                    std::move(report));
    // One that gets everything with the offer does not know of it.
    report.timing = parcel.granted ? parts.timing : handover::Timing::late;
    report.state_bytes = state.carried().bytes_copied;
    report.inverse_calls = std::move(parcel.inverse_calls);
    report.warmed_bytes = parcel.warmth.warmed_bytes;
    report.second_level_warmed = parcel.warmth.second_level;
    report.devices_ahead = parcel.devices_ahead;
    return report;
}

} // namespace godwit::exchange
