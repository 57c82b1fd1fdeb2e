/// The API as a hostile client sees it: any method, path, query and body against a host without
/// machines; and the flag values of `godwit run`. First byte: which of the two.

#include "cli/run_flags.h"
#include "cli/size_text.h"
#include "control/api.h"

#include <unistd.h>

namespace {

using namespace godwit; // NOLINT(google-build-using-namespace): a main file.

/// A host that cannot start anything: what it is asked must be refused or answered, never crash.
struct Host {
    std::unique_ptr<sys::EventLoop> loop = fresh_loop();
    control::RunDirectory run = directory();
    control::EventLog events{sys::system_clock()};
    control::Metrics metrics;
    control::Operations operations{*loop, events, metrics, sys::system_clock()};
    control::Supervisor supervisor{{.loop = *loop,
                                    .run = run,
                                    .events = events,
                                    .operations = operations,
                                    .metrics = metrics,
                                    .clock = sys::system_clock(),
                                    .vmm_program = "/nonexistent/godwit-vmm"}};
    control::Api api{supervisor, operations, metrics, {.build = {}, .run_directory = "", .pid = 1}};

    static std::unique_ptr<sys::EventLoop> fresh_loop() {
        return GODWIT_MUST(sys::EventLoop::create()); // Descriptors are plenty.
    }
    static control::RunDirectory directory() {
        return GODWIT_MUST(control::RunDirectory::at("/nonexistent/godwit-fuzz")); // A short path.
    }
};

/// The text up to the next line end, which is taken away.
std::string next_line(std::string_view& rest) {
    const std::size_t end = rest.find('\n');
    std::string line(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    return line;
}

/// "METHOD\nPATH\nwait_ms\nBODY"
void ask_api(std::string_view text) {
    static Host host;
    control::ApiRequest request;
    request.method = next_line(text);
    request.path = next_line(text);
    if (const std::string revision = next_line(text); !revision.empty()) {
        request.query["revision"] = revision;
    }
    request.body = text;
    int answers = 0;
    control::ApiResponse answer;
    host.api.handle(
        std::move(request),
        control::Reply<control::ApiResponse>([&](Result<control::ApiResponse> response) {
            ++answers;
            GODWIT_ASSERT(response.has_value());
            answer = std::move(*response);
        }));
    GODWIT_ASSERT(answers == 1);
    GODWIT_ASSERT(answer.status >= 200 && answer.status < 600 && !answer.body.empty());
    GODWIT_ASSERT(host.supervisor.machine_count() == 0);
    const Status served = host.loop->run_once(std::chrono::milliseconds(0));
    GODWIT_ASSERT(served.has_value());
}

/// One flag value per line.
void read_flags(std::string_view text) {
    cli::RunFlags flags;
    flags.name = next_line(text);
    flags.kernel = next_line(text);
    flags.memory = next_line(text);
    flags.disks = {next_line(text)};
    flags.nets = {next_line(text)};
    discard(cli::machine_spec_from(flags, text), "any answer is good");
    const Result<std::uint64_t> bytes = cli::parse_size(flags.memory);
    if (bytes.has_value()) {
        const Result<std::uint64_t> again = cli::parse_size(cli::size_text(*bytes));
        GODWIT_ASSERT(again.has_value() && *again == *bytes);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    if (data[0] == 'a') {
        ask_api(text);
    } else {
        read_flags(text);
    }
    return 0;
}
