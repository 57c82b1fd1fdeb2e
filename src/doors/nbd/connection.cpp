#include "doors/nbd/connection.h"

#include "base/units.h"
#include "sys/stream.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace godwit::doors::nbd {

namespace {

/// How often one pass reads before others get their turn.
constexpr std::uint32_t reads_per_pass = 16;
constexpr std::size_t segments_per_send = 64;
constexpr std::size_t extents_max = 1024;
/// Memory a job keeps for its next command.
constexpr std::uint64_t buffer_bytes_kept = 256 * 1024;

Failure failure_of(const Error& error) {
    switch (error.os_errno()) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return Failure::no_space;
    case EPERM:
    case EROFS:
        return Failure::not_permitted;
    default:
        return Failure::io;
    }
}

} // namespace

Connection::Connection(sys::Fd socket, ExportedDisk& exported, Negotiation negotiation)
    : exported_(exported), disk_(exported.view()), socket_(std::move(socket)),
      negotiation_(std::move(negotiation)), input_(input_bytes) {}

Result<std::unique_ptr<Connection>>
Connection::create(sys::Fd socket, ExportedDisk& exported, Export description) {
    std::unique_ptr<Connection> made(
        new Connection(std::move(socket), exported, Negotiation(std::move(description))));
    GODWIT_TRY(made->rouse());
    return made;
}

std::unique_ptr<Connection> Connection::restore(SavedConnection saved, ExportedDisk& exported) {
    std::unique_ptr<Connection> made(new Connection(
        std::move(saved.socket), exported, Negotiation(std::move(saved.negotiation))));
    made->held_ = true;
    made->frozen_ = true;
    made->reading_ = saved.reading;
    made->input_.resize(std::max(saved.input.size(), input_bytes));
    std::ranges::copy(saved.input, made->input_.begin());
    made->in_end_ = saved.input.size();
    if (made->negotiation_.phase() != Negotiation::Phase::transmission) {
        made->negotiation_.output() = std::move(saved.output); // What it says next comes behind it.
    } else if (!saved.output.empty()) {
        // One more answer; the client has to take it before it gets as much again.
        Job& job = made->take_job({});
        job.extents = std::move(saved.output);
        job.data = job.extents;
        job.head.size = 0;
        job.segment = {.iov_base = nullptr, .iov_len = job.extents.size()};
        made->busy_bytes_ += job.extents.size();
        made->answers_.push_back(&job);
    }
    return made;
}

Status Connection::rouse() {
    held_ = false;
    frozen_ = false;
    if (!watch_.active() && !broken_) {
        watched_ = EPOLLIN;
        watch_ = GODWIT_TRY(exported_.loop().watch(
            socket_, EPOLLIN, [this](std::uint32_t events) { on_ready(events); }));
    }
    return ok();
}

Result<SavedConnection> Connection::save() {
    frozen_ = true;
    SavedConnection saved{.socket = GODWIT_TRY(socket_.duplicate()),
                          .negotiation = negotiation_.state(),
                          .reading = reading_};
    const auto append = [](std::vector<std::byte>& to, std::span<const std::byte> bytes) {
        to.insert(to.end(), bytes.begin(), bytes.end());
    };
    if (filling_ != nullptr) {
        append(saved.input, filling_head_);
        append(saved.input, filling_->buffer.bytes().first(filled_bytes_));
    }
    append(saved.input, std::span(input_).subspan(in_first_, in_end_ - in_first_));
    saved.output = negotiation_.output();
    std::size_t sent = sent_of_first_;
    for (const Job* job : answers_) {
        for (const std::span<const std::byte> part :
             {std::span<const std::byte>(job->head.bytes).first(job->head.size), job->data}) {
            const std::size_t skipped = std::min(sent, part.size());
            sent -= skipped;
            append(saved.output, part.subspan(skipped));
        }
    }
    return saved;
}

bool Connection::over() const noexcept {
    const bool silent = answers_.empty() && !negotiation_.has_output();
    return !reading_ && in_flight_ == 0 && (broken_ || silent);
}

bool Connection::may_read() const noexcept {
    return reading_ && !held_ && busy_bytes_ < commands_bytes_max &&
           (idle_.size() + commands_max > jobs_.size());
}

void Connection::stop_reading() {
    reading_ = false;
}

void Connection::abandon() {
    reading_ = false;
    broken_ = true;
}

void Connection::end(Status outcome) {
    if (!outcome.has_value() && outcome_.has_value() &&
        outcome.error().code() != ErrorCode::peer_closed) {
        outcome_ = std::move(outcome);
    }
    reading_ = false;
}

void Connection::on_ready(std::uint32_t events) {
    if ((events & EPOLLIN) != 0) {
        read_all();
    }
    if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
        abandon();
        watch_.reset(); // It would be ready for ever.
    }
}

