#include "machine/platform/serial.h"

#include "state/section_codec.h"
#include "state/serial.pb.h"

#include <algorithm>
#include <utility>

namespace godwit::machine::platform {

namespace {

enum Register : std::uint8_t {
    data_register = 0,     // divisor low with DLAB
    interrupt_enable = 1,  // divisor high with DLAB
    interrupt_id_fifo = 2, // read: identification, write: FIFO control
    line_control = 3,
    modem_control = 4,
    line_status = 5,
    modem_status_register = 6,
    scratch = 7,
};

constexpr std::uint8_t ier_received = 0x01;
constexpr std::uint8_t ier_transmit_empty = 0x02;
constexpr std::uint8_t ier_line_status = 0x04;
constexpr std::uint8_t ier_bits = 0x0F;
constexpr std::uint8_t iir_none = 0x01;
constexpr std::uint8_t iir_transmit_empty = 0x02;
constexpr std::uint8_t iir_received = 0x04;
constexpr std::uint8_t iir_line_status = 0x06;
constexpr std::uint8_t iir_fifo_enabled = 0xC0;
constexpr std::uint8_t fcr_enable = 0x01;
constexpr std::uint8_t fcr_clear_received = 0x02;
constexpr std::uint8_t fcr_kept_bits = 0xC9;
constexpr std::uint8_t lcr_divisor_access = 0x80;
constexpr std::uint8_t mcr_loopback = 0x10;
constexpr std::uint8_t mcr_bits = 0x1F;
constexpr std::uint8_t lsr_data_ready = 0x01;
constexpr std::uint8_t lsr_overrun = 0x02;
constexpr std::uint8_t lsr_transmitter_empty = 0x60;
constexpr std::uint8_t msr_all_ready = 0xB0; // DCD, DSR, CTS

constexpr std::size_t loopback_bytes_max = 16; ///< The chip's FIFO.

} // namespace

std::unique_ptr<Serial> Serial::create(Args args) {
    return std::unique_ptr<Serial>(new Serial(std::move(args)));
}

Result<std::unique_ptr<Serial>> Serial::restore(Args args, const state::Section& from) {
    const auto saved = GODWIT_TRY(state::decode_section<state::SerialState>(section, from));
    if (saved.received().size() > received_bytes_max || saved.divisor() > 0xFFFF ||
        saved.interrupt_enable() > ier_bits || saved.fifo_control() > 0xFF ||
        saved.line_control() > 0xFF || saved.modem_control() > mcr_bits || saved.scratch() > 0xFF) {
        return state::bad_section(from, "a register has a value it cannot have");
    }
    std::unique_ptr<Serial> made(new Serial(std::move(args)));
    made->interrupt_enable_ = static_cast<std::uint8_t>(saved.interrupt_enable());
    made->fifo_control_ = static_cast<std::uint8_t>(saved.fifo_control());
    made->line_control_ = static_cast<std::uint8_t>(saved.line_control());
    made->modem_control_ = static_cast<std::uint8_t>(saved.modem_control());
    made->scratch_ = static_cast<std::uint8_t>(saved.scratch());
    made->divisor_ = static_cast<std::uint16_t>(saved.divisor());
    made->transmit_empty_pending_ = saved.transmit_empty_pending();
    made->overrun_ = saved.overrun();
    // Whoever held input back may offer it again now.
    made->input_refused_ = true;
    made->received_.assign(saved.received().begin(), saved.received().end());
    made->update_line();
    return made;
}

Result<state::Saved> Serial::save() const {
    const std::scoped_lock lock(mutex_);
    state::SerialState saved;
    saved.set_interrupt_enable(interrupt_enable_);
    saved.set_fifo_control(fifo_control_);
    saved.set_line_control(line_control_);
    saved.set_modem_control(modem_control_);
    saved.set_scratch(scratch_);
    saved.set_divisor(divisor_);
    saved.set_transmit_empty_pending(transmit_empty_pending_);
    saved.set_overrun(overrun_);
    saved.mutable_received()->assign(received_.begin(), received_.end());
    return state::encode_section(section, 0, saved);
}

void Serial::read(std::uint64_t offset, std::span<std::byte> out) {
    bool room = false;
    {
        const std::scoped_lock lock(mutex_);
        for (std::size_t i = 0; i < out.size(); ++i) {
            out[i] = std::byte{read_register(offset + i)};
        }
        update_line();
        room = input_refused_ && received_.size() < received_bytes_max / 2;
        input_refused_ = input_refused_ && !room;
    }
    if (room && args_.input_ready) {
        args_.input_ready();
    }
}

void Serial::write(std::uint64_t offset, std::span<const std::byte> data) {
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < data.size(); ++i) {
        write_register(offset + i, std::to_integer<std::uint8_t>(data[i]));
    }
    update_line();
}

