/// Exchanging a godwit-blk under its users: what is asked of the present server, and how its
/// successor comes to serve (docs/formats/blk-exchange.md).

#include "base/fault_point.h"
#include "base/log.h"
#include "base/version.h"
#include "doors/exchange/conversation.h"
#include "doors/exchange/export_state.h"
#include "doors/service.h"
#include "sys/thread.h"

#include <unistd.h>

#include <csignal>
#include <filesystem>

namespace godwit::doors {

namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using exchange::Letter;
using exchange::Outcome;

constexpr std::chrono::milliseconds offer_timeout = 30s;
/// The predecessor decides how long it waits; this only ends one nobody talks to any more.
constexpr std::chrono::milliseconds users_timeout = 10min;

std::uint64_t nanoseconds(sys::Moment moment) {
    return static_cast<std::uint64_t>(moment.time_since_epoch().count());
}

Json introduction() {
    Json sections = Json::object();
    for (const state::SectionType& section : exchange::all_sections) {
        sections[std::string(section.name)] = section.version;
    }
    return {{"protocol", exchange::protocol_version},
            {"version", version()},
            {"build_id", build_id()},
            {"sections", std::move(sections)}};
}

/// The godwit-blk meant by `path`: the program itself, or the prefix of an installation.
Result<std::string> program_at(const std::string& path) {
    const std::filesystem::path named(path);
    if (!named.is_absolute()) {
        return Error(ErrorCode::invalid_argument,
                     "'" + path + "' is no absolute path of a godwit-blk");
    }
    std::error_code error;
    std::filesystem::path program = named;
    if (std::filesystem::is_directory(named, error)) {
        program = named / "bin" / "godwit-blk";
        if (!std::filesystem::exists(program, error)) {
            program = named / "godwit-blk";
        }
    }
    if (::access(program.c_str(), X_OK) != 0) {
        return Error::from_errno(errno, "use '" + program.string() + "' as the new godwit-blk");
    }
    return program.string();
}

/// A time among the parameters, within what an operator may mean.
Result<std::chrono::milliseconds>
limit_in(const Json& params, const char* name, std::chrono::milliseconds otherwise) {
    constexpr std::uint64_t limit_ms_max = 600'000;
    const Json value = params.is_object() ? params.value(name, Json()) : Json();
    if (value.is_null()) {
        return otherwise;
    }
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() == 0 ||
        value.get<std::uint64_t>() > limit_ms_max) {
        return Error(ErrorCode::invalid_argument,
                     "'" + std::string(name) + "' is not 1 to 600000 milliseconds");
    }
    return std::chrono::milliseconds(value.get<std::uint64_t>());
}

} // namespace

Status Service::check_exchange() const {
    if (ending_) {
        return Error(ErrorCode::busy, "the export is about to end");
    }
    if (exchanging_) {
        return Error(ErrorCode::busy, "the export's server is being exchanged already");
    }
    if (disk_->moving() != ExportedDisk::Moving::no) {
        return Error(ErrorCode::conflict,
                     "the disk is being moved, which the new server could not go on with: wait "
                     "for its end or cancel it");
    }
    return ok();
}

Status Service::start_exchange(const sys::ControlServer::Request& request) {
    const Json named =
        request.params.is_object() ? request.params.value("program", Json()) : Json();
    if (!named.is_null() && !named.is_string()) {
        return Error(ErrorCode::invalid_argument, "'program' is no path");
    }
    GODWIT_TRY(check_exchange());
    std::string program =
        GODWIT_TRY(program_at(named.is_string() ? named.get<std::string>() : own_program_));
    const exchange::Limits usual;
    const exchange::Limits limits{
        .prepare = GODWIT_TRY(limit_in(request.params, "prepare_ms", usual.prepare)),
        .deadline = GODWIT_TRY(limit_in(request.params, "deadline_ms", usual.deadline))};
    exchanging_ = true;
    log::info("exchange_started", {{"program", program}});
    exchange_ = sys::start_thread(
        "exchange", [this, limits, program = std::move(program), reply = request.reply]() mutable {
            exchange::Ended ended = exchange::run_source(
                {.options = options_,
                 .disk = *disk_,
                 .nbd = nbd_.get(),
                 .vhost = vhost_.get(),
                 .control = control_ ? &control_->listening_socket() : nullptr,
                 .stop_control =
                     [this] { loop_->run_and_wait([this] { control_->stop_listening(); }); },
                 .begin_control =
                     [this] {
                         loop_->run_and_wait([this] {
                             discard(control_->begin_again(), "the users are served anyway");
                         });
                     },
                 .own_program = own_program_,
                 .program = std::move(program),
                 .limits = limits,
                 .clock = clock_});
            loop_->post([this, ended = std::move(ended), reply = std::move(reply)]() mutable {
                exchange_ended(std::move(ended), reply);
            });
        });
    return ok();
}

