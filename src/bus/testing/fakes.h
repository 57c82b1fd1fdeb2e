#pragma once

/// A machine's buses for tests, without KVM: an address space that dispatches, MSI vectors that
/// count, doorbells that ring when an address is written. Any thread.

#include "bus/bus.h"

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace godwit::bus::testing {

class FakeAddressSpace final : public AddressSpace {
  public:
    [[nodiscard]] Status add(std::uint64_t start, std::uint64_t bytes, BusDevice& device) override;
    void remove(std::uint64_t start) override;

    /// An access as a vCPU makes it; unclaimed addresses read as ones.
    [[nodiscard]] std::uint64_t read(std::uint64_t address, std::size_t bytes);
    void write(std::uint64_t address, std::size_t bytes, std::uint64_t value);
    [[nodiscard]] std::size_t ranges() const;
    [[nodiscard]] bool has(std::uint64_t start) const;

  private:
    struct Range {
        std::uint64_t bytes = 0;
        BusDevice* device = nullptr;
    };
    [[nodiscard]] std::pair<BusDevice*, std::uint64_t> find(std::uint64_t address,
                                                            std::size_t bytes) const;
    mutable std::mutex mutex_;
    std::map<std::uint64_t, Range> ranges_;
};

/// What one vector has seen; outlives the vector.
struct VectorHistory {
    std::optional<MsiMessage> routed;
    std::uint32_t routes = 0;
    std::uint32_t signals = 0; ///< Only while routed.
    std::uint32_t lost = 0;    ///< Signals while not routed: somebody forgot a pending bit.
};

class FakeMsiRouter final : public MsiRouter {
  public:
    [[nodiscard]] Result<std::unique_ptr<MsiVector>> create_vector() override;
    /// The vectors in order of creation.
    [[nodiscard]] VectorHistory vector(std::size_t index) const;
    [[nodiscard]] std::size_t size() const;
    /// Lets the next routes fail.
    void refuse_routes(bool refuse);
    /// Fails create_vector() after this many.
    void limit_vectors(std::size_t count);

  private:
    friend class FakeVector;
    mutable std::mutex mutex_;
    std::vector<std::shared_ptr<VectorHistory>> vectors_;
    bool refuse_ = false;
    std::size_t limit_ = 4096;
};

class FakeDoorbells final : public DoorbellRegistrar {
  public:
    [[nodiscard]] Status add(Gpa address, const sys::EventFd& event) override;
    void remove(Gpa address, const sys::EventFd& event) noexcept override;
    /// A guest write; true if a doorbell hangs there.
    bool ring(Gpa address);
    [[nodiscard]] std::vector<Gpa> addresses() const;
    void refuse(bool refuse) { refuse_ = refuse; }

  private:
    mutable std::mutex mutex_;
    std::map<Gpa, sys::EventFd> bells_;
    bool refuse_ = false;
};

} // namespace godwit::bus::testing
