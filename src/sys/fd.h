#pragma once

/// File descriptors with an owner. Close-on-exec always. Move-only; one thread at a time.

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace godwit::sys {

class Fd {
  public:
    Fd() = default;
    /// Takes over `raw`, which must be open or -1.
    explicit Fd(int raw) noexcept : raw_(raw) {}
    Fd(Fd&& other) noexcept : raw_(std::exchange(other.raw_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) {
            reset();
            raw_ = std::exchange(other.raw_, -1);
        }
        return *this;
    }
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() { reset(); }

    [[nodiscard]] bool valid() const noexcept { return raw_ >= 0; }
    /// For system calls only; the number is not to be stored.
    [[nodiscard]] int raw() const noexcept { return raw_; }
    /// Gives the descriptor up without closing it.
    [[nodiscard]] int release() noexcept { return std::exchange(raw_, -1); }
    void reset() noexcept;
    /// A second descriptor of the same open file.
    [[nodiscard]] Result<Fd> duplicate() const;

  private:
    int raw_ = -1;
};

/// open(2) with O_CLOEXEC. The error names the path.
[[nodiscard]] Result<Fd> open(const std::string& path, int flags, unsigned mode = 0600);
/// Sealable anonymous memory of `bytes` (memfd_create). `hugetlb` asks for 2 MiB pages.
enum class HugePages : std::uint8_t { none, hugetlb_2m };
[[nodiscard]] Result<Fd>
create_memfd(const std::string& name, std::uint64_t bytes, HugePages huge = HugePages::none);

/// A second open file of the same object, for reading only.
[[nodiscard]] Result<Fd> reopen_read_only(const Fd& fd);

/// Read or write all of the bytes, retrying on EINTR and short counts; peer_closed at end of file.
[[nodiscard]] Status read_exact(const Fd& fd, std::span<std::byte> out);
[[nodiscard]] Status write_all(const Fd& fd, std::span<const std::byte> data);
[[nodiscard]] Status pread_exact(const Fd& fd, std::span<std::byte> out, std::uint64_t offset);
[[nodiscard]] Status
pwrite_all(const Fd& fd, std::span<const std::byte> data, std::uint64_t offset);
/// A whole small file as text; refuses more than `limit_bytes`.
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::uint64_t limit_bytes);
/// Replaces a file atomically: temporary file, fsync, rename.
[[nodiscard]] Status write_file_atomically(const std::string& path, std::string_view text);
/// The same, durable with its name; on an error the file is as it was.
[[nodiscard]] Status replace_file_durably(const std::string& path, std::string_view text);
/// Makes names in the directory of `path` durable.
[[nodiscard]] Status sync_directory_of(const std::string& path);
[[nodiscard]] Result<std::uint64_t> file_size(const Fd& fd);
[[nodiscard]] Status set_nonblocking(const Fd& fd);

/// A counter a thread can wait for (eventfd(2)), non-blocking.
class EventFd {
  public:
    [[nodiscard]] static Result<EventFd> create();
    /// Wraps a descriptor received from a peer that is trusted.
    explicit EventFd(Fd fd) noexcept : fd_(std::move(fd)) {}
    /// Wraps a descriptor of a peer that is not: invalid_argument if it is no eventfd. Made
    /// non-blocking, so that nobody can hold us with a full counter.
    [[nodiscard]] static Result<EventFd> adopt(Fd fd);
    /// Adds one. Safe from any thread and from signal handlers.
    void signal() const noexcept;
    /// Takes the counter back to zero; true if it was not zero.
    bool drain() const noexcept;
    [[nodiscard]] const Fd& fd() const noexcept { return fd_; }
    [[nodiscard]] Result<EventFd> duplicate() const;

  private:
    Fd fd_;
};

} // namespace godwit::sys
