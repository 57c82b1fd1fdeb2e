#include "cli/console.h"

#include "base/units.h"
#include "control/json_text.h"
#include "sys/directory_watch.h"
#include "sys/event_loop.h"
#include "sys/stream.h"
#include "sys/terminal.h"
#include "sys/unix_socket.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>

#include <array>
#include <cstdio>
#include <optional>

namespace godwit::cli {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t chunk_bytes = 16 * kib;
/// Typed bytes the guest has not taken yet; more is not read from stdin.
constexpr std::size_t pending_bytes_max = 64 * kib;
/// A new VMM listens at once; a machine that ended is taken away at once. If nothing of the two is
/// seen for so long, godwitd is asked again.
constexpr milliseconds look_again{1'000};

} // namespace

bool EscapeFilter::feed(std::string_view typed, std::string& out) {
    for (const char c : typed) {
        if (!pending_) {
            if (c == escape) {
                pending_ = true;
            } else {
                out += c;
            }
            continue;
        }
        pending_ = false;
        if (c == '.') {
            return true;
        }
        out += escape;
        if (c != escape) {
            out += c;
        }
    }
    return false;
}

namespace {

/// One connection to the console socket, from connect to its end.
class Attachment {
  public:
    Attachment(sys::EventLoop& loop,
               const sys::Fd& input,
               const sys::Fd& output,
               EscapeFilter* filter)
        : loop_(loop), input_(input), output_(output), filter_(filter) {}

    enum class End : std::uint8_t { left, hung_up };
    [[nodiscard]] Result<End> run(sys::Fd socket, bool& input_open, std::string& pending) {
        socket_ = std::move(socket);
        input_open_ = &input_open;
        pending_ = &pending;
        GODWIT_TRY(sys::set_nonblocking(socket_));
        socket_watch_ = GODWIT_TRY(
            loop_.watch(socket_, EPOLLIN, [this](std::uint32_t events) { serve_socket(events); }));
        GODWIT_TRY(update());
        while (!end_.has_value()) {
            GODWIT_TRY(loop_.run_once(milliseconds(-1)));
        }
        return *end_;
    }

  private:
    void serve_socket(std::uint32_t events) {
        if ((events & EPOLLOUT) != 0) {
            flush();
        }
        if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
            std::array<std::byte, chunk_bytes> bytes{};
            const Result<std::size_t> got = sys::read_some(socket_, bytes);
            if (got.has_value() && *got > 0) {
                const auto text = std::span(bytes).first(*got);
                finish_if(!sys::write_all(output_, text).has_value(), End::left);
            } else if (got.has_value() || got.error().code() != ErrorCode::busy) {
                finish_if(true, End::hung_up);
            }
        }
        finish_if(!update().has_value(), End::hung_up);
    }

    void serve_input() {
        std::array<std::byte, chunk_bytes> bytes{};
        const Result<std::size_t> got = sys::read_some(input_, bytes);
        if (!got.has_value()) {
            if (got.error().code() != ErrorCode::busy) {
                close_input();
            }
            return;
        }
        if (*got == 0) {
            close_input();
            return;
        }
        const std::string_view typed(reinterpret_cast<const char*>(bytes.data()), *got);
        if (filter_ == nullptr) {
            *pending_ += typed;
        } else if (filter_->feed(typed, *pending_)) {
            end_ = End::left;
        }
        flush();
        finish_if(!update().has_value(), End::hung_up);
    }

    void close_input() {
        *input_open_ = false;
        input_watch_.reset();
    }

    void flush() {
        while (!pending_->empty()) {
            const Result<std::size_t> done =
                sys::write_some(socket_, std::as_bytes(std::span(*pending_)));
            if (!done.has_value()) {
                finish_if(done.error().code() != ErrorCode::busy, End::hung_up);
                return;
            }
            pending_->erase(0, *done);
        }
    }