void Service::exchange_ended(exchange::Ended ended, const sys::ControlServer::Reply& reply) {
    exchange_.join(); // It has nothing more to do.
    exchanging_ = false;
    const Json report = exchange::to_json(ended.report);
    const std::string text = report.dump(-1, ' ', false, Json::error_handler_t::replace);
    log::info("exchange_ended", {{"report", std::string_view(text)}});
    reply.result(report);
    if (ended.report.outcome == Outcome::rolled_back) {
        if (ending_) {
            loop_->post([this] { end(ok()); }); // Behind the answer.
        }
        return;
    }
    tell_manager("MAINPID=" + std::to_string(ended.successor->pid()));
    control_->abandon_path();
    if (ended.report.outcome == Outcome::failed_after_commit) {
        outcome_ = Error(ErrorCode::conflict, ended.report.reason);
    } else if (ending_) {
        discard(ended.successor->signal(SIGTERM), "what was asked of us is asked of it");
    }
    loop_->post([this] { loop_->stop(); });
}

/// What a successor is given, and what it makes of it until it serves.
struct Service::Inheritance {
    exchange::Conversation conversation;
    Letter offer;
    exchange::Offered offered;
    sys::Fd control; ///< Invalid: there is none.
    std::optional<sys::EventFd> token;
};

Result<std::unique_ptr<Service>>
Service::take_over(sys::MessageSocket predecessor, std::string log_level, const sys::Clock& clock) {
    Inheritance inheritance{.conversation = exchange::Conversation(std::move(predecessor))};
    const exchange::Conversation& conversation = inheritance.conversation;
    fault_point("doors.exchange.successor.start");
    GODWIT_TRY(conversation.say("hello", introduction()));
    const auto take = [&]() -> Result<std::unique_ptr<Service>> {
        inheritance.offer = GODWIT_TRY(conversation.expect("offer", offer_timeout));
        Letter& offer = inheritance.offer;
        if (!offer.state.has_value()) {
            return Error(ErrorCode::corrupt, "an offer without a state");
        }
        inheritance.offered = GODWIT_TRY(
            exchange::decode_offered(GODWIT_TRY(offer.state->take(exchange::export_section.id()))));
        GODWIT_TRY(offer.state->finish());
        ServeOptions options = inheritance.offered.options;
        options.log_level = std::move(log_level);
        std::unique_ptr<Service> made(new Service(std::move(options), clock));
        GODWIT_TRY(made->prepare_process());
        GODWIT_TRY(made->inherit(inheritance));
        fault_point("doors.exchange.successor.prepare");
        GODWIT_TRY(conversation.say("prepared"));
        GODWIT_TRY(made->receive_users(inheritance));
        GODWIT_TRY(made->begin(inheritance));
        return made;
    };
    Result<std::unique_ptr<Service>> made = take();
    if (!made.has_value()) {
        conversation.say_failed(made.error());
    }
    return made;
}

