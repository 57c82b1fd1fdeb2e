#pragma once

/// Listening on TCP addresses. Any thread.

#include "base/result.h"
#include "sys/fd.h"

#include <cstdint>
#include <string>

namespace godwit::sys {

struct TcpAddress {
    std::string host; ///< Name or number; empty: every address of this host.
    std::string port;
};

/// "HOST:PORT" or "[HOST]:PORT"; invalid_argument otherwise.
[[nodiscard]] Result<TcpAddress> parse_tcp_address(const std::string& text);

/// A non-blocking listening socket; port 0 takes any that is free.
[[nodiscard]] Result<Fd> listen_tcp(const TcpAddress& address);
[[nodiscard]] Result<std::uint16_t> local_port(const Fd& socket);

/// The next connection of a listening socket of any kind, non-blocking and without delays of small
/// packets; busy when none is waiting.
[[nodiscard]] Result<Fd> accept_stream(const Fd& listener);

} // namespace godwit::sys
