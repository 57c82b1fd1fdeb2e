#include "sys/terminal.h"

#include <sys/ioctl.h>

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

namespace godwit::sys {

bool is_terminal(const Fd& fd) noexcept {
    return ::isatty(fd.raw()) == 1;
}

unsigned terminal_columns(const Fd& fd) noexcept {
    winsize size{};
    if (::ioctl(fd.raw(), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
        return 80;
    }
    return size.ws_col;
}

Result<Fd> standard_stream(int number) {
    Fd fd(::fcntl(number, F_DUPFD_CLOEXEC, 3));
    if (!fd.valid()) {
        return Error::from_errno(errno, "use standard stream " + std::to_string(number));
    }
    return fd;
}

namespace {

constexpr std::array<int, 4> ending_signals{SIGHUP, SIGTERM, SIGINT, SIGQUIT};

/// What the signal handler restores. It is only read while `terminal_to_restore` is not negative.
termios settings_to_restore{};
std::atomic<int> terminal_to_restore{-1};

void restore_and_end(int number) {
    const int raw = terminal_to_restore.exchange(-1);
    if (raw >= 0) {
        ::tcsetattr(raw, TCSANOW, &settings_to_restore);
    }
    struct sigaction standard{};
    standard.sa_handler = SIG_DFL;
    ::sigaction(number, &standard, nullptr);
    ::raise(number);
}

} // namespace

struct RawTerminal::Saved {
    Fd fd;
    termios settings{};
    std::array<struct sigaction, ending_signals.size()> actions{};

    Saved() = default;
    Saved(const Saved&) = delete;
    Saved& operator=(const Saved&) = delete;
    ~Saved() {
        terminal_to_restore.store(-1);
        ::tcsetattr(fd.raw(), TCSADRAIN, &settings);
        for (std::size_t i = 0; i < ending_signals.size(); ++i) {
            ::sigaction(ending_signals[i], &actions[i], nullptr);
        }
    }
};

RawTerminal::RawTerminal(std::unique_ptr<Saved> saved) noexcept : saved_(std::move(saved)) {}
RawTerminal::RawTerminal(RawTerminal&&) noexcept = default;
RawTerminal& RawTerminal::operator=(RawTerminal&&) noexcept = default;
RawTerminal::~RawTerminal() = default;

Result<RawTerminal> RawTerminal::enter(const Fd& fd) {
    termios present{};
    if (::tcgetattr(fd.raw(), &present) != 0) {
        return Error::from_errno(errno, "read the terminal's settings");
    }
    Fd own = GODWIT_TRY(fd.duplicate());
    auto saved = std::make_unique<Saved>();
    saved->fd = std::move(own);
    saved->settings = present;
    settings_to_restore = saved->settings;
    terminal_to_restore.store(saved->fd.raw());
    struct sigaction restoring{};
    restoring.sa_handler = restore_and_end;
    for (std::size_t i = 0; i < ending_signals.size(); ++i) {
        ::sigaction(ending_signals[i], &restoring, &saved->actions[i]);
    }
    termios raw_settings = saved->settings;
    ::cfmakeraw(&raw_settings);
    if (::tcsetattr(fd.raw(), TCSADRAIN, &raw_settings) != 0) {
        return Error::from_errno(errno, "put the terminal into raw mode");
    }
    return RawTerminal(std::move(saved));
}

} // namespace godwit::sys