/// Builds everything but the users. Nobody is served, and nothing of the image is touched.
Status Service::inherit(Inheritance& inheritance) {
    exchange::Offered& offered = inheritance.offered;
    sys::FdManifest& descriptors = inheritance.offer.descriptors;
    disk_ = GODWIT_TRY(ExportedDisk::adopt(
        options_.disk, std::move(offered.place), GODWIT_TRY(descriptors.take("image")), clock_));
    const block::BlockGeometry& geometry = disk_->geometry();
    if (geometry.bytes < offered.bytes ||
        geometry.logical_block_bytes != offered.logical_block_bytes) {
        return Error(ErrorCode::conflict,
                     "the image is not the disk its users know: " + std::to_string(geometry.bytes) +
                         " bytes in place of " + std::to_string(offered.bytes) + ", blocks of " +
                         std::to_string(geometry.logical_block_bytes) + " in place of " +
                         std::to_string(offered.logical_block_bytes));
    }
    disk_->set_last_move(std::move(offered.last_move));
    if (!options_.nbd_address.empty()) {
        nbd_ = nbd::Server::adopt({.address = options_.nbd_address,
                                   .name = options_.name,
                                   .uri = std::move(offered.nbd_uri),
                                   .listening = GODWIT_TRY(descriptors.take("nbd"))},
                                  *disk_);
    }
    if (!options_.vhost_socket.empty()) {
        vhost_ = GODWIT_TRY(vhost::Door::adopt(door_args(), GODWIT_TRY(descriptors.take("vhost"))));
    }
    if (!options_.control.empty()) {
        inheritance.control = GODWIT_TRY(descriptors.take("control"));
    }
    if (descriptors.size() != 0) {
        return Error(ErrorCode::corrupt, "an offer with descriptors that nobody needs");
    }
    return ok();
}

/// They are at rest, and stay so.
Status Service::receive_users(Inheritance& inheritance) {
    Letter letter = GODWIT_TRY(inheritance.conversation.expect("users", users_timeout));
    fault_point("doors.exchange.successor.users");
    if (!letter.state.has_value()) {
        return Error(ErrorCode::corrupt, "users without a state");
    }
    inheritance.token =
        GODWIT_TRY(sys::EventFd::adopt(GODWIT_TRY(letter.descriptors.take("token"))));
    exchange::Users users = GODWIT_TRY(exchange::decode_users(*letter.state, letter.descriptors));
    if ((users.front_end.has_value() && !vhost_) || (!users.clients.empty() && !nbd_)) {
        return Error(ErrorCode::corrupt, "users of a door that is not there");
    }
    if (users.front_end.has_value()) {
        GODWIT_TRY(vhost_->restore(std::move(*users.front_end)));
    }
    if (nbd_) {
        nbd_->restore(std::move(users.clients));
    }
    return ok();
}

/// The users are served, also if nobody can ask us anything.
void Service::take_control(sys::Fd listening) {
    auto control = sys::ControlServer::create(
        *loop_,
        sys::Listener::adopt(std::move(listening), options_.control),
        [this](const sys::ControlServer::Request& request) { handle(request); });
    if (!control.has_value()) {
        log::error("no_control_socket", {{"reason", control.error().to_string()}});
        return;
    }
    control_ = std::move(*control);
    control_->adopt_path();
}

/// The commit, and all that follows from it.
Status Service::begin(Inheritance& inheritance) {
    fault_point("doors.exchange.successor.claim");
    if (!inheritance.token->drain()) {
        return Error(ErrorCode::conflict, "the predecessor has taken the export back");
    }
    const sys::Moment claimed_at = clock_.now();
    fault_point("doors.exchange.successor.claimed");
    if (vhost_) {
        vhost_->begin();
    }
    if (nbd_) {
        GODWIT_TRY(nbd_->begin());
    }
    const sys::Moment serving_at = clock_.now();
    if (inheritance.control.valid()) {
        take_control(std::move(inheritance.control));
    }
    fault_point("doors.exchange.successor.running");
    log::info("export_taken_over", {{"image", disk_->path()}});
    discard(inheritance.conversation.say("running",
                                         {{"claimed_at_ns", nanoseconds(claimed_at)},
                                          {"serving_at_ns", nanoseconds(serving_at)}}),
            "whoever it is told to may have gone: the users are ours");
    return ok();
}

} // namespace godwit::doors