void Connection::read_all() {
    for (std::uint32_t i = 0; i < reads_per_pass && may_read(); ++i) {
        const Result<Got> got = read_more();
        if (!got.has_value()) {
            end(got.error());
            return;
        }
        const Status parsed = parse();
        if (!parsed.has_value()) {
            end(parsed);
            return;
        }
        // Clients send a write's payload right behind its request: most often it is there by now.
        if (*got == Got::nothing || (*got == Got::some && filling_ == nullptr)) {
            return;
        }
    }
}

/// One system call's worth: into the payload that is awaited, else into the input.
Result<Connection::Got> Connection::read_more() {
    std::span<std::byte> room;
    if (filling_ != nullptr) {
        room = filling_->buffer.bytes().subspan(filled_bytes_,
                                                filling_->command.bytes - filled_bytes_);
    } else {
        if (in_first_ > 0) {
            std::memmove(input_.data(), input_.data() + in_first_, in_end_ - in_first_);
            in_end_ -= in_first_;
            in_first_ = 0;
        }
        if (input_.size() > input_bytes && in_end_ <= input_bytes) {
            input_.resize(input_bytes); // What a predecessor left is done.
            input_.shrink_to_fit();
        }
        room = std::span(input_).subspan(in_end_);
        if (room.empty()) {
            return Got::nothing; // Everything waits for commands to end.
        }
    }
    const Result<std::size_t> got = sys::read_some(socket_, room);
    if (!got.has_value()) {
        return got.error().code() == ErrorCode::busy ? Result<Got>(Got::nothing) : got.error();
    }
    if (*got == 0) {
        return Error(ErrorCode::peer_closed, "the client closed the connection");
    }
    if (filling_ != nullptr) {
        filled_bytes_ += *got;
    } else {
        in_end_ += *got;
    }
    return *got == room.size() ? Got::all_asked_for : Got::some;
}

Status Connection::parse() {
    while (may_read() && GODWIT_TRY(parse_one())) {
    }
    return ok();
}

Result<bool> Connection::parse_one() {
    const std::span<const std::byte> input =
        std::span(input_).subspan(in_first_, in_end_ - in_first_);
    if (negotiation_.phase() == Negotiation::Phase::ended) {
        reading_ = false;
        return false;
    }
    if (negotiation_.phase() != Negotiation::Phase::transmission) {
        const std::size_t taken = GODWIT_TRY(negotiation_.take(input));
        in_first_ += taken;
        return taken > 0;
    }
    if (filling_ != nullptr) {
        const std::size_t part =
            std::min<std::size_t>(input.size(), filling_->command.bytes - filled_bytes_);
        if (part > 0) {
            std::memcpy(filling_->buffer.bytes().data() + filled_bytes_, input.data(), part);
            in_first_ += part;
            filled_bytes_ += part;
        }
        if (filled_bytes_ < filling_->command.bytes) {
            return false;
        }
        submit(*std::exchange(filling_, nullptr));
        return true;
    }
    if (input.size() < request_bytes) {
        return false;
    }
    const Command command = GODWIT_TRY(read_command(input));
    std::ranges::copy(input.first(request_bytes), filling_head_.begin());
    in_first_ += request_bytes;
    if (command.type == CommandType::disconnect) {
        reading_ = false;
        return false;
    }
    begin(command);
    return true;
}

Connection::Job& Connection::take_job(const Command& command) {
    if (idle_.empty()) {
        jobs_.push_back(std::make_unique<Job>());
        jobs_.back()->connection = this;
        idle_.push_back(jobs_.back().get());
    }
    Job& job = *idle_.back();
    idle_.pop_back();
    job.command = command;
    job.data = {};
    return job;
}

void Connection::begin(const Command& command) {
    Job& job = take_job(command);
    const bool status = command.type == CommandType::block_status;
    job.failure = !status                     ? to_request(command, disk_->geometry(), job.block)
                  : negotiation_.allocation() ? check_status(command, disk_->geometry())
                                              : Failure::invalid;
    const bool moves = command.type == CommandType::write ||
                       (command.type == CommandType::read && job.failure == Failure::none);
    if (moves) {
        busy_bytes_ += command.bytes;
        if (job.buffer.size() < command.bytes) {
            job.buffer = block::AlignedBuffer(
                std::max<std::uint64_t>(round_up(command.bytes, page_size), page_size));
        }
        if (job.buffer.size() < command.bytes) {
            // No memory for it, so that what follows cannot be told apart either.
            job.command.bytes = 0;
            end(Error(ErrorCode::resource_exhausted, "no memory for a command's data"));
            idle_.push_back(&job);
            return;
        }
        job.segment = {.iov_base = job.buffer.bytes().data(), .iov_len = command.bytes};
        job.block.segments = std::span(&job.segment, 1);
    }
    if (command.type == CommandType::write) {
        filling_ = &job;
        filled_bytes_ = 0;
        return;
    }
    if (status && job.failure == Failure::none) {
        answer_status(job);
        return;
    }
    submit(job);
}

void Connection::submit(Job& job) {
    if (job.failure != Failure::none) {
        answer(job);
        return;
    }
    job.block.done = &Connection::done;
    job.block.owner = &job;
    ++in_flight_;
    submitted_ = true;
    disk_->submit(job.block);
}

