#pragma once

/// What a virtio PCI driver does with a device's registers, for tests: finds the capabilities, goes
/// through negotiation, sets up queues and MSI-X, over a FakeAddressSpace. One thread.

#include "bus/pci/pci_bus.h"
#include "bus/testing/fakes.h"
#include "virtio/testing/driver_queue.h"

#include <cstdint>

namespace godwit::virtio::testing {

/// ECAM address of the tests' buses.
inline constexpr std::uint64_t test_ecam_base = 0xe000'0000;

class DriverRegisters {
  public:
    DriverRegisters(bus::testing::FakeAddressSpace& space, std::uint8_t slot)
        : space_(space), config_(test_ecam_base + (static_cast<std::uint64_t>(slot) << 15U)) {}

    // PCI configuration space.
    [[nodiscard]] std::uint64_t config_read(std::uint64_t offset, std::size_t bytes) const;
    void config_write(std::uint64_t offset, std::size_t bytes, std::uint64_t value) const;
    /// Offset of the n-th capability with this id (vendor-specific ones: of this virtio type).
    [[nodiscard]] std::uint64_t capability(std::uint8_t id, std::uint8_t virtio_type = 0) const;
    /// Where BAR 0 is.
    [[nodiscard]] std::uint64_t bar() const { return config_read(0x10, 4); }
    /// Guest address of the structure a virtio capability points to.
    [[nodiscard]] std::uint64_t structure(std::uint8_t virtio_type) const;
    [[nodiscard]] Gpa doorbell(std::uint16_t queue) const;

    // The common configuration structure.
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, std::size_t bytes) const;
    void write(std::uint64_t offset, std::size_t bytes, std::uint64_t value) const;
    [[nodiscard]] std::uint8_t status() const;
    void set_status(std::uint8_t value) const { write(0x14, 1, value); }
    [[nodiscard]] std::uint64_t offered_features() const;
    void set_features(std::uint64_t features) const;
    void set_queue(std::uint16_t index, const QueueState& queue, std::uint16_t vector) const;
    /// Everything up to and including FEATURES_OK; gives the status read back.
    std::uint8_t negotiate(std::uint64_t features) const;
    /// ... and DRIVER_OK.
    std::uint8_t driver_ok() const;

    // MSI-X.
    void enable_msix() const;
    void program_vector(std::uint16_t vector, bus::MsiMessage message) const;
    void mask_vector(std::uint16_t vector, bool masked) const;

  private:
    bus::testing::FakeAddressSpace& space_;
    std::uint64_t config_;
};

} // namespace godwit::virtio::testing
