#pragma once

/// A mapped range of memory with an owner that knows its length. Move-only.

#include "base/result.h"
#include "sys/fd.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace godwit::sys {

enum class MapMode : std::uint8_t {
    shared,           ///< Read and write, seen by everyone who maps the file.
    shared_read_only, ///< Reads only.
    private_copy,     ///< Copy on write: the file is never changed.
};

class MappedRegion {
  public:
    MappedRegion() = default;
    /// Maps `length_bytes` (not 0) of `fd` from `offset` (page aligned). Without swap reservation.
    [[nodiscard]] static Result<MappedRegion>
    create(const Fd& fd, std::uint64_t offset, std::uint64_t length_bytes, MapMode mode);

    /// Takes `length_bytes` of addresses, a multiple of 2 MiB, on a 2 MiB boundary; whoever touches
    /// them before place() has filled them faults.
    [[nodiscard]] static Result<MappedRegion> reserve(std::uint64_t length_bytes);
    /// Maps part of `fd` at `at_offset` of this reservation. All numbers are page aligned.
    [[nodiscard]] Status place(std::uint64_t at_offset,
                               const Fd& fd,
                               std::uint64_t file_offset,
                               std::uint64_t length_bytes,
                               MapMode mode) const;

    MappedRegion(MappedRegion&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), length_(std::exchange(other.length_, 0)) {}
    MappedRegion& operator=(MappedRegion&& other) noexcept {
        if (this != &other) {
            unmap();
            data_ = std::exchange(other.data_, nullptr);
            length_ = std::exchange(other.length_, 0);
        }
        return *this;
    }
    MappedRegion(const MappedRegion&) = delete;
    MappedRegion& operator=(const MappedRegion&) = delete;
    ~MappedRegion() { unmap(); }

    [[nodiscard]] std::byte* data() const noexcept { return data_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return length_; }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, length_}; }
    /// Has the kernel map the first `bytes` (at most size()) now instead of at the first access.
    [[nodiscard]] Status populate(std::uint64_t bytes) const;
    /// madvise(2) over the whole range; a refusal is an error the caller may discard.
    [[nodiscard]] Status advise(int advice) const;

  private:
    MappedRegion(std::byte* data, std::uint64_t length) : data_(data), length_(length) {}
    void unmap() noexcept;

    std::byte* data_ = nullptr;
    std::uint64_t length_ = 0;
};

/// Has the kernel map part of a mapping for writing now instead of at the first access.
[[nodiscard]] Status populate_for_writing(std::span<std::byte> part);

} // namespace godwit::sys
