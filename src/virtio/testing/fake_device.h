#pragma once

/// A virtio device that does nothing but remember what its transport told it. Two queues. One
/// thread.

#include "virtio/virtio_device.h"

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace godwit::virtio::testing {

class FakeDevice final : public VirtioDevice {
  public:
    static constexpr state::SectionType section{"virtio-fake", state::SectionType::never_written};
    static constexpr std::uint64_t own_feature = 1ULL << 5U;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::block; }
    [[nodiscard]] std::uint64_t features() const noexcept override { return own_feature; }
    [[nodiscard]] std::vector<std::uint16_t> queue_sizes() const override { return {16, 64}; }
    void read_config(std::uint32_t offset, std::span<std::byte> out) override;
    void write_config(std::uint32_t offset, std::span<const std::byte> data) override;
    void attach(DeviceHost& host) override { host_ = &host; }
    [[nodiscard]] Status activate(Activation activation) override;
    void reset() override;
    void wake() override { ++wakes; }
    void quiesce() override { ++quiesces; }
    [[nodiscard]] std::vector<std::optional<QueueState>> queue_states() const override;
    [[nodiscard]] state::SectionType section_type() const override { return section; }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(); }
    [[nodiscard]] Result<state::Saved> save() const override { return state::NoState{}; }
    [[nodiscard]] std::string save_blocker() const override { return blocker; }

    [[nodiscard]] DeviceHost& host() const { return *host_; }

    std::optional<Activation> active;
    std::array<std::byte, 8> config{};
    std::string blocker; ///< What save_blocker() says.
    int resets = 0;
    int wakes = 0;
    int quiesces = 0;
    bool refuse_activation = false;

  private:
    DeviceHost* host_ = nullptr;
};

} // namespace godwit::virtio::testing
