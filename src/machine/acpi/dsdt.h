#pragma once

/// The compiled dsdt.asl. A constant.

#include <cstddef>
#include <span>

namespace godwit::machine::acpi {

[[nodiscard]] std::span<const std::byte> dsdt() noexcept;

} // namespace godwit::machine::acpi
