#include "control/program_probe.h"

#include "control/json_text.h"
#include "sys/stream.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>

#include <array>
#include <csignal>

namespace godwit::control {

ProgramProbe::ProgramProbe(std::string program, sys::Process process, sys::Fd output)
    : program_(std::move(program)), process_(std::move(process)), output_(std::move(output)) {}

ProgramProbe::~ProgramProbe() {
    discard(process_.signal(SIGKILL), "mostly it has ended by itself");
    discard(process_.wait(std::chrono::milliseconds(1'000)), "a killed child is waited for");
}

Result<std::shared_ptr<ProgramProbe>>
ProgramProbe::start(sys::EventLoop& loop, const std::string& program, Reply<std::string>& reply) {
    sys::Pipe pipe = GODWIT_TRY(sys::create_pipe());
    const sys::SpawnOptions options{.program = program,
                                    .arguments = {"--describe"},
                                    .fds = {},
                                    .standard_error = &pipe.write_end};
    sys::Process process = GODWIT_TRY(sys::Process::spawn(options));
    pipe.write_end.reset();
    std::shared_ptr<ProgramProbe> probe(
        new ProgramProbe(program, std::move(process), std::move(pipe.read_end)));
    const std::weak_ptr<ProgramProbe> weak = probe;
    probe->watch_ = GODWIT_TRY(loop.watch(probe->output_, EPOLLIN, [weak](std::uint32_t) {
        if (const auto self = weak.lock()) {
            self->read();
        }
    }));
    probe->timer_ = GODWIT_TRY(loop.schedule(time_max, {}, [weak] {
        if (const auto self = weak.lock()) {
            const Error late(ErrorCode::timeout, "it did not answer in time");
            self->decide(&late);
        }
    }));
    probe->reply_ = std::move(reply);
    return probe;
}

void ProgramProbe::read() {
    std::array<std::byte, 4096> bytes{};
    const Result<std::size_t> got = sys::read_some(output_, bytes);
    if (!got.has_value()) {
        decide(&got.error());
    } else if (*got == 0) {
        decide(nullptr);
    } else if (text_.size() + *got > output_bytes_max) {
        const Error large(ErrorCode::corrupt, "it says too much");
        decide(&large);
    } else {
        text_.append(reinterpret_cast<const char*>(bytes.data()), *got);
    }
}

void ProgramProbe::decide(const Error* why) {
    watch_.reset();
    timer_.reset();
    const Result<Json> description = why == nullptr ? parse_json(text_) : Result<Json>(*why);
    if (description.has_value() && text_member(*description, "program") == "godwit-vmm") {
        reply_(std::move(text_));
        return;
    }
    reply_(Error(ErrorCode::unsupported,
                 "'" + program_ + "' does not describe itself as a godwit-vmm" +
                     (why == nullptr ? std::string() : ": " + why->to_string())));
}

} // namespace godwit::control
