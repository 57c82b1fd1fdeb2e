#pragma once

/// A small vhost-user front end, for tests: it speaks the protocol by the book, or sends whatever a
/// test likes. It holds the guest's memory, which a DriverQueue may work in. One thread.

#include "doors/vhost/protocol.h"
#include "sys/fd.h"
#include "sys/mapping.h"
#include "virtio/testing/driver_queue.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace godwit::doors::testing {

inline constexpr std::uint64_t front_end_ram_bytes = 8ULL << 20U;
/// Where the guest's memory lies in the front end's own addresses, as it tells them.
inline constexpr std::uint64_t front_end_user_base = 0x7f12'3400'0000;

class FrontEnd {
  public:
    struct Reply {
        vhost::Header header;
        std::vector<std::byte> payload;
        std::vector<sys::Fd> fds;
        template <typename T>
        [[nodiscard]] T body() const {
            T value{};
            std::memcpy(&value, payload.data(), std::min(sizeof(T), payload.size()));
            return value;
        }
    };

    /// Connects to a server's path; the test cannot go on if nobody listens.
    explicit FrontEnd(const std::string& path);

    void send(vhost::Request request,
              std::span<const std::byte> payload,
              std::vector<const sys::Fd*> fds = {},
              std::uint32_t flags = vhost::flag_version);
    template <typename T>
        requires std::is_trivially_copyable_v<T>
    void send(vhost::Request request,
              const T& value,
              std::vector<const sys::Fd*> fds = {},
              std::uint32_t flags = vhost::flag_version) {
        send(request, std::as_bytes(std::span(&value, 1)), std::move(fds), flags);
    }
    void send_raw(std::span<const std::byte> bytes, std::vector<const sys::Fd*> fds);
    /// The next answer; nothing if the server closed the connection.
    [[nodiscard]] std::optional<Reply> receive();
    template <typename T>
    [[nodiscard]] Reply ask(vhost::Request request, const T& value) {
        send(request, value);
        return receive().value_or(Reply{});
    }
    [[nodiscard]] Reply ask(vhost::Request request) {
        send(request, std::span<const std::byte>());
        return receive().value_or(Reply{});
    }
    /// A question that any server answers: false if it has closed the connection instead.
    [[nodiscard]] bool alive();

    // By the book.
    void negotiate(std::uint64_t features);
    void share_memory();
    [[nodiscard]] vhost::MemoryRegion region() const;
    void start_ring(std::uint32_t index, const virtio::QueueState& state);
    [[nodiscard]] std::uint32_t stop_ring(std::uint32_t index);

    [[nodiscard]] const sys::Fd& ram() const noexcept { return ram_; }
    [[nodiscard]] std::shared_ptr<memory::GuestMemory> memory() const noexcept { return memory_; }
    [[nodiscard]] const sys::EventFd& kick() const noexcept { return kick_; }
    [[nodiscard]] const sys::EventFd& call() const noexcept { return call_; }
    /// Waits for an interrupt; false after ten seconds.
    [[nodiscard]] bool wait_for_call() const;

  private:
    sys::Fd socket_;
    sys::Fd ram_;
    std::shared_ptr<memory::GuestMemory> memory_;
    sys::EventFd kick_;
    sys::EventFd call_;
};

/// A ring's setup as a front end tells it.
[[nodiscard]] vhost::RingAddresses addresses_of(std::uint32_t index,
                                                const virtio::QueueState& state);

} // namespace godwit::doors::testing
