#pragma once

/// Memory for a kernel structure that ends in an array of variable length (struct kvm_msrs and its
/// kin). A value; one thread at a time.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace godwit::kvm {

/// `Header` is the fixed part, which the array of `Entry` follows without a gap.
template <typename Header, typename Entry>
    requires std::is_trivially_copyable_v<Header> && std::is_trivially_copyable_v<Entry> &&
             (sizeof(Header) % alignof(Entry) == 0)
class FamBuffer {
  public:
    FamBuffer() : FamBuffer(0) {}
    /// All zero, room for `count` entries. The count field of the header is the caller's.
    explicit FamBuffer(std::size_t count)
        : words_((sizeof(Header) + count * sizeof(Entry) + 7) / 8), count_(count) {}

    [[nodiscard]] Header* header() noexcept { return reinterpret_cast<Header*>(words_.data()); }
    [[nodiscard]] const Header* header() const noexcept {
        return reinterpret_cast<const Header*>(words_.data());
    }
    [[nodiscard]] std::span<Entry> entries() noexcept {
        return {reinterpret_cast<Entry*>(bytes() + sizeof(Header)), count_};
    }
    [[nodiscard]] std::span<const Entry> entries() const noexcept {
        return {reinterpret_cast<const Entry*>(bytes() + sizeof(Header)), count_};
    }
    [[nodiscard]] std::size_t size() const noexcept { return count_; }

  private:
    [[nodiscard]] std::byte* bytes() noexcept {
        return reinterpret_cast<std::byte*>(words_.data());
    }
    [[nodiscard]] const std::byte* bytes() const noexcept {
        return reinterpret_cast<const std::byte*>(words_.data());
    }

    std::vector<std::uint64_t> words_;
    std::size_t count_;
};

} // namespace godwit::kvm
