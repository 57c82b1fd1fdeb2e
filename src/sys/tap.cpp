#include "sys/tap.h"

#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <fcntl.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace godwit::sys {

namespace {

std::string creation_hint(const std::string& name, std::size_t queues) {
    return "ip tuntap add dev " + name + " mode tap" + (queues > 1 ? " multi_queue" : "") +
           " && ip link set " + name + " up";
}

/// The interface's index; not_found if there is none. Asked first, because TUNSETIFF would create.
Result<unsigned> existing_interface(const std::string& name, std::size_t queues) {
    if (name.empty() || name.size() >= IFNAMSIZ || name.find_first_of("/ %") != std::string::npos) {
        return Error(ErrorCode::invalid_argument,
                     "'" + name + "' is not the name of a network interface: give 1 to " +
                         std::to_string(IFNAMSIZ - 1) + " characters without '/', '%' or blanks");
    }
    const unsigned index = ::if_nametoindex(name.c_str());
    if (index == 0) {
        return Error(ErrorCode::not_found,
                     "the tap '" + name +
                         "' does not exist: create it with: " + creation_hint(name, queues));
    }
    return index;
}

Result<Fd> open_tun_device() {
    auto fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (!fd.has_value()) {
        return std::move(fd.error()).with_context("open a tap (is the kernel module tun loaded?)");
    }
    return fd;
}

ifreq request_for(const std::string& name, int flags) {
    ifreq request{};
    std::memcpy(request.ifr_name, name.data(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1));
    request.ifr_flags = static_cast<short>(flags);
    return request;
}

Error attach_error(int os_errno, const std::string& name, std::size_t queues) {
    const std::string tap = "the tap '" + name + "' ";
    switch (os_errno) {
    case EBUSY:
        return Error(ErrorCode::busy, tap + "is in use by another process");
    case E2BIG:
        return Error(ErrorCode::busy, tap + "has no free queue left");
    case EPERM:
    case EACCES:
        return Error(ErrorCode::permission_denied,
                     tap + "belongs to another user: run as root, or create it anew with: " +
                         creation_hint(name, queues) + " (and 'user NAME')");
    case EINVAL:
        return Error(ErrorCode::invalid_argument,
                     tap + "cannot be opened with " + std::to_string(queues) +
                         " queue pairs: it is not a tap, or was made for another number; "
                         "create it anew with: " +
                         creation_hint(name, queues));
    default:
        return Error::from_errno(os_errno, "attach to " + tap);
    }
}

Result<Fd> attach_queue(const std::string& name, std::size_t queues, unsigned expected_index) {
    const Fd device = GODWIT_TRY(open_tun_device());
    const int flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    ifreq request = request_for(name, queues > 1 ? flags | IFF_MULTI_QUEUE : flags);
    int result = ::ioctl(device.raw(), TUNSETIFF, &request);
    if (result != 0 && errno == EINVAL && queues == 1) {
        // One queue of an interface made for several.
        request = request_for(name, flags | IFF_MULTI_QUEUE);
        result = ::ioctl(device.raw(), TUNSETIFF, &request);
    }
    if (result != 0) {
        return attach_error(errno, name, queues);
    }
    if (::if_nametoindex(name.c_str()) != expected_index) {
        // It went between the look and the attach, and the kernel made a new one that goes with
        // this descriptor.
        return Error(ErrorCode::not_found,
                     "the tap '" + name + "' was removed while it was opened");
    }
    return device.duplicate();
}

} // namespace

Result<Tap> Tap::open(const std::string& name, std::size_t queues) {
    if (queues < 1 || queues > tap_queues_max) {
        return Error(ErrorCode::invalid_argument,
                     std::to_string(queues) + " queue pairs: give 1 to " +
                         std::to_string(tap_queues_max));
    }
    const unsigned index = GODWIT_TRY(existing_interface(name, queues));
    std::vector<Fd> fds;
    for (std::size_t i = 0; i < queues; ++i) {
        fds.push_back(GODWIT_TRY(attach_queue(name, queues, index)));
    }
    const int header_bytes = tap_header_bytes;
    if (::ioctl(fds.front().raw(), TUNSETVNETHDRSZ, &header_bytes) != 0) {
        return Error::from_errno(errno, "set the header size of the tap '" + name + "'");
    }
    Tap tap(std::move(fds));
    GODWIT_TRY(tap.set_offloads({}));
    return tap;
}

