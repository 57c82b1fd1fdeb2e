#include "handover/owner_record.h"

#include "base/units.h"

#include <sys/mman.h>

#include <fcntl.h>

#include <array>
#include <atomic>
#include <charconv>
#include <cstring>

namespace godwit::handover {

namespace {

constexpr std::size_t machine_id_bytes = 36;

/// The record at the start of its page; little-endian, as the only architecture we run on.
struct RecordPage {
    std::array<char, 8> magic;
    std::uint32_t version;
    std::uint32_t reserved;
    std::array<char, machine_id_bytes> machine_id;
    std::uint32_t padding;
    std::uint64_t word; ///< owner << 32 | claimed << 31 | epoch; the only field that changes.
};
static_assert(sizeof(RecordPage) == 64);
static_assert(offsetof(RecordPage, word) % 8 == 0);

constexpr std::array<char, 8> record_magic = {'G', 'O', 'D', 'W', 'O', 'W', 'N', '1'};
constexpr std::uint32_t record_version = 1;

constexpr std::uint32_t claimed_bit = 1U << 31U;
constexpr std::uint32_t epoch_max = claimed_bit - 1;

constexpr std::uint64_t pack(const Ownership& ownership) noexcept {
    const std::uint32_t claimed = ownership.tenure == Tenure::claimed ? claimed_bit : 0;
    return std::uint64_t{ownership.owner.value} << 32U | claimed | ownership.epoch;
}

constexpr Ownership unpack(std::uint64_t word) noexcept {
    const auto low = static_cast<std::uint32_t>(word);
    return {.owner = InstanceId{static_cast<std::uint32_t>(word >> 32U)},
            .epoch = low & epoch_max,
            .tenure = (low & claimed_bit) != 0 ? Tenure::claimed : Tenure::running};
}

RecordPage& page_of(const sys::MappedRegion& region) noexcept {
    return *reinterpret_cast<RecordPage*>(region.data());
}

/// Lock-free in shared memory, which is what makes it work between processes.
std::atomic_ref<std::uint64_t> word_of(const sys::MappedRegion& region) noexcept {
    static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);
    return std::atomic_ref<std::uint64_t>(page_of(region).word);
}

} // namespace

std::string_view name_of(Tenure tenure) noexcept {
    return tenure == Tenure::claimed ? "claimed" : "running";
}

std::string to_string(InstanceId id) {
    std::array<char, 9> text{};
    std::snprintf(text.data(), text.size(), "%08x", id.value);
    return text.data();
}

Result<InstanceId> parse_instance_id(std::string_view text) {
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (text.size() != 8 || error != std::errc() || end != text.data() + text.size() ||
        value == 0) {
        return Error(ErrorCode::invalid_argument,
                     "'" + std::string(text) +
                         "' is not an instance id: give 8 hex digits, not all zero");
    }
    return InstanceId{value};
}

Result<OwnerRecord> OwnerRecord::create(const std::string& machine_id, InstanceId first) {
    if (machine_id.size() != machine_id_bytes) {
        return Error(ErrorCode::invalid_argument,
                     "the machine id '" + machine_id + "' is not a UUID");
    }
    sys::Fd fd = GODWIT_TRY(sys::create_memfd("godwit-owner", page_size));
    // Nobody who gets this descriptor can shrink it under us (a bus error on the next read).
    if (::fcntl(fd.raw(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return Error::from_errno(errno, "seal the owner record");
    }
    auto region = GODWIT_TRY(sys::MappedRegion::create(fd, 0, page_size, sys::MapMode::shared));
    RecordPage& page = page_of(region);
    page.version = record_version;
    std::memcpy(page.machine_id.data(), machine_id.data(), machine_id_bytes);
    page.magic = record_magic;
    word_of(region).store(pack({.owner = first, .epoch = 1}), std::memory_order_release);
    return OwnerRecord(std::move(fd), std::move(region));
}

Result<OwnerRecord> OwnerRecord::adopt(sys::Fd fd, const std::string& machine_id) {
    const int seals = ::fcntl(fd.raw(), F_GET_SEALS);
    if (GODWIT_TRY(sys::file_size(fd)) != page_size || seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
        return Error(ErrorCode::corrupt, "the owner record handed over is not a sealed page");
    }
    auto region = GODWIT_TRY(sys::MappedRegion::create(fd, 0, page_size, sys::MapMode::shared));
    const RecordPage& page = page_of(region);
    if (page.magic != record_magic || page.version != record_version) {
        return Error(ErrorCode::corrupt, "the owner record handed over has an unknown format");
    }
    if (std::string_view(page.machine_id.data(), machine_id_bytes) != machine_id) {
        return Error(ErrorCode::corrupt, "the owner record handed over belongs to another machine");
    }
    return OwnerRecord(std::move(fd), std::move(region));
}

Ownership OwnerRecord::read() const noexcept {
    return unpack(word_of(page_).load(std::memory_order_acquire));
}

Result<Ownership> OwnerRecord::claim(const Ownership& expected, InstanceId next) {
    return swap(expected, {.owner = next, .epoch = expected.epoch + 1, .tenure = Tenure::claimed});
}

Result<Ownership> OwnerRecord::confirm(const Ownership& expected) {
    return swap(expected,
                {.owner = expected.owner, .epoch = expected.epoch, .tenure = Tenure::running});
}

Result<Ownership> OwnerRecord::transfer(const Ownership& expected, InstanceId next) {
    return swap(expected, {.owner = next, .epoch = expected.epoch + 1});
}

Result<Ownership> OwnerRecord::swap(const Ownership& expected, const Ownership& desired) {
    if (expected.epoch > epoch_max || desired.epoch > epoch_max) {
        return Error(ErrorCode::resource_exhausted, "the owner record has no epochs left");
    }
    std::uint64_t word = pack(expected);
    // acq_rel: the new owner sees everything the old one wrote before its offer, and the other way
    // round.
    if (!word_of(page_).compare_exchange_strong(word, pack(desired), std::memory_order_acq_rel)) {
        const Ownership now = unpack(word);
        return Error(ErrorCode::conflict,
                     "the machine belongs to instance " + to_string(now.owner) + " in epoch " +
                         std::to_string(now.epoch) + " (" + std::string(name_of(now.tenure)) +
                         "), not to " + to_string(expected.owner) + " in epoch " +
                         std::to_string(expected.epoch));
    }
    return desired;
}

} // namespace godwit::handover
