#pragma once

/// The messages between a godwit-blk and its successor (docs/formats/blk-exchange.md): a word,
/// facts, a state and descriptors. A state lies in memory that is passed along, so that its size is
/// not a packet's. The peer is another build: everything that arrives is checked.
///
/// Thread rule: one thread.

#include "base/result.h"
#include "state/saved_state.h"
#include "sys/fd_manifest.h"
#include "sys/unix_socket.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace godwit::doors::exchange {

inline constexpr std::uint64_t protocol_version = 1;
/// Descriptors of one message, all its packets together.
inline constexpr std::size_t descriptors_max = 1024;

struct Letter {
    std::string word;     ///< "hello", "offer", ...
    nlohmann::json facts; ///< An object, small.
    std::optional<state::SavedState> state;
    sys::FdManifest descriptors;
};

class Conversation {
  public:
    explicit Conversation(sys::MessageSocket socket) : socket_(std::move(socket)) {}
    [[nodiscard]] Status send(Letter letter) const;
    /// Only a word with its facts.
    [[nodiscard]] Status say(std::string word,
                             nlohmann::json facts = nlohmann::json::object()) const;
    /// That it does not go on, and why. Cannot fail: the peer sees the end of the connection, too.
    void say_failed(const Error& reason) const noexcept;
    /// The next one, which must be `word`; "failed" is the error it tells of. peer_closed, timeout.
    [[nodiscard]] Result<Letter> expect(std::string_view word,
                                        std::chrono::milliseconds timeout) const;

  private:
    [[nodiscard]] Result<Letter> receive(std::chrono::milliseconds timeout) const;
    sys::MessageSocket socket_;
};

/// A number among the facts of a letter; corrupt if it is not there.
[[nodiscard]] Result<std::uint64_t> number_in(const Letter& letter, const char* name);
/// A text among them; empty if it is not there.
[[nodiscard]] std::string text_in(const Letter& letter, const char* name);

} // namespace godwit::doors::exchange