Result<Tap> Tap::adopt(std::vector<Fd> queues) {
    if (queues.empty() || queues.size() > tap_queues_max) {
        return Error(ErrorCode::corrupt,
                     std::to_string(queues.size()) + " descriptors for a tap: 1 to " +
                         std::to_string(tap_queues_max) + " were expected");
    }
    for (const Fd& fd : queues) {
        ifreq request{};
        int header_bytes = 0;
        if (::ioctl(fd.raw(), TUNGETIFF, &request) != 0 ||
            ::ioctl(fd.raw(), TUNGETVNETHDRSZ, &header_bytes) != 0) {
            return Error(ErrorCode::corrupt, "a descriptor that should be a tap is none");
        }
        if ((request.ifr_flags & IFF_TAP) == 0 || header_bytes != int{tap_header_bytes}) {
            return Error(ErrorCode::corrupt, "a tap handed over is not set up for virtio-net");
        }
        GODWIT_TRY(set_nonblocking(fd));
    }
    return Tap(std::move(queues));
}

Result<std::string> Tap::name() const {
    ifreq request{};
    if (::ioctl(queues_.front().raw(), TUNGETIFF, &request) != 0) {
        return Error::from_errno(errno, "ask a tap for its name");
    }
    request.ifr_name[IFNAMSIZ - 1] = '\0';
    return std::string(request.ifr_name);
}

Status Tap::set_offloads(const TapOffloads& offloads) const {
    unsigned long flags = 0;
    if (offloads.checksum) {
        flags |= TUN_F_CSUM;
        flags |= offloads.tso4 ? TUN_F_TSO4 : 0UL;
        flags |= offloads.tso6 ? TUN_F_TSO6 : 0UL;
        flags |= offloads.ecn && (offloads.tso4 || offloads.tso6) ? TUN_F_TSO_ECN : 0UL;
    }
    if (::ioctl(queues_.front().raw(), TUNSETOFFLOAD, flags) != 0) {
        return Error::from_errno(errno, "set the offloads of a tap");
    }
    return ok();
}

Status Tap::set_active_queues(std::size_t count) const {
    if (count < 1 || count > queues_.size()) {
        return Error(ErrorCode::invalid_argument,
                     std::to_string(count) + " active queues of a tap that has " +
                         std::to_string(queues_.size()));
    }
    for (std::size_t i = 1; i < queues_.size(); ++i) {
        ifreq request{};
        if (::ioctl(queues_[i].raw(), TUNGETIFF, &request) != 0) {
            return Error::from_errno(errno, "look at a queue of a tap");
        }
        const bool attached = (request.ifr_flags & IFF_DETACH_QUEUE) == 0;
        if (attached == (i < count)) {
            continue;
        }
        request = {};
        request.ifr_flags = static_cast<short>(i < count ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
        if (::ioctl(queues_[i].raw(), TUNSETQUEUE, &request) != 0) {
            return Error::from_errno(errno, "switch a queue of a tap");
        }
    }
    return ok();
}

namespace {

PacketResult result_of(ssize_t count, int os_errno) noexcept {
    if (count >= 0) {
        return {.outcome = PacketOutcome::done, .bytes = static_cast<std::size_t>(count)};
    }
    switch (os_errno) {
    case EAGAIN:
    case EINTR: // A signal before anything moved: the loop comes back.
        return {.outcome = PacketOutcome::would_block};
    case EBADFD: // The tap was deleted (drivers/net/tun.c).
    case EBADF:
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return {.outcome = PacketOutcome::gone};
    default:
        return {.outcome = PacketOutcome::refused};
    }
}

int segment_count(std::span<const iovec> segments) noexcept {
    return static_cast<int>(std::min(segments.size(), packet_segments_max));
}

} // namespace

PacketResult read_packet(const Fd& fd, std::span<const iovec> into) noexcept {
    const ssize_t count = ::readv(fd.raw(), into.data(), segment_count(into));
    const PacketResult result = result_of(count, errno);
    if (result.outcome == PacketOutcome::done && result.bytes == 0) {
        return {.outcome = PacketOutcome::gone}; // End of a socket; a tap never reads empty.
    }
    return result;
}

PacketResult write_packet(const Fd& fd, std::span<const iovec> from) noexcept {
    const ssize_t count = ::writev(fd.raw(), from.data(), segment_count(from));
    return result_of(count, errno);
}

} // namespace godwit::sys
