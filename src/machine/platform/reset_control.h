#pragma once

/// The ways a PC guest asks for a reset: the reset control register 0xCF9 (value 6, as the FADT
/// says) and the keyboard controller's pulse (0xFE to port 0x64). There is no keyboard: its status
/// always reads "ready, nothing there". Any thread; locked by itself.

#include "bus/bus.h"
#include "machine/stop_reason.h"
#include "state/state_unit.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

namespace godwit::machine::platform {

/// Lies in the middle of the PCI configuration ports, so it takes ports 0xCF8..0xCFF and
/// hands on what is not a byte access to 0xCF9.
class ResetControl final : public bus::BusDevice, public state::StateUnit {
  public:
    static constexpr state::SectionType section{"reset", 1};
    static constexpr std::uint16_t port = 0xCF9;
    static constexpr std::uint16_t first_port = 0xCF8;
    static constexpr std::uint16_t port_bytes = 8;
    static constexpr std::uint8_t reset_value = 0x06;

    struct Args {
        StopSink stop;
        /// The ports around it; may be null.
        bus::BusDevice* around = nullptr;
    };
    [[nodiscard]] static std::unique_ptr<ResetControl> create(Args args);
    [[nodiscard]] static Result<std::unique_ptr<ResetControl>> restore(Args args,
                                                                       const state::Section& from);

    void read(std::uint64_t offset, std::span<std::byte> out) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    [[nodiscard]] state::SectionType section_type() const override { return section; }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(); }
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    explicit ResetControl(Args args) : args_(std::move(args)) {}
    Args args_;
    std::atomic<std::uint8_t> value_{0};
};

/// Port 0x64 of an i8042 that only knows the reset pulse; stateless.
class ResetPulse final : public bus::BusDevice {
  public:
    static constexpr std::uint16_t port = 0x64;
    explicit ResetPulse(StopSink stop) : stop_(std::move(stop)) {}
    void read(std::uint64_t offset, std::span<std::byte> out) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

  private:
    StopSink stop_;
};

} // namespace godwit::machine::platform