    /// Watches what can make progress now.
    Status update() {
        const bool read_input = *input_open_ && pending_->size() < pending_bytes_max;
        if (!read_input) {
            input_watch_.reset();
        } else if (!input_watch_.active()) {
            Result<sys::EventLoop::Handle> watch =
                loop_.watch(input_, EPOLLIN, [this](std::uint32_t) { serve_input(); });
            if (watch.has_value()) {
                input_watch_ = std::move(*watch);
            } else if (watch.error().code() == ErrorCode::permission_denied) {
                serve_file(); // epoll does not take regular files, which are always ready.
            } else {
                return std::move(watch.error());
            }
        }
        return loop_.rearm(socket_watch_, pending_->empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
    }

    /// A file as input: the next piece of it is read when the last one has gone.
    void serve_file() {
        loop_.post([this] {
            if (!end_.has_value() && *input_open_) {
                serve_input();
            }
        });
    }

    void finish_if(bool condition, End how) {
        if (condition && !end_.has_value()) {
            end_ = how;
        }
    }

    sys::EventLoop& loop_;
    const sys::Fd& input_;
    const sys::Fd& output_;
    EscapeFilter* filter_;
    sys::Fd socket_;
    bool* input_open_ = nullptr;
    std::string* pending_ = nullptr;
    std::optional<End> end_;
    sys::EventLoop::Handle input_watch_;
    sys::EventLoop::Handle socket_watch_;
};

/// The console's socket path, or nothing when the machine is gone.
Result<std::optional<std::string>>
socket_path(const DaemonClient& daemon, const std::string& machine, const std::string& port) {
    const Result<control::Json> info = daemon.get("/api/v1/machines/" + machine);
    if (!info.has_value()) {
        if (info.error().code() == ErrorCode::not_found) {
            return std::optional<std::string>();
        }
        return info.error();
    }
    if (!info->contains("consoles") || !(*info)["consoles"].is_object()) {
        // Its VMM does not answer at the moment: the usual place.
        return std::optional(daemon.run().machine(machine) + "/console-" + port + ".sock");
    }
    std::string path = control::text_member((*info)["consoles"], port);
    if (path.empty()) {
        return Error(ErrorCode::not_found, "machine '" + machine + "' has no " + port + " console");
    }
    return std::optional(std::move(path));
}

/// Connects again after the other side hung up; nothing when the machine is gone.
Result<sys::Fd>
reconnect(const DaemonClient& daemon, const std::string& machine, const std::string& port) {
    for (;;) {
        // Watched before looking, so that nothing is missed in between.
        const Result<sys::DirectoryWatch> watch =
            sys::DirectoryWatch::create(daemon.run().machine(machine));
        Result<DaemonClient> present = DaemonClient::connect(daemon.run().path());
        const DaemonClient& asked = present.has_value() ? *present : daemon;
        const std::optional<std::string> path = GODWIT_TRY(socket_path(asked, machine, port));
        if (!path.has_value()) {
            return sys::Fd();
        }
        Result<sys::Fd> socket = sys::connect_stream(*path);
        if (socket.has_value()) {
            return socket;
        }
        if (watch.has_value()) {
            GODWIT_TRY(sys::wait_ready(watch->fd(), sys::Direction::input, look_again));
        }
    }
}

} // namespace

Result<ConsoleEnd>
attach_console(const DaemonClient& daemon, const std::string& machine, const std::string& port) {
    const std::optional<std::string> path = GODWIT_TRY(socket_path(daemon, machine, port));
    if (!path.has_value()) {
        return Error(ErrorCode::not_found, "there is no machine '" + machine + "'");
    }
    sys::Fd socket = GODWIT_TRY(sys::connect_stream(*path));
    const sys::Fd input = GODWIT_TRY(sys::standard_stream(0));
    const sys::Fd output = GODWIT_TRY(sys::standard_stream(1));
    const std::unique_ptr<sys::EventLoop> loop = GODWIT_TRY(sys::EventLoop::create());
    std::optional<sys::RawTerminal> raw;
    EscapeFilter filter;
    const bool terminal = sys::is_terminal(input);
    if (terminal) {
        std::fprintf(stderr, "Console of %s. Leave with Ctrl-] and then '.'\r\n", machine.c_str());
        raw.emplace(GODWIT_TRY(sys::RawTerminal::enter(input)));
    }
    bool input_open = true;
    std::string pending;
    while (socket.valid()) {
        Attachment attachment(*loop, input, output, terminal ? &filter : nullptr);
        const Attachment::End end =
            GODWIT_TRY(attachment.run(std::move(socket), input_open, pending));
        if (end == Attachment::End::left) {
            return ConsoleEnd::left;
        }
        socket = GODWIT_TRY(reconnect(daemon, machine, port));
    }
    return ConsoleEnd::machine_gone;
}

} // namespace godwit::cli