std::size_t Serial::input(std::span<const std::byte> bytes) {
    const std::scoped_lock lock(mutex_);
    const std::size_t room = received_bytes_max - received_.size();
    const std::size_t taken = std::min(room, bytes.size());
    for (const std::byte byte : bytes.first(taken)) {
        received_.push_back(std::to_integer<std::uint8_t>(byte));
    }
    input_refused_ = taken < bytes.size();
    update_line();
    return taken;
}

std::uint8_t Serial::read_register(std::uint64_t offset) {
    const bool divisor = (line_control_ & lcr_divisor_access) != 0;
    switch (offset) {
    case data_register:
        return divisor ? static_cast<std::uint8_t>(divisor_) : read_received();
    case interrupt_enable:
        return divisor ? static_cast<std::uint8_t>(divisor_ >> 8U) : interrupt_enable_;
    case interrupt_id_fifo:
        return read_interrupt_id();
    case line_control:
        return line_control_;
    case modem_control:
        return modem_control_;
    case line_status:
        return read_line_status();
    case modem_status_register:
        return modem_status();
    default:
        return scratch_;
    }
}

std::uint8_t Serial::read_received() {
    if (received_.empty()) {
        return 0;
    }
    const std::uint8_t value = received_.front();
    received_.pop_front();
    return value;
}

/// Highest priority first (data sheet, table of interrupt control functions).
std::uint8_t Serial::interrupt_id() const {
    if ((interrupt_enable_ & ier_line_status) != 0 && overrun_) {
        return iir_line_status;
    }
    if ((interrupt_enable_ & ier_received) != 0 && !received_.empty()) {
        return iir_received;
    }
    if ((interrupt_enable_ & ier_transmit_empty) != 0 && transmit_empty_pending_) {
        return iir_transmit_empty;
    }
    return iir_none;
}

std::uint8_t Serial::read_interrupt_id() {
    const std::uint8_t id = interrupt_id();
    if (id == iir_transmit_empty) {
        transmit_empty_pending_ = false; // reading it is the acknowledgement
    }
    const bool fifo = (fifo_control_ & fcr_enable) != 0;
    return static_cast<std::uint8_t>(id | (fifo ? iir_fifo_enabled : 0U));
}

std::uint8_t Serial::read_line_status() {
    const unsigned ready = received_.empty() ? 0U : lsr_data_ready;
    const unsigned lost = std::exchange(overrun_, false) ? lsr_overrun : 0U;
    return static_cast<std::uint8_t>(lsr_transmitter_empty | ready | lost);
}

std::uint8_t Serial::modem_status() const {
    if ((modem_control_ & mcr_loopback) == 0) {
        return msr_all_ready;
    }
    // DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD.
    const unsigned out = modem_control_;
    return static_cast<std::uint8_t>(((out & 1U) << 5U) | ((out & 2U) << 3U) | ((out & 4U) << 4U) |
                                     ((out & 8U) << 4U));
}

void Serial::write_register(std::uint64_t offset, std::uint8_t value) {
    const bool divisor = (line_control_ & lcr_divisor_access) != 0;
    switch (offset) {
    case data_register:
        if (divisor) {
            divisor_ = static_cast<std::uint16_t>((divisor_ & 0xFF00U) | value);
        } else {
            transmit(value);
        }
        break;
    case interrupt_enable:
        if (divisor) {
            divisor_ = static_cast<std::uint16_t>((divisor_ & 0xFFU) | (unsigned{value} << 8U));
            break;
        }
        // Switching it on reports the transmitter, which is always empty.
        if ((value & ier_transmit_empty) != 0 && (interrupt_enable_ & ier_transmit_empty) == 0) {
            transmit_empty_pending_ = true;
        }
        interrupt_enable_ = value & ier_bits;
        break;
    case interrupt_id_fifo:
        write_fifo_control(value);
        break;
    case line_control:
        line_control_ = value;
        break;
    case modem_control:
        modem_control_ = value & mcr_bits;
        break;
    case scratch:
        scratch_ = value;
        break;
    default:
        break; // status registers are read-only
    }
}

void Serial::transmit(std::uint8_t value) {
    transmit_empty_pending_ = true;
    if ((modem_control_ & mcr_loopback) != 0) {
        if (received_.size() < loopback_bytes_max) {
            received_.push_back(value);
        } else {
            overrun_ = true;
        }
        return;
    }
    const std::byte byte{value};
    if (args_.output) {
        args_.output(std::span(&byte, 1));
    }
}

void Serial::write_fifo_control(std::uint8_t value) {
    const bool toggled = ((value ^ fifo_control_) & fcr_enable) != 0;
    if ((value & fcr_clear_received) != 0 || toggled) {
        received_.clear();
    }
    fifo_control_ = value & fcr_kept_bits;
}

void Serial::update_line() {
    args_.line->set(interrupt_id() != iir_none);
}

} // namespace godwit::machine::platform