void Connection::answer_status(Job& job) {
    const bool one = (job.command.flags & command_flag::request_one) != 0;
    job.extents.clear();
    for (const ExportedDisk::Extent& extent :
         exported_.extents(job.command.offset, job.command.bytes, one ? 1 : extents_max)) {
        put(job.extents, static_cast<std::uint32_t>(extent.bytes));
        put(job.extents, extent.hole ? state_hole | state_zero : 0U);
    }
    job.head = status_reply(job.command, static_cast<std::uint32_t>(job.extents.size()));
    job.data = job.extents;
    answers_.push_back(&job);
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): the interface passes it by value.
void Connection::done(block::BlockRequest& block, Status status) noexcept {
    Job& job = *static_cast<Job*>(block.owner);
    job.failure = status.has_value() ? Failure::none : failure_of(status.error());
    --job.connection->in_flight_;
    job.connection->answer(job);
}

void Connection::answer(Job& job) {
    const ReplyForm form =
        negotiation_.structured_replies() ? ReplyForm::structured : ReplyForm::simple;
    if (job.command.type == CommandType::read && job.failure == Failure::none) {
        job.head = read_reply(job.command, form);
        job.data = job.buffer.bytes().first(job.command.bytes);
    } else {
        job.head = plain_reply(job.command, form, job.failure);
    }
    answers_.push_back(&job);
}

void Connection::retire(Job& job) {
    if (job.segment.iov_len > 0) {
        busy_bytes_ -= job.segment.iov_len;
        job.segment = {};
    }
    if (job.buffer.size() > buffer_bytes_kept) {
        job.buffer = {};
    }
    if (job.extents.capacity() > buffer_bytes_kept) {
        job.extents = {};
    }
    idle_.push_back(&job);
}

void Connection::finish_pass() {
    if (std::exchange(submitted_, false)) {
        disk_->kick();
    }
    send_answers();
    // What waited on the socket, or in the input, for others to end.
    if (may_read() && in_first_ < in_end_) {
        const Status parsed = parse();
        if (!parsed.has_value()) {
            end(parsed);
        }
        if (std::exchange(submitted_, false)) {
            disk_->kick();
        }
        send_answers();
    }
    rearm();
}

void Connection::send_answers() {
    while (!broken_ && !frozen_ && (!answers_.empty() || !negotiation_.output().empty())) {
        const Result<bool> sent = send_some();
        if (!sent.has_value()) {
            abandon();
        } else if (!*sent) {
            return;
        }
    }
    if (broken_) {
        while (!answers_.empty()) {
            retire(*answers_.front());
            answers_.pop_front();
        }
    }
}

/// One system call's worth of answers; false if the socket takes no more now.
Result<bool> Connection::send_some() {
    std::array<iovec, segments_per_send> pieces; // NOLINT: filled as far as it is used
    std::size_t count = 0;
    std::size_t skip = sent_of_first_;
    std::size_t total = 0;
    const auto add = [&](std::span<const std::byte> bytes) {
        const std::size_t skipped = std::min(skip, bytes.size());
        skip -= skipped;
        if (bytes.size() > skipped) {
            // iovec wants a mutable pointer although sendmsg only reads.
            pieces[count++] = {.iov_base = const_cast<std::byte*>(bytes.data() + skipped),
                               .iov_len = bytes.size() - skipped};
            total += bytes.size() - skipped;
        }
    };
    std::vector<std::byte>& greeting = negotiation_.output();
    if (!greeting.empty()) {
        skip = 0;
        add(greeting);
    } else {
        for (const Job* job : answers_) {
            if (count + 2 > pieces.size()) {
                break;
            }
            add(std::span(job->head.bytes).first(job->head.size));
            add(job->data);
        }
    }
    const Result<std::size_t> sent = sys::send_gathered(socket_, std::span(pieces).first(count));
    if (!sent.has_value()) {
        return sent.error().code() == ErrorCode::busy ? Result<bool>(false) : sent.error();
    }
    if (!greeting.empty()) {
        greeting.erase(greeting.begin(), greeting.begin() + static_cast<std::ptrdiff_t>(*sent));
        return *sent == total;
    }
    sent_of_first_ += *sent;
    while (!answers_.empty()) {
        Job& job = *answers_.front();
        const std::size_t bytes = job.head.size + job.data.size();
        if (sent_of_first_ < bytes) {
            break;
        }
        sent_of_first_ -= bytes;
        answers_.pop_front();
        retire(job);
    }
    return *sent == total;
}

void Connection::rearm() {
    if (!watch_.active()) {
        return;
    }
    const bool sends =
        !broken_ && !frozen_ && (!answers_.empty() || !negotiation_.output().empty());
    const std::uint32_t wanted =
        (may_read() ? std::uint32_t{EPOLLIN} : 0U) | (sends ? std::uint32_t{EPOLLOUT} : 0U);
    if (wanted == watched_) {
        return;
    }
    watched_ = wanted;
    if (!exported_.loop().rearm(watch_, wanted).has_value()) {
        abandon();
    }
}

} // namespace godwit::doors::nbd
