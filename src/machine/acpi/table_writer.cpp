#include "machine/acpi/table_writer.h"

#include <numeric>

namespace godwit::machine::acpi {

namespace {
constexpr std::size_t length_offset = 4;
constexpr std::size_t checksum_offset = 9;
constexpr std::size_t table_alignment = 64; ///< What the FACS needs.
} // namespace

std::uint8_t checksum_of(std::span<const std::byte> bytes) noexcept {
    std::uint8_t sum = 0;
    for (const std::byte byte : bytes) {
        sum = static_cast<std::uint8_t>(sum + std::to_integer<std::uint8_t>(byte));
    }
    return static_cast<std::uint8_t>(0U - sum);
}

TableBytes::TableBytes(std::string_view signature, std::uint8_t revision) {
    put_text(signature, 4);
    put(0, 4); // length
    put(revision, 1);
    put(0, 1); // checksum
    put_text("GODWIT", 6);
    put_text("GODWITVM", 8);
    put(1, 4); // OEM revision
    put_text("GDWT", 4);
    put(1, 4); // creator revision
}

void TableBytes::put(std::uint64_t value, std::size_t width) {
    for (std::size_t i = 0; i < width; ++i) {
        bytes_.push_back(static_cast<std::byte>(value >> (8 * i)));
    }
}

void TableBytes::put_text(std::string_view text, std::size_t width) {
    for (std::size_t i = 0; i < width; ++i) {
        bytes_.push_back(i < text.size() ? static_cast<std::byte>(text[i]) : std::byte{' '});
    }
}

void TableBytes::put_zeroes(std::size_t count) {
    bytes_.resize(bytes_.size() + count);
}

void TableBytes::put_port(std::uint16_t port, std::uint8_t width_bits) {
    constexpr std::uint8_t system_io = 1;
    const bool byte_access = width_bits == 8;
    put(width_bits == 0 ? 0 : system_io, 1);
    put(width_bits, 1);
    put(0, 1);
    put(byte_access ? 1 : 0, 1);
    put(port, 8);
}

void TableBytes::put_bytes(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> TableBytes::finish() && {
    const auto length = static_cast<std::uint32_t>(bytes_.size());
    for (std::size_t i = 0; i < 4; ++i) {
        bytes_[length_offset + i] = static_cast<std::byte>(length >> (8 * i));
    }
    bytes_[checksum_offset] = std::byte{0};
    bytes_[checksum_offset] = std::byte{checksum_of(bytes_)};
    return std::move(bytes_);
}

Gpa TableArea::place(std::span<const std::byte> table) {
    bytes_.resize(round_up(bytes_.size(), table_alignment));
    const Gpa at{start_.value + bytes_.size()};
    bytes_.insert(bytes_.end(), table.begin(), table.end());
    return at;
}

} // namespace godwit::machine::acpi
