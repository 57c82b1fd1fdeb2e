#pragma once

/// The conversation of an exchange over one message socket (docs/formats/handover-wire.md).
/// Everything received is checked: unknown messages, wrong order, limits. One thread per end.

#include "base/error.h"
#include "base/result.h"
#include "handover/timing.h"
#include "machine/mirror.h"
#include "machine/wiring.h"
#include "sys/fd_manifest.h"
#include "sys/unix_socket.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace godwit::exchange {

inline constexpr std::uint32_t protocol_version = 1;
inline constexpr std::uint64_t state_buffer_bytes = 64ULL << 20U;
/// What is touched before the pause; a state may be larger.
inline constexpr std::uint64_t state_bytes_usual = 256ULL << 10U;
inline constexpr std::size_t frames_max = 1024;
/// For filling page tables: what is not mapped by then faults later.
inline constexpr std::chrono::milliseconds warm_time_max = std::chrono::seconds(5);

struct SectionKind {
    std::string name;
    std::uint32_t version = 0;
    bool required = true;
};

struct Hello {
    std::uint32_t protocol = protocol_version;
    std::uint32_t instance = 0;
    std::string version;
    std::string build_id;
    bool takes_previews = false; ///< Knows Preview and Grant.
    bool takes_record_with_grant = false;
    bool takes_devices_ahead = false;  ///< Knows Devices.
    std::vector<SectionKind> sections; ///< What it reads; empty from builds that do not say it.
};

/// A sampled page of guest RAM (its index in the backing) and the host frame that holds it.
struct Frame {
    std::uint64_t page = 0;
    std::uint64_t host_frame = 0;
};

struct Offer {
    std::uint32_t protocol = protocol_version;
    std::uint32_t instance = 0;
    std::uint32_t epoch = 0;
    /// The guest is paused on request and stays so at the destination.
    bool paused = false;
    /// "ram" may only be read, disks and taps come with Grant, after a Preview that was mirrored.
    bool without_rights = false;
    std::string spec_json;
    std::vector<SectionKind> sections;
    std::vector<Frame> frames;
    machine::Wiring wiring;
    sys::FdManifest descriptors;
};

struct Prepared {};

/// One generation of what the successor mirrors while the guest runs. What the vCPUs' state was a
/// moment ago lies in the state buffer; 0 bytes: nothing new of it.
struct Preview {
    std::uint32_t generation = 0;
    std::uint64_t state_bytes = 0;
    machine::Wiring wiring;
};

/// What the successor has built by that generation, reckoned from its own machine.
struct Previewed {
    std::uint32_t generation = 0;
    machine::MirrorDigest mirror;
    std::uint32_t frames_identical = 0; ///< Of those in the offer, without touching others.
};

/// The right to change what belongs to the machine: RAM, disks, taps.
struct Grant {
    sys::FdManifest descriptors;
    bool fetch_later = false; ///< Page tables once the guest runs there (Timing::early).
};

struct Granted {
    std::uint64_t warmed_bytes = 0; ///< Of RAM, mapped already.
    bool second_level = false;      ///< KVM's own tables are filled too.
};

/// The devices are at rest while the guest runs: what they are now lies in the state buffer, to be
/// loaded already.
struct Devices {
    std::uint64_t state_bytes = 0;
};

struct DevicesLoaded {};

struct TakeOver {
    std::uint64_t state_bytes = 0;
    bool devices_ahead = false; ///< They still are what was loaded; the state is without them.
    sys::FdManifest descriptors;
};

/// What had been done when, for the report.
struct Mark {
    std::string name;
    std::int64_t at_ns = 0;
};
inline constexpr std::size_t marks_max = 64;
inline constexpr std::size_t mark_name_bytes_max = 32;

struct Running {
    std::uint32_t epoch = 0;
    std::int64_t claimed_at_ns = 0;
    std::int64_t first_entry_ns = 0; ///< 0 if the guest is paused and was not entered.
    std::vector<Mark> marks;
};

struct Settle {};

struct SettleAnswer {
    std::uint32_t frames_sampled = 0;
    std::uint32_t frames_identical = 0;
    handover::Fetched fetched; ///< After Grant::fetch_later.
};

struct Failed {
    ErrorCode code = ErrorCode::internal;
    std::string message;
};

struct Abort {
    std::string reason;
};

using WireMessage = std::variant<Hello,
                                 Offer,
                                 Prepared,
                                 TakeOver,
                                 Running,
                                 Settle,
                                 SettleAnswer,
                                 Failed,
                                 Abort,
                                 Preview,
                                 Previewed,
                                 Grant,
                                 Granted,
                                 Devices,
                                 DevicesLoaded>;

[[nodiscard]] Status send(const sys::MessageSocket& socket, const WireMessage& message);
/// The next message. A Failed or Abort of the peer comes back as an Error, unless asked for.
[[nodiscard]] Result<WireMessage> receive(const sys::MessageSocket& socket,
                                          std::chrono::milliseconds timeout);
/// As receive(), but ends with cancelled as soon as `cancel` is readable.
[[nodiscard]] Result<WireMessage>
receive(const sys::MessageSocket& socket, std::chrono::milliseconds timeout, const sys::Fd& cancel);
/// Turns bytes and descriptors of one packet into a message; corrupt if they make none.
[[nodiscard]] Result<WireMessage> decode(sys::Message packet);

/// Receives and insists on one kind of message.
template <typename Wanted, typename... Cancel>
[[nodiscard]] Result<Wanted> expect(const sys::MessageSocket& socket,
                                    std::chrono::milliseconds timeout,
                                    const Cancel&... cancel) {
    WireMessage message = GODWIT_TRY(receive(socket, timeout, cancel...));
    if (auto* wanted = std::get_if<Wanted>(&message)) {
        return std::move(*wanted);
    }
    return Error(ErrorCode::corrupt,
                 "the peer sent message " + std::to_string(message.index()) + " out of order");
}

} // namespace godwit::exchange
