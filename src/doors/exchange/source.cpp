#include "doors/exchange/source.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "base/version.h"
#include "doors/exchange/conversation.h"
#include "doors/exchange/export_state.h"
#include "state/section_check.h"

#include <unistd.h>

#include <csignal>

// Steps of an exchange, and what undoes them, last one first:
//
//   start      the successor is a process         it is killed and waited for
//   introduce  it says what it can read
//   offer      it has built all but the users     (with the process)
//   rest       the doors are at rest              they serve again
//   hand_over  it has the users and the token     the token is taken back
//
// Point of no return: the successor takes the token. Whether it did is known by trying to take it.

namespace godwit::doors::exchange {

namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;

constexpr std::chrono::milliseconds end_limit = 10s;
/// The number of the socket in the successor.
constexpr int successor_number = 3;

class Source {
  public:
    explicit Source(SourceParts parts)
        : parts_(std::move(parts)), began_(parts_.clock.now()), mark_(began_) {
        report_.name = export_name(parts_.options);
        report_.from = {.program = parts_.own_program,
                        .pid = ::getpid(),
                        .version = std::string(version()),
                        .build_id = std::string(build_id())};
        report_.to.program = parts_.program;
    }
    [[nodiscard]] Ended run();

  private:
    [[nodiscard]] Status run_steps();
    [[nodiscard]] Status start();
    [[nodiscard]] Status introduce();
    [[nodiscard]] Status offer();
    [[nodiscard]] Status rest();
    [[nodiscard]] Status hand_over();
    [[nodiscard]] Status await_running(const Status& sent);
    void note_running(const Letter& running);
    void fail(Outcome outcome, const Error& error);
    void undo(const Error& error);
    [[nodiscard]] std::string end_of_successor(std::chrono::milliseconds patience);
    void part(const char* name, sys::Moment at);
    [[nodiscard]] std::chrono::milliseconds left_of(sys::Moment began,
                                                    std::chrono::milliseconds limit) const;

