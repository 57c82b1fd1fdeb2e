#pragma once

/// The first half of an NBD connection: fixed newstyle negotiation of one export. Pure: bytes in,
/// bytes out. What comes in is hostile.

#include "base/result.h"
#include "doors/nbd/protocol.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::doors::nbd {

struct Export {
    std::string name; ///< The empty name means it, too.
    std::uint64_t bytes = 0;
    std::uint16_t flags = 0; ///< transmission_flag
    std::uint32_t block_bytes_min = 512;
};

class Negotiation {
  public:
    enum class Phase : std::uint8_t { client_flags, options, transmission, ended };

    /// Begins with the greeting in output().
    explicit Negotiation(Export exported);

    /// Where a predecessor's stood; `exported` is what that had told its client.
    struct State {
        Export exported;
        Phase phase = Phase::client_flags;
        std::uint32_t options = 0;
        bool without_zeroes = false;
        bool structured = false;
        bool allocation = false;
    };
    /// Without a greeting.
    explicit Negotiation(State state);
    [[nodiscard]] State state() const;

    /// Takes what is complete at the start of `in` and returns how many bytes that was; 0: more is
    /// needed. An error ends the connection.
    [[nodiscard]] Result<std::size_t> take(std::span<const std::byte> in);
    /// Bytes to be sent; the caller takes them away.
    [[nodiscard]] std::vector<std::byte>& output() noexcept { return output_; }
    [[nodiscard]] const std::vector<std::byte>& output() const noexcept { return output_; }
    [[nodiscard]] bool has_output() const noexcept { return !output_.empty(); }
    [[nodiscard]] Phase phase() const noexcept { return phase_; }
    /// What was agreed on.
    [[nodiscard]] bool structured_replies() const noexcept { return structured_; }
    [[nodiscard]] bool allocation() const noexcept { return allocation_; }

  private:
    [[nodiscard]] Status option(Option option, std::span<const std::byte> data);
    void answer(Option option, Answer kind, std::span<const std::byte> data = {});
    void answer_text(Option option, Answer kind, std::string_view text);
    [[nodiscard]] Status finish_by_name(std::span<const std::byte> name);
    void go(Option option, std::span<const std::byte> data);
    void meta_context(Option option, std::span<const std::byte> data);
    void list(std::span<const std::byte> data);
    [[nodiscard]] bool is_ours(std::string_view name) const noexcept {
        return name.empty() || name == export_.name;
    }

    Export export_;
    Phase phase_ = Phase::client_flags;
    std::vector<std::byte> output_;
    std::uint32_t options_ = 0;
    bool without_zeroes_ = false;
    bool structured_ = false;
    bool allocation_ = false;
};

} // namespace godwit::doors::nbd
