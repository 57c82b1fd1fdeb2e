#include "machine/platform/rtc.h"

#include "state/rtc.pb.h"
#include "state/section_codec.h"

#include <algorithm>
#include <chrono>

namespace godwit::machine::platform {

namespace {

enum Register : std::uint8_t {
    seconds = 0,
    seconds_alarm = 1,
    minutes = 2,
    minutes_alarm = 3,
    hours = 4,
    hours_alarm = 5,
    day_of_week = 6,
    day_of_month = 7,
    month = 8,
    year = 9,
    register_a = 10,
    register_b = 11,
    register_c = 12,
    register_d = 13,
};

constexpr std::uint8_t a_default = 0x26; // 32.768 kHz, 1024 Hz
constexpr std::uint8_t a_bits = 0x7F;    // update-in-progress is never seen
constexpr std::uint8_t b_set = 0x80;
constexpr std::uint8_t b_alarm = 0x20;
constexpr std::uint8_t b_update = 0x10;
constexpr std::uint8_t b_binary = 0x04;
constexpr std::uint8_t b_24_hours = 0x02;
constexpr std::uint8_t c_any = 0x80;
constexpr std::uint8_t c_alarm = 0x20;
constexpr std::uint8_t c_update = 0x10;
constexpr std::uint8_t d_valid = 0x80;
constexpr std::uint8_t hour_pm = 0x80;
constexpr std::uint8_t alarm_any = 0xC0;
constexpr std::int64_t seconds_per_day = 86400;

bool is_time_register(std::uint8_t index) {
    return (index <= year && index != seconds_alarm && index != minutes_alarm &&
            index != hours_alarm) ||
           index == Rtc::century_register;
}

std::int64_t seconds_of(std::int64_t nanoseconds) {
    return std::chrono::floor<std::chrono::seconds>(std::chrono::nanoseconds(nanoseconds)).count();
}

} // namespace

Rtc::Rtc(Args args) : args_(std::move(args)) {
    registers_[register_a] = a_default;
    registers_[register_b] = b_24_hours;
    last_second_ = guest_seconds();
}

std::unique_ptr<Rtc> Rtc::create(Args args) {
    return std::unique_ptr<Rtc>(new Rtc(std::move(args)));
}

Result<std::unique_ptr<Rtc>> Rtc::restore(Args args, const state::Section& from) {
    const auto saved = GODWIT_TRY(state::decode_section<state::RtcState>(section, from));
    constexpr std::int64_t offset_max = std::int64_t{1} << 40U;
    if (saved.registers().size() != register_count || saved.index() >= register_count ||
        saved.offset_seconds() > offset_max || saved.offset_seconds() < -offset_max) {
        return state::bad_section(from, "a register has a value it cannot have");
    }
    std::unique_ptr<Rtc> made(new Rtc(std::move(args)));
    const std::scoped_lock lock(made->mutex_);
    made->index_ = static_cast<std::uint8_t>(saved.index());
    std::ranges::transform(saved.registers(), made->registers_.begin(), [](char c) {
        return static_cast<std::uint8_t>(c);
    });
    made->registers_[register_a] &= a_bits;
    made->offset_seconds_ = saved.offset_seconds();
    made->last_second_ = made->guest_seconds();
    made->update_line();
    made->tell_ticks_wanted();
    return made;
}

Result<state::Saved> Rtc::save() const {
    const std::scoped_lock lock(mutex_);
    state::RtcState saved;
    saved.set_index(index_);
    std::string& registers = *saved.mutable_registers();
    registers.assign(registers_.begin(), registers_.end());
    if (!clock_stopped()) {
        // The time registers are the host's time; what was last read from them is nobody's state.
        for (std::size_t i = 0; i < register_count; ++i) {
            if (is_time_register(static_cast<std::uint8_t>(i))) {
                registers[i] = 0;
            }
        }
    }
    saved.set_offset_seconds(offset_seconds_);
    return state::encode_section(section, 0, saved);
}

void Rtc::read(std::uint64_t offset, std::span<std::byte> out) {
    const std::scoped_lock lock(mutex_);
    std::ranges::fill(out, std::byte{0xFF});
    if (offset == 1) {
        out[0] = std::byte{read_register()};
    }
}

void Rtc::write(std::uint64_t offset, std::span<const std::byte> data) {
    const std::scoped_lock lock(mutex_);
    const auto value = std::to_integer<std::uint8_t>(data[0]);
    if (offset == 0) {
        index_ = value % register_count; // bit 7 masks NMI
    } else {
        write_register(value);
    }
}

std::uint8_t Rtc::read_register() {
    if (is_time_register(index_) && !clock_stopped()) {
        registers_from_time(guest_seconds());
    }
    switch (index_) {
    case register_c: {
        const std::uint8_t causes = registers_[register_c];
        registers_[register_c] = 0;
        update_line();
        return causes;
    }
    case register_d:
        return d_valid;
    default:
        return registers_[index_];
    }
}

void Rtc::write_register(std::uint8_t value) {
    switch (index_) {
    case register_a:
        registers_[register_a] = value & a_bits;
        return;
    case register_b:
        write_control(value);
        return;
    case register_c:
    case register_d:
        return; // read-only
    default:
        break;
    }
    if (!is_time_register(index_) || clock_stopped()) {
        registers_[index_] = value;
        return;
    }
    // A single register changed while the clock runs.
    registers_from_time(guest_seconds());
    registers_[index_] = value;
    offset_seconds_ += time_from_registers() - guest_seconds();
}

void Rtc::write_control(std::uint8_t value) {
    const bool was_stopped = clock_stopped();
    const bool stops = (value & b_set) != 0;
    if (stops && !was_stopped) {
        registers_from_time(guest_seconds());
    }
    registers_[register_b] = value;
    if (!stops && was_stopped) {
        offset_seconds_ += time_from_registers() - guest_seconds();
    }
    last_second_ = guest_seconds();
    update_line();
    tell_ticks_wanted();
}

bool Rtc::clock_stopped() const {
    return (registers_[register_b] & b_set) != 0;
}

std::int64_t Rtc::guest_seconds() const {
    return seconds_of(args_.clock->unix_nanoseconds()) + offset_seconds_;
}

std::uint8_t Rtc::encode(unsigned value) const {
    const bool binary = (registers_[register_b] & b_binary) != 0;
    return static_cast<std::uint8_t>(binary ? value : (value / 10 << 4U) | value % 10);
}

unsigned Rtc::decode(std::uint8_t value) const {
    const bool binary = (registers_[register_b] & b_binary) != 0;
    return binary ? value : (value >> 4U) * 10U + (value & 0xFU);
}

void Rtc::registers_from_time(std::int64_t now) {
    using namespace std::chrono;
    const sys_seconds moment{std::chrono::seconds(now)};
    const auto midnight = floor<days>(moment);
    const year_month_day date{midnight};
    const hh_mm_ss time{moment - midnight};
    const auto hour = static_cast<unsigned>(time.hours().count());
    const auto full_year = static_cast<unsigned>(static_cast<int>(date.year()));
    registers_[seconds] = encode(static_cast<unsigned>(time.seconds().count()));
    registers_[minutes] = encode(static_cast<unsigned>(time.minutes().count()));
    if ((registers_[register_b] & b_24_hours) != 0) {
        registers_[hours] = encode(hour);
    } else {
        const unsigned half = hour % 12 == 0 ? 12 : hour % 12;
        registers_[hours] = static_cast<std::uint8_t>(encode(half) | (hour >= 12 ? hour_pm : 0U));
    }
    registers_[day_of_week] = encode(weekday(midnight).c_encoding() + 1);
    registers_[day_of_month] = encode(static_cast<unsigned>(date.day()));
    registers_[month] = encode(static_cast<unsigned>(date.month()));
    registers_[year] = encode(full_year % 100);
    registers_[century_register] = encode(full_year / 100);
}

/// Whatever the guest wrote: impossible dates are pulled into range.
std::int64_t Rtc::time_from_registers() const {
    using namespace std::chrono;
    unsigned hour = decode(registers_[hours]);
    if ((registers_[register_b] & b_24_hours) == 0) {
        const auto raw = static_cast<std::uint8_t>(registers_[hours] & ~unsigned{hour_pm});
        const bool afternoon = (registers_[hours] & hour_pm) != 0;
        hour = decode(raw) % 12 + (afternoon ? 12 : 0);
    }
    const unsigned full_year =
        decode(registers_[century_register]) * 100 + decode(registers_[year]);
    const year_month_day date{
        std::chrono::year(static_cast<int>(full_year)),
        std::chrono::month(std::clamp(decode(registers_[month]), 1U, 12U)),
        std::chrono::day(std::clamp(decode(registers_[day_of_month]), 1U, 31U))};
    const auto moment = sys_days(date) + std::chrono::hours(hour % 24) +
                        std::chrono::minutes(decode(registers_[minutes]) % 60) +
                        std::chrono::seconds(decode(registers_[seconds]) % 60);
    return moment.time_since_epoch() / std::chrono::seconds(1);
}

bool Rtc::alarm_due(std::int64_t now) const {
    const auto matches = [this](std::uint8_t wanted, std::uint8_t is) {
        return registers_[wanted] >= alarm_any || registers_[wanted] == is;
    };
    const auto second_of_day =
        static_cast<unsigned>((now % seconds_per_day + seconds_per_day) % seconds_per_day);
    const unsigned hour = second_of_day / 3600;
    const bool whole_day = (registers_[register_b] & b_24_hours) != 0;
    const unsigned half = hour % 12 == 0 ? 12 : hour % 12;
    const auto hour_now = static_cast<std::uint8_t>(
        whole_day ? encode(hour) : encode(half) | (hour >= 12 ? hour_pm : 0U));
    return matches(seconds_alarm, encode(second_of_day % 60)) &&
           matches(minutes_alarm, encode(second_of_day / 60 % 60)) &&
           (registers_[hours_alarm] == hour_now ||
            (registers_[hours_alarm] & alarm_any) == alarm_any);
}

void Rtc::advance() {
    const std::scoped_lock lock(mutex_);
    const std::int64_t now = guest_seconds();
    // An alarm repeats daily: looking back further finds nothing new.
    std::int64_t second = std::max(last_second_, now - seconds_per_day);
    last_second_ = now;
    if (clock_stopped() || second >= now) {
        return;
    }
    registers_[register_c] |= c_update;
    while (second < now && (registers_[register_c] & c_alarm) == 0) {
        ++second;
        if (alarm_due(second)) {
            registers_[register_c] |= c_alarm;
        }
    }
    update_line();
}

void Rtc::update_line() {
    const unsigned enabled = registers_[register_b] & (b_alarm | b_update);
    const bool pending = (registers_[register_c] & enabled) != 0;
    const unsigned causes = registers_[register_c] & (c_alarm | c_update);
    registers_[register_c] = static_cast<std::uint8_t>(causes | (pending ? c_any : 0U));
    args_.line->set(pending);
}

void Rtc::tell_ticks_wanted() {
    if (args_.ticks_wanted) {
        args_.ticks_wanted((registers_[register_b] & (b_alarm | b_update)) != 0);
    }
}

} // namespace godwit::machine::platform