    SourceParts parts_;
    Report report_;
    const sys::Moment began_;
    const char* step_ = "";
    std::optional<sys::Process> successor_;
    std::optional<Conversation> conversation_;
    std::optional<sys::EventFd> token_;
    bool at_rest_ = false; ///< The doors are, at least one.
    bool committed_ = false;
    Users users_;
    sys::Moment rest_began_;
    sys::Moment mark_; ///< Where the next part of the pause begins.
};

Status Source::run_steps() {
    const std::pair<const char*, Status (Source::*)()> steps[] = {
        {"start", &Source::start},
        {"introduce", &Source::introduce},
        {"offer", &Source::offer},
        {"rest", &Source::rest},
        {"hand_over", &Source::hand_over}};
    for (const auto& [name, step] : steps) {
        step_ = name;
        fault_point(std::string("doors.exchange.source.") + name);
        GODWIT_TRY((this->*step)());
    }
    return ok();
}

Ended Source::run() {
    const Status done = run_steps();
    if (done.has_value()) {
        report_.outcome = Outcome::done;
    } else if (committed_) {
        fail(Outcome::failed_after_commit, done.error());
    } else {
        undo(done.error());
    }
    if (committed_) {
        if (parts_.nbd != nullptr) {
            parts_.nbd->let_go();
        }
        if (parts_.vhost != nullptr) {
            parts_.vhost->let_go();
        }
    } else {
        successor_.reset();
    }
    report_.total_us = sys::microseconds_between(began_, parts_.clock.now());
    return {.report = std::move(report_), .successor = std::move(successor_)};
}

void Source::fail(Outcome outcome, const Error& error) {
    report_.outcome = outcome;
    report_.failed_step = step_;
    report_.reason = error.to_string();
    report_.error_code = name_of(error.code());
}

void Source::part(const char* name, sys::Moment at) {
    report_.pause_parts_us.emplace_back(name, sys::microseconds_between(mark_, at));
    mark_ = at;
}

/// Until `limit` after `began`; at least a moment.
std::chrono::milliseconds Source::left_of(sys::Moment began,
                                          std::chrono::milliseconds limit) const {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(began + limit - parts_.clock.now());
    return std::max(left, 1ms);
}

Status Source::start() {
    auto [ours, theirs] = GODWIT_TRY(sys::MessageSocket::pair());
    const sys::SpawnOptions options{
        .program = parts_.program,
        .arguments = {"take-over",
                      "--socket",
                      std::to_string(successor_number),
                      "--log-level",
                      parts_.options.log_level},
        .fds = {{.fd = &theirs.fd(), .number = successor_number}},
        .standard_input = nullptr,
        .standard_error = nullptr,
        // Whoever ends this process with its group means the successor, too.
        .new_session = false};
    successor_ = GODWIT_TRY(sys::Process::spawn(options));
    report_.to.pid = successor_->pid();
    conversation_.emplace(std::move(ours));
    return ok();
}

Status Source::introduce() {
    const Letter hello =
        GODWIT_TRY(conversation_->expect("hello", left_of(began_, parts_.limits.prepare)));
    report_.to.version = text_in(hello, "version");
    report_.to.build_id = text_in(hello, "build_id");
    const std::uint64_t protocol = GODWIT_TRY(number_in(hello, "protocol"));
    if (protocol != protocol_version) {
        return Error(ErrorCode::unsupported,
                     "the new godwit-blk speaks version " + std::to_string(protocol) +
                         " of this conversation, this one version " +
                         std::to_string(protocol_version));
    }
    const Json sections = hello.facts.value("sections", Json());
    std::vector<std::string> names;
    std::vector<state::SectionType> known;
    names.reserve(sections.size()); // The views stay good.
    for (const auto& [name, number] : sections.items()) {
        if (number.is_number_unsigned() && number.get<std::uint64_t>() < UINT32_MAX) {
            names.push_back(name);
            known.push_back({.name = names.back(), .version = number.get<std::uint32_t>()});
        }
    }
    for (const state::SectionType& section : all_sections) {
        GODWIT_TRY(state::check_readable(known, {section.name, section.version}));
    }
    return ok();
}

Status Source::offer() {
    block::BlockGeometry geometry;
    parts_.disk.loop().run_and_wait([&] { geometry = parts_.disk.disk().geometry(); });
    Offered offered{.options = parts_.options,
                    .place = parts_.disk.place(),
                    .bytes = geometry.bytes,
                    .logical_block_bytes = geometry.logical_block_bytes,
                    .nbd_uri = parts_.nbd == nullptr ? "" : parts_.nbd->uri(),
                    .last_move = parts_.disk.last_move()};
    offered.options.disk.path = parts_.disk.origin();
    if (parts_.control == nullptr) {
        offered.options.control.clear();
    }
    Letter letter{.word = "offer", .facts = Json::object(), .state = state::SavedState()};
    GODWIT_TRY(letter.state->add(encode(offered)));
    const auto give = [&](const char* name, const sys::Fd& fd) -> Status {
        return letter.descriptors.add(name, GODWIT_TRY(fd.duplicate()));
    };
    GODWIT_TRY(letter.descriptors.add("image", GODWIT_TRY(parts_.disk.copy_image())));
    if (parts_.nbd != nullptr) {
        GODWIT_TRY(give("nbd", parts_.nbd->listening_socket()));
    }
    if (parts_.vhost != nullptr) {
        GODWIT_TRY(give("vhost", parts_.vhost->listening_socket()));
    }
    if (parts_.control != nullptr) {
        GODWIT_TRY(give("control", *parts_.control));
    }
    GODWIT_TRY(conversation_->send(std::move(letter)));
    GODWIT_TRY(conversation_->expect("prepared", left_of(began_, parts_.limits.prepare)));
    return ok();
}

Status Source::rest() {
    rest_began_ = mark_ = parts_.clock.now();
    const sys::Moment deadline = rest_began_ + parts_.limits.deadline;
    at_rest_ = true;
    parts_.stop_control();
    if (parts_.vhost != nullptr) {
        users_.front_end = GODWIT_TRY(parts_.vhost->freeze(deadline));
    }
    if (parts_.nbd != nullptr) {
        users_.clients = GODWIT_TRY(parts_.nbd->freeze(deadline));
    }
    report_.front_ends = users_.front_end.has_value() ? 1 : 0;
    report_.nbd_clients = users_.clients.size();
    for (const nbd::SavedConnection& client : users_.clients) {
        report_.carried_bytes += client.input.size() + client.output.size();
    }
    part("rest", parts_.clock.now());
    return ok();
}

Status Source::hand_over() {
    token_ = GODWIT_TRY(sys::EventFd::create());
    token_->signal();
    Letter letter{.word = "users", .facts = Json::object(), .state = state::SavedState()};
    GODWIT_TRY(encode(std::move(users_), *letter.state, letter.descriptors));
    GODWIT_TRY(letter.descriptors.add("token", GODWIT_TRY(token_->fd().duplicate())));
    const Status sent = conversation_->send(std::move(letter));
    part("send", parts_.clock.now());
    fault_point("doors.exchange.source.sent");
    return await_running(sent);
}

Status Source::await_running(const Status& sent) {
    const auto running_until = [&](std::chrono::milliseconds limit) {
        return conversation_->expect("running", left_of(rest_began_, limit));
    };
    Result<Letter> running =
        sent.has_value() ? running_until(parts_.limits.deadline) : Result<Letter>(sent.error());
    if (!running.has_value() && token_->drain()) {
        return std::move(running.error()); // Ours again.
    }
    committed_ = true;
    if (!running.has_value() && running.error().code() == ErrorCode::timeout) {
        running = running_until(2 * parts_.limits.deadline);
    }
    if (!running.has_value()) {
        return std::move(running.error())
            .with_context("the successor has taken the export over and does not say that it "
                          "serves it");
    }
    note_running(*running);
    return ok();
}

/// What the successor says of the pause is shown, and decides nothing.
void Source::note_running(const Letter& running) {
    const auto moment = [&](const char* name) {
        const auto number = number_in(running, name);
        return sys::Moment(sys::Nanoseconds(
            number.has_value() && *number < std::numeric_limits<std::int64_t>::max()
                ? static_cast<std::int64_t>(*number)
                : 0));
    };
    const sys::Moment serving = moment("serving_at_ns");
    if (serving < mark_) {
        return;
    }
    part("restore", moment("claimed_at_ns"));
    part("begin", serving);
    report_.pause_us = sys::microseconds_between(rest_began_, serving);
}

void Source::undo(const Error& error) {
    if (at_rest_) {
        if (parts_.vhost != nullptr) {
            parts_.vhost->begin();
        }
        const Status begun = parts_.nbd == nullptr ? ok() : parts_.nbd->begin();
        if (!begun.has_value()) {
            log::error("door_stays_closed", {{"reason", begun.error().to_string()}});
        }
        parts_.begin_control();
        report_.pause_us = sys::microseconds_between(rest_began_, parts_.clock.now());
    }
    fail(Outcome::rolled_back, error);
    if (successor_.has_value()) {
        // One that has ended by itself is told of; any other is ended.
        const bool went = error.code() == ErrorCode::peer_closed;
        const std::string ended = went ? end_of_successor(1s) : "";
        if (!ended.empty()) {
            report_.reason = "the new godwit-blk ended (" + ended + "); its log may say why";
        } else {
            conversation_->say_failed(error);
            discard(successor_->signal(SIGKILL), "it may be gone");
            discard(successor_->wait(end_limit), "its end is not ours to report");
        }
    }
}

std::string Source::end_of_successor(std::chrono::milliseconds patience) {
    const auto ended = successor_->wait(patience);
    return ended.has_value() && ended->has_value() ? (*ended)->to_string() : std::string();
}

} // namespace

Ended run_source(SourceParts parts) {
    return Source(std::move(parts)).run();
}

} // namespace godwit::doors::exchange
