#pragma once

/// A 16550A serial port (National Semiconductor PC16550D data sheet), ttyS0 of the guest: output is
/// handed on at once, input waits in the FIFO. Modem lines are always ready. Any thread; locked by
/// itself. The output callback runs under the lock: it must not call back.

#include "bus/bus.h"
#include "state/state_unit.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>

namespace godwit::machine::platform {

class Serial final : public bus::BusDevice, public state::StateUnit {
  public:
    static constexpr state::SectionType section{"serial", 1};
    static constexpr std::uint16_t port = 0x3F8;
    static constexpr std::uint16_t port_bytes = 8;
    static constexpr std::uint32_t irq = 4;
    /// Input kept for a guest that reads slowly. The guest cannot tell it from a sender with flow
    /// control.
    static constexpr std::size_t received_bytes_max = 1024;

    struct Args {
        bus::IrqLine* line = nullptr;
        /// Bytes the guest wrote. May not block.
        std::function<void(std::span<const std::byte>)> output;
        /// There is room for input again after input() took less than offered.
        std::function<void()> input_ready;
    };

    [[nodiscard]] static std::unique_ptr<Serial> create(Args args);
    [[nodiscard]] static Result<std::unique_ptr<Serial>> restore(Args args,
                                                                 const state::Section& from);

    void read(std::uint64_t offset, std::span<std::byte> out) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    /// Bytes for the guest; returns how many were taken.
    [[nodiscard]] std::size_t input(std::span<const std::byte> bytes);

    [[nodiscard]] state::SectionType section_type() const override { return section; }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(); }
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    explicit Serial(Args args) : args_(std::move(args)) {}
    [[nodiscard]] std::uint8_t read_register(std::uint64_t offset);
    void write_register(std::uint64_t offset, std::uint8_t value);
    [[nodiscard]] std::uint8_t read_received();
    [[nodiscard]] std::uint8_t read_interrupt_id();
    [[nodiscard]] std::uint8_t interrupt_id() const;
    [[nodiscard]] std::uint8_t read_line_status();
    [[nodiscard]] std::uint8_t modem_status() const;
    void transmit(std::uint8_t value);
    void write_fifo_control(std::uint8_t value);
    void update_line();

    Args args_;
    mutable std::mutex mutex_;
    // All guarded by mutex_.
    std::uint8_t interrupt_enable_ = 0;
    std::uint8_t fifo_control_ = 0;
    std::uint8_t line_control_ = 0;
    std::uint8_t modem_control_ = 0;
    std::uint8_t scratch_ = 0;
    std::uint16_t divisor_ = 12; ///< 9600 baud; has no effect.
    bool transmit_empty_pending_ = false;
    bool overrun_ = false;
    bool input_refused_ = false;
    std::deque<std::uint8_t> received_;
};

} // namespace godwit::machine::platform
