#pragma once

/// Lays ACPI tables out one after another: little-endian fields, headers, checksums. Owner thread.

#include "base/units.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace godwit::machine::acpi {

/// Value of an 8-bit checksum field that makes the bytes sum to zero.
[[nodiscard]] std::uint8_t checksum_of(std::span<const std::byte> bytes) noexcept;

/// The bytes of one table. put() writes `width` bytes little-endian at the end.
class TableBytes {
  public:
    /// Begins with a standard header (ACPI 6.4, 5.2.6), whose length and checksum finish() fills.
    TableBytes(std::string_view signature, std::uint8_t revision);

    void put(std::uint64_t value, std::size_t width);
    void put_text(std::string_view text, std::size_t width);
    void put_zeroes(std::size_t count);
    /// A generic address structure in I/O space (5.2.3.2); all zero if `width_bits` is 0.
    void put_port(std::uint16_t port, std::uint8_t width_bits);
    void put_bytes(std::span<const std::byte> bytes);
    [[nodiscard]] std::vector<std::byte> finish() &&;

  private:
    std::vector<std::byte> bytes_;
};

/// Tables placed one after another from `start`, each 64-byte aligned.
class TableArea {
  public:
    explicit TableArea(Gpa start) : start_(start) {}
    /// Copies the table in and says where it lies.
    Gpa place(std::span<const std::byte> table);
    [[nodiscard]] std::vector<std::byte> take() && { return std::move(bytes_); }

  private:
    Gpa start_;
    std::vector<std::byte> bytes_;
};

} // namespace godwit::machine::acpi
