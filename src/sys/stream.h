#pragma once

/// Bytes over pipes, terminals and stream sockets: what read(2), write(2), poll(2) and pipe2(2) do,
/// with errors as values. Any thread; one reader and one writer per descriptor.

#include "base/result.h"
#include "sys/fd.h"

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

namespace godwit::sys {

/// The two ends of a pipe, close-on-exec.
struct Pipe {
    Fd read_end;
    Fd write_end;
};
[[nodiscard]] Result<Pipe> create_pipe();

/// Reads what is there: 0 at end of file, busy when a non-blocking descriptor has nothing.
[[nodiscard]] Result<std::size_t> read_some(const Fd& fd, std::span<std::byte> out);
/// Writes what fits: busy when a non-blocking descriptor takes nothing. Never raises SIGPIPE on a
/// socket; elsewhere the process has to ignore it.
[[nodiscard]] Result<std::size_t> write_some(const Fd& fd, std::span<const std::byte> data);

/// The same for pieces of memory in a row, on a socket.
[[nodiscard]] Result<std::size_t> send_gathered(const Fd& socket, std::span<iovec> pieces);

enum class Direction : std::uint8_t { input, output };
/// Waits until `fd` can be read or written (or has hung up): true, or false after `timeout`
/// (negative: for ever).
[[nodiscard]] Result<bool>
wait_ready(const Fd& fd, Direction direction, std::chrono::milliseconds timeout);

} // namespace godwit::sys
