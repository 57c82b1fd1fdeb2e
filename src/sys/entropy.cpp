#include "sys/entropy.h"

#include <sys/random.h>

#include <cerrno>

namespace godwit::sys {

Status SystemRandom::random_bytes(std::span<std::byte> out) noexcept {
    while (!out.empty()) {
        const ssize_t got = ::getrandom(out.data(), out.size(), 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return Error::from_errno(errno, "read random bytes");
        }
        out = out.subspan(static_cast<std::size_t>(got));
    }
    return ok();
}

RandomSource& system_random() noexcept {
    static SystemRandom random;
    return random;
}

} // namespace godwit::sys
