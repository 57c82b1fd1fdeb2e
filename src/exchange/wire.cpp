#include "exchange/wire.h"

#include "state/handover.pb.h"
#include "state/state_unit.h"

namespace godwit::exchange {

namespace {

constexpr std::size_t sections_max = 4096;

template <typename... Cases>
struct Overloaded : Cases... {
    using Cases::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

void put_names(const sys::FdManifest& manifest,
               google::protobuf::RepeatedPtrField<std::string>& out) {
    for (const std::string& name : manifest.names()) {
        *out.Add() = name;
    }
}

using SectionList = google::protobuf::RepeatedPtrField<state::SectionKind>;

void put_sections(const std::vector<SectionKind>& sections, SectionList& out) {
    for (const SectionKind& kind : sections) {
        state::SectionKind& section = *out.Add();
        section.set_name(kind.name);
        section.set_version(kind.version);
        section.set_optional(!kind.required);
    }
}

void put(const Hello& from, state::HandoverMessage& to) {
    auto& hello = *to.mutable_hello();
    hello.set_protocol(from.protocol);
    hello.set_instance(from.instance);
    hello.set_version(from.version);
    hello.set_build_id(from.build_id);
    hello.set_takes_previews(from.takes_previews);
    hello.set_takes_record_with_grant(from.takes_record_with_grant);
    hello.set_takes_devices_ahead(from.takes_devices_ahead);
    put_sections(from.sections, *hello.mutable_sections());
}

using RouteList = google::protobuf::RepeatedPtrField<state::Route>;
using DoorbellList = google::protobuf::RepeatedPtrField<state::Doorbell>;

void put_wiring(const machine::Wiring& from, RouteList& routes, DoorbellList& doorbells) {
    for (const auto& route : from.routes) {
        state::Route& out = *routes.Add();
        out.set_set(route.has_value());
        out.set_address(route.value_or(bus::MsiMessage{}).address);
        out.set_data(route.value_or(bus::MsiMessage{}).data);
    }
    for (const auto& doorbell : from.doorbells) {
        doorbells.Add()->set_address(doorbell.value_or(Gpa{0}).value);
    }
}

void put(const Preview& from, state::HandoverMessage& to) {
    auto& preview = *to.mutable_preview();
    preview.set_generation(from.generation);
    preview.set_state_bytes(from.state_bytes);
    put_wiring(from.wiring, *preview.mutable_routes(), *preview.mutable_doorbells());
}

void put(const Previewed& from, state::HandoverMessage& to) {
    auto& previewed = *to.mutable_previewed();
    previewed.set_generation(from.generation);
    previewed.set_memory(from.mirror.memory);
    previewed.set_devices(from.mirror.devices);
    previewed.set_wiring(from.mirror.wiring);
    previewed.set_frames_identical(from.frames_identical);
}

void put(const Grant& from, state::HandoverMessage& to) {
    put_names(from.descriptors, *to.mutable_grant()->mutable_descriptors());
    to.mutable_grant()->set_fetch_later(from.fetch_later);
}

void put(const Offer& from, state::HandoverMessage& to) {
    auto& offer = *to.mutable_offer();
    offer.set_protocol(from.protocol);
    offer.set_instance(from.instance);
    offer.set_epoch(from.epoch);
    offer.set_paused(from.paused);
    offer.set_spec_json(from.spec_json);
    put_names(from.descriptors, *offer.mutable_descriptors());
    put_sections(from.sections, *offer.mutable_sections());
    for (const Frame& frame : from.frames) {
        auto& sampled = *offer.add_frames();
        sampled.set_page(frame.page);
        sampled.set_host_frame(frame.host_frame);
    }
    offer.set_without_rights(from.without_rights);
    put_wiring(from.wiring, *offer.mutable_routes(), *offer.mutable_doorbells());
}

void put(const Devices& from, state::HandoverMessage& to) {
    to.mutable_devices()->set_state_bytes(from.state_bytes);
}

void put(const TakeOver& from, state::HandoverMessage& to) {
    auto& take_over = *to.mutable_take_over();
    take_over.set_devices_ahead(from.devices_ahead);
    take_over.set_state_bytes(from.state_bytes);
    put_names(from.descriptors, *take_over.mutable_descriptors());
}

void put(const Running& from, state::HandoverMessage& to) {
    auto& running = *to.mutable_running();
    running.set_epoch(from.epoch);
    running.set_claimed_at_ns(from.claimed_at_ns);
    running.set_first_entry_ns(from.first_entry_ns);
    for (const Mark& mark : from.marks) {
        auto& out = *running.add_marks();
        out.set_name(mark.name);
        out.set_at_ns(mark.at_ns);
    }
}

state::HandoverMessage to_proto(const WireMessage& message) {
    state::HandoverMessage proto;
    std::visit(Overloaded{
                   [&](const Prepared&) { proto.mutable_prepared(); },
                   [&](const Settle&) { proto.mutable_settle(); },
                   [&](const DevicesLoaded&) { proto.mutable_devices_loaded(); },
                   [&](const Granted& from) {
                       proto.mutable_granted()->set_warmed_bytes(from.warmed_bytes);
                       proto.mutable_granted()->set_second_level(from.second_level);
                   },
                   [&](const SettleAnswer& from) {
                       proto.mutable_settled()->set_frames_sampled(from.frames_sampled);
                       proto.mutable_settled()->set_frames_identical(from.frames_identical);
                       proto.mutable_settled()->set_fetched_bytes(from.fetched.bytes);
                       proto.mutable_settled()->set_demand_faults(from.fetched.demand_faults);
                   },
                   [&](const Failed& from) {
                       proto.mutable_failed()->set_code(static_cast<std::uint32_t>(from.code));
                       proto.mutable_failed()->set_message(from.message);
                   },
                   [&](const Abort& from) { proto.mutable_abort()->set_reason(from.reason); },
                   [&](const auto& from) { put(from, proto); },
               },
               message);
    return proto;
}

} // namespace

Status send(const sys::MessageSocket& socket, const WireMessage& message) {
    std::vector<const sys::Fd*> fds;
    if (const auto* offer = std::get_if<Offer>(&message)) {
        fds = offer->descriptors.borrowed();
    } else if (const auto* grant = std::get_if<Grant>(&message)) {
        fds = grant->descriptors.borrowed();
    } else if (const auto* take_over = std::get_if<TakeOver>(&message)) {
        fds = take_over->descriptors.borrowed();
    }
    return socket.send(to_proto(message).SerializeAsString(), fds);
}

namespace {

Result<sys::FdManifest>
take_descriptors(const google::protobuf::RepeatedPtrField<std::string>& names,
                 std::vector<sys::Fd> fds) {
    return sys::FdManifest::pair_up({names.begin(), names.end()}, std::move(fds));
}

Result<std::vector<SectionKind>> sections_from(const SectionList& from) {
    if (from.size() > static_cast<int>(sections_max)) {
        return Error(ErrorCode::corrupt, "the peer names more sections than the limit");
    }
    std::vector<SectionKind> sections;
    for (const state::SectionKind& kind : from) {
        if (kind.name().size() > state::section_name_bytes_max) {
            return Error(ErrorCode::corrupt, "the peer names a section with too long a name");
        }
        sections.push_back(
            {.name = kind.name(), .version = kind.version(), .required = !kind.optional()});
    }
    return sections;
}

Result<WireMessage> hello_from(const state::Hello& from) {
    auto sections = GODWIT_TRY(sections_from(from.sections()));
    return WireMessage(Hello{.protocol = from.protocol(),
                             .instance = from.instance(),
                             .version = from.version(),
                             .build_id = from.build_id(),
                             .takes_previews = from.takes_previews(),
                             .takes_record_with_grant = from.takes_record_with_grant(),
                             .takes_devices_ahead = from.takes_devices_ahead(),
                             .sections = std::move(sections)});
}

Result<machine::Wiring> wiring_from(const RouteList& routes, const DoorbellList& doorbells) {
    if (routes.size() > static_cast<int>(machine::Wiring::vectors_max) ||
        doorbells.size() > static_cast<int>(machine::Wiring::doorbells_max)) {
        return Error(ErrorCode::corrupt, "the peer names more routes or doorbells than the limits");
    }
    machine::Wiring wiring;
    for (const state::Route& route : routes) {
        wiring.routes.emplace_back();
        if (route.set()) {
            wiring.routes.back() = {.address = route.address(), .data = route.data()};
        }
    }
    for (const state::Doorbell& doorbell : doorbells) {
        wiring.doorbells.emplace_back();
        if (doorbell.address() != 0) {
            wiring.doorbells.back() = Gpa{doorbell.address()};
        }
    }
    return wiring;
}

Result<WireMessage> preview_from(const state::Preview& from) {
    auto wiring = GODWIT_TRY(wiring_from(from.routes(), from.doorbells()));
    return WireMessage(Preview{.generation = from.generation(),
                               .state_bytes = from.state_bytes(),
                               .wiring = std::move(wiring)});
}

Result<WireMessage> offer_from(const state::Offer& from, std::vector<sys::Fd> fds) {
    if (from.frames_size() > static_cast<int>(frames_max)) {
        return Error(ErrorCode::corrupt, "the offer names more frames than the limit");
    }
    // Before the offer: GCC 12 leaks the members made so far if an initialiser returns.
    auto sections = GODWIT_TRY(sections_from(from.sections()));
    auto descriptors = GODWIT_TRY(take_descriptors(from.descriptors(), std::move(fds)));
    auto wiring = GODWIT_TRY(wiring_from(from.routes(), from.doorbells()));
    Offer offer{.protocol = from.protocol(),
                .instance = from.instance(),
                .epoch = from.epoch(),
                .paused = from.paused(),
                .without_rights = from.without_rights(),
                .spec_json = from.spec_json(),
                .sections = std::move(sections),
                .descriptors = std::move(descriptors)};
    for (const state::Frame& frame : from.frames()) {
        offer.frames.push_back({.page = frame.page(), .host_frame = frame.host_frame()});
    }
    offer.wiring = std::move(wiring);
    return WireMessage(std::move(offer));
}

Result<WireMessage> running_from(const state::Running& from) {
    Running running{.epoch = from.epoch(),
                    .claimed_at_ns = from.claimed_at_ns(),
                    .first_entry_ns = from.first_entry_ns()};
    if (from.marks_size() > static_cast<int>(marks_max)) {
        return Error(ErrorCode::corrupt, "the peer sent more marks than its limit");
    }
    for (const state::Mark& mark : from.marks()) {
        running.marks.push_back(
            {.name = mark.name().substr(0, mark_name_bytes_max), .at_ns = mark.at_ns()});
    }
    return WireMessage(std::move(running));
}

ErrorCode code_from(std::uint32_t number) noexcept {
    const auto code = static_cast<ErrorCode>(number);
    return number <= 0xff && name_of(code) != "unknown" ? code : ErrorCode::internal;
}

} // namespace

Result<WireMessage> decode(sys::Message packet) {
    state::HandoverMessage proto;
    if (!proto.ParseFromString(packet.bytes)) {
        return Error(ErrorCode::corrupt, "the peer sent bytes that are no handover message");
    }
    using Body = state::HandoverMessage::BodyCase;
    switch (proto.body_case()) {
    case Body::kHello:
        return hello_from(proto.hello());
    case Body::kOffer:
        return offer_from(proto.offer(), std::move(packet.fds));
    case Body::kPrepared:
        return WireMessage(Prepared{});
    case Body::kPreview:
        return preview_from(proto.preview());
    case Body::kPreviewed:
        return WireMessage(Previewed{.generation = proto.previewed().generation(),
                                     .mirror = {.memory = proto.previewed().memory(),
                                                .devices = proto.previewed().devices(),
                                                .wiring = proto.previewed().wiring()},
                                     .frames_identical = proto.previewed().frames_identical()});
    case Body::kGrant: {
        auto descriptors =
            GODWIT_TRY(take_descriptors(proto.grant().descriptors(), std::move(packet.fds)));
        return WireMessage(Grant{.descriptors = std::move(descriptors),
                                 .fetch_later = proto.grant().fetch_later()});
    }
    case Body::kGranted:
        return WireMessage(Granted{.warmed_bytes = proto.granted().warmed_bytes(),
                                   .second_level = proto.granted().second_level()});
    case Body::kDevices:
        return WireMessage(Devices{.state_bytes = proto.devices().state_bytes()});
    case Body::kDevicesLoaded:
        return WireMessage(DevicesLoaded{});
    case Body::kTakeOver:
        return WireMessage(TakeOver{.state_bytes = proto.take_over().state_bytes(),
                                    .devices_ahead = proto.take_over().devices_ahead(),
                                    .descriptors = GODWIT_TRY(take_descriptors(
                                        proto.take_over().descriptors(), std::move(packet.fds)))});
    case Body::kRunning:
        return running_from(proto.running());
    case Body::kSettle:
        return WireMessage(Settle{});
    case Body::kSettled:
        return WireMessage(
            SettleAnswer{.frames_sampled = proto.settled().frames_sampled(),
                         .frames_identical = proto.settled().frames_identical(),
                         .fetched = {.bytes = proto.settled().fetched_bytes(),
                                     .demand_faults = proto.settled().demand_faults()}});
    case Body::kFailed:
        return WireMessage(
            Failed{.code = code_from(proto.failed().code()), .message = proto.failed().message()});
    case Body::kAbort:
        return WireMessage(Abort{.reason = proto.abort().reason()});
    case Body::BODY_NOT_SET:
        break;
    }
    return Error(ErrorCode::corrupt, "the peer sent an empty or unknown handover message");
}

Result<WireMessage> receive(const sys::MessageSocket& socket,
                            std::chrono::milliseconds timeout,
                            const sys::Fd& cancel) {
    GODWIT_TRY(socket.wait_readable(timeout, cancel));
    return receive(socket, std::chrono::milliseconds(0));
}

Result<WireMessage> receive(const sys::MessageSocket& socket, std::chrono::milliseconds timeout) {
    WireMessage message = GODWIT_TRY(decode(GODWIT_TRY(socket.receive(timeout))));
    if (const auto* failed = std::get_if<Failed>(&message)) {
        return Error(failed->code, failed->message);
    }
    if (const auto* abort = std::get_if<Abort>(&message)) {
        return Error(ErrorCode::cancelled, "the other side gave up: " + abort->reason);
    }
    return message;
}

} // namespace godwit::exchange
