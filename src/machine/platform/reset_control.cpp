#include "machine/platform/reset_control.h"

#include "state/reset_control.pb.h"
#include "state/section_codec.h"

#include <algorithm>

namespace godwit::machine::platform {

namespace {
constexpr std::uint64_t register_offset = ResetControl::port - ResetControl::first_port;
constexpr std::uint8_t system_reset = 0x02; ///< Kind of the next reset; kept.
constexpr std::uint8_t reset_cpu = 0x04;    ///< Does it.
constexpr std::byte pulse_reset_line{0xFE};

bool is_reset_register(std::uint64_t offset, std::size_t bytes) {
    return offset == register_offset && bytes == 1;
}
} // namespace

std::unique_ptr<ResetControl> ResetControl::create(Args args) {
    return std::unique_ptr<ResetControl>(new ResetControl(std::move(args)));
}

Result<std::unique_ptr<ResetControl>> ResetControl::restore(Args args, const state::Section& from) {
    const auto saved = GODWIT_TRY(state::decode_section<state::ResetControlState>(section, from));
    if ((saved.value() & ~std::uint32_t{system_reset}) != 0) {
        return state::bad_section(from, "a register has a value it cannot have");
    }
    std::unique_ptr<ResetControl> made(new ResetControl(std::move(args)));
    made->value_ = static_cast<std::uint8_t>(saved.value());
    return made;
}

Result<state::Saved> ResetControl::save() const {
    state::ResetControlState saved;
    saved.set_value(value_);
    return state::encode_section(section, 0, saved);
}

void ResetControl::read(std::uint64_t offset, std::span<std::byte> out) {
    if (is_reset_register(offset, out.size())) {
        out[0] = std::byte{value_.load()};
    } else if (args_.around != nullptr) {
        args_.around->read(offset, out);
    } else {
        std::ranges::fill(out, std::byte{0xFF});
    }
}

void ResetControl::write(std::uint64_t offset, std::span<const std::byte> data) {
    if (is_reset_register(offset, data.size())) {
        const auto value = std::to_integer<std::uint8_t>(data[0]);
        value_ = value & system_reset;
        if ((value & reset_cpu) != 0) {
            args_.stop(StopReason::rebooted, "reset control register");
        }
    } else if (args_.around != nullptr) {
        args_.around->write(offset, data);
    }
}

void ResetPulse::read(std::uint64_t, std::span<std::byte> out) {
    std::ranges::fill(out, std::byte{0});
}

void ResetPulse::write(std::uint64_t, std::span<const std::byte> data) {
    if (data[0] == pulse_reset_line) {
        stop_(StopReason::rebooted, "keyboard controller");
    }
}

} // namespace godwit::machine::platform
