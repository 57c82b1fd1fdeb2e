#pragma once

/// The conversation of two VMMs over a socket whose messages may be late, lost or repeated. The
/// messages are those of docs/formats/handover-wire.md as far as the ownership depends on them.
/// Tasks of one Executor only.

#include "base/result.h"
#include "handover/owner_record.h"
#include "sim/executor.h"

#include <deque>
#include <memory>
#include <string_view>
#include <utility>

namespace godwit::sim {

enum class Kind : std::uint8_t {
    hello,
    offer,
    prepared,
    take_over,
    running,
    settle,
    settled,
    failed,
    abort,
};
[[nodiscard]] std::string_view name_of(Kind kind) noexcept;

struct Packet {
    Kind kind = Kind::hello;
    handover::InstanceId from;
    std::uint32_t epoch = 0;
    std::uint32_t copy = 0; ///< Which version of the guest the packet carries (world.h); 0 none.
    sys::Moment claimed_at{};
    sys::Moment first_entry_at{};
};

/// How bad the network is. Odds are "one in n", 0 for never.
struct LinkFaults {
    std::uint64_t lost_odds = 0;
    std::uint64_t repeated_odds = 0;
    sys::Nanoseconds delay_max{0};
};

/// One end of the conversation; closed when it is dropped.
class LinkEnd {
  public:
    [[nodiscard]] static std::pair<std::shared_ptr<LinkEnd>, std::shared_ptr<LinkEnd>>
    pair(Executor& executor, const LinkFaults& faults);
    LinkEnd(const LinkEnd&) = delete;
    LinkEnd& operator=(const LinkEnd&) = delete;
    ~LinkEnd() = default;

    /// peer_closed if nobody will read it. What is lost on the way is not an error.
    [[nodiscard]] Status send(const Packet& packet);
    /// The next packet. timeout; peer_closed when all that was sent has been read; a Failed or
    /// Abort of the peer comes back as an error.
    [[nodiscard]] Result<Packet> receive(sys::Nanoseconds limit);
    /// Receives and insists on one kind.
    [[nodiscard]] Result<Packet> expect(Kind kind, sys::Nanoseconds limit);
    /// A packet can be received, or nothing will ever come.
    [[nodiscard]] bool readable() const;

  private:
    struct Letter {
        sys::Moment due;
        Packet packet;
    };
    LinkEnd(Executor& executor, const LinkFaults& faults) : executor_(executor), faults_(faults) {}
    void deliver(const Packet& packet);

    Executor& executor_;
    LinkFaults faults_;
    std::deque<Letter> inbox_;
    std::weak_ptr<LinkEnd> peer_;
};

} // namespace godwit::sim
