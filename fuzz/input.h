#pragma once

// What a fuzz target takes from the fuzzer's bytes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

namespace godwit::fuzz {

/// Takes little-endian numbers from the input; zeroes when it is used up.
class Input {
  public:
    explicit Input(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
    [[nodiscard]] bool empty() const { return bytes_.empty(); }
    template <typename T>
    T take() {
        T value{};
        const std::size_t count = std::min(sizeof(T), bytes_.size());
        if (count != 0) {
            std::memcpy(&value, bytes_.data(), count);
        }
        bytes_ = bytes_.subspan(count);
        return value;
    }
    std::span<const std::uint8_t> take_bytes(std::size_t count) {
        const auto part = bytes_.first(std::min(count, bytes_.size()));
        bytes_ = bytes_.subspan(part.size());
        return part;
    }

  private:
    std::span<const std::uint8_t> bytes_;
};

} // namespace godwit::fuzz
