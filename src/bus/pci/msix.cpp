#include "bus/pci/msix.h"

#include "base/log.h"
#include "bus/little_endian.h"

#include <array>
#include <bit>
#include <mutex>

namespace godwit::bus {

namespace {

constexpr std::uint64_t low_address_offset = 0;
constexpr std::uint64_t high_address_offset = 4;
constexpr std::uint64_t data_offset = 8;
constexpr std::uint64_t control_offset = 12;
constexpr std::uint32_t control_masked = 1;

using EntryBytes = std::array<std::byte, msix_entry_bytes>;

} // namespace

Result<std::unique_ptr<Msix>> Msix::create(MsiRouter& router, std::size_t vectors) {
    if (vectors == 0 || vectors > msix_vectors_max) {
        return Error(ErrorCode::resource_exhausted,
                     "a PCI function with " + std::to_string(vectors) + " interrupt vectors");
    }
    std::unique_ptr<Msix> msix(new Msix());
    for (std::size_t i = 0; i < vectors; ++i) {
        auto vector = std::make_unique<Vector>();
        vector->line = GODWIT_TRY(router.create_vector());
        msix->vectors_.push_back(std::move(vector));
    }
    return msix;
}

void Msix::signal(std::size_t vector) noexcept {
    const std::shared_lock lock(mutex_);
    if (vector >= vectors_.size() || !enabled_) {
        return;
    }
    Vector& target = *vectors_[vector];
    if (target.routed.has_value()) {
        target.line->signal();
    } else {
        target.pending.store(true, std::memory_order_relaxed);
    }
}

void Msix::update(Vector& vector) {
    if (!enabled_ || function_masked_ || vector.masked) {
        if (vector.routed.has_value()) {
            vector.line->unroute();
            vector.routed.reset();
        }
        return;
    }
    if (vector.routed != vector.message) {
        vector.routed.reset();
        const Status routed = vector.line->route(vector.message);
        if (!routed.has_value()) {
            vector.line->unroute();
            // The guest can cause this at will: the 1st, 2nd, 4th, 8th ... time is told.
            if (std::has_single_bit(++refused_routes_)) {
                log::warn("msix_route_refused",
                          {{"reason", routed.error().to_string()}, {"times", refused_routes_}});
            }
            return;
        }
        vector.routed = vector.message;
    }
    if (vector.pending.exchange(false, std::memory_order_relaxed)) {
        vector.line->signal();
    }
}

void Msix::update_all() {
    for (const auto& vector : vectors_) {
        update(*vector);
    }
}

void Msix::read_table(std::uint64_t offset, std::span<std::byte> out) const {
    const std::shared_lock lock(mutex_);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const std::uint64_t at = offset + i;
        const std::uint64_t index = at / msix_entry_bytes;
        if (index >= vectors_.size()) {
            out[i] = std::byte{0};
            continue;
        }
        const Vector& vector = *vectors_[index];
        EntryBytes entry{};
        store_little(std::span(entry).first(8), vector.message.address);
        store_little(std::span(entry).subspan(data_offset, 4), vector.message.data);
        store_little(std::span(entry).subspan(control_offset, 4),
                     vector.masked ? control_masked : 0);
        out[i] = entry[at % msix_entry_bytes];
    }
}

void Msix::write_table(std::uint64_t offset, std::span<const std::byte> data) {
    const std::uint64_t index = offset / msix_entry_bytes;
    if ((data.size() != 4 && data.size() != 8) || offset % data.size() != 0 ||
        index >= vectors_.size()) {
        return;
    }
    const std::lock_guard lock(mutex_);
    Vector& vector = *vectors_[index];
    for (std::uint64_t part = 0; part < data.size(); part += 4) {
        const std::uint64_t value = load_little(data.subspan(part, 4));
        std::uint64_t& address = vector.message.address;
        switch ((offset + part) % msix_entry_bytes) {
        case low_address_offset:
            address = (address & ~0xffff'ffffULL) | (value & ~3ULL);
            break;
        case high_address_offset:
            address = (address & 0xffff'ffffULL) | (value << 32U);
            break;
        case data_offset:
            vector.message.data = static_cast<std::uint32_t>(value);
            break;
        default:
            vector.masked = (value & control_masked) != 0;
            break;
        }
    }
    update(vector);
}

void Msix::read_pending(std::uint64_t offset, std::span<std::byte> out) const {
    const std::shared_lock lock(mutex_);
    for (std::size_t i = 0; i < out.size(); ++i) {
        unsigned bits = 0;
        for (std::size_t bit = 0; bit < 8; ++bit) {
            const std::uint64_t index = (offset + i) * 8 + bit;
            if (index < vectors_.size() &&
                vectors_[index]->pending.load(std::memory_order_relaxed)) {
                bits |= 1U << bit;
            }
        }
        out[i] = static_cast<std::byte>(bits);
    }
}

void Msix::set_control(bool enabled, bool function_masked) {
    const std::lock_guard lock(mutex_);
    if (enabled_ == enabled && function_masked_ == function_masked) {
        return;
    }
    enabled_ = enabled;
    function_masked_ = function_masked;
    update_all();
}

MsixState Msix::save() const {
    const std::shared_lock lock(mutex_);
    MsixState state{.enabled = enabled_, .function_masked = function_masked_, .entries = {}};
    for (const auto& vector : vectors_) {
        state.entries.push_back({.message = vector->message,
                                 .masked = vector->masked,
                                 .pending = vector->pending.load(std::memory_order_relaxed)});
    }
    return state;
}

Status Msix::load(const MsixState& state) {
    if (state.entries.size() != vectors_.size()) {
        return Error(ErrorCode::corrupt,
                     "saved interrupt table has " + std::to_string(state.entries.size()) +
                         " vectors, the device has " + std::to_string(vectors_.size()));
    }
    const std::lock_guard lock(mutex_);
    enabled_ = state.enabled;
    function_masked_ = state.function_masked;
    for (std::size_t i = 0; i < vectors_.size(); ++i) {
        vectors_[i]->message = state.entries[i].message;
        vectors_[i]->message.address &= ~3ULL;
        vectors_[i]->masked = state.entries[i].masked;
        vectors_[i]->pending.store(state.entries[i].pending, std::memory_order_relaxed);
    }
    update_all();
    return ok();
}

} // namespace godwit::bus
