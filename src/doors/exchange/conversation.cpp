#include "doors/exchange/conversation.h"

#include "sys/fd.h"

#include <algorithm>

namespace godwit::doors::exchange {

namespace {

using Json = nlohmann::json;

constexpr std::size_t descriptors_per_packet = 200;
constexpr const char* state_name = "state";
constexpr const char* failed_word = "failed";

Result<sys::Fd> memory_with(const std::string& bytes) {
    sys::Fd memory = GODWIT_TRY(sys::create_memfd("godwit-export", bytes.size()));
    GODWIT_TRY(sys::pwrite_all(memory, std::as_bytes(std::span(bytes)), 0));
    return memory;
}

Result<state::SavedState> state_in(const sys::Fd& memory) {
    const std::uint64_t size = GODWIT_TRY(sys::file_size(memory));
    if (size > state::state_bytes_max) {
        return Error(ErrorCode::corrupt, "a state of " + std::to_string(size) + " bytes");
    }
    std::vector<std::byte> bytes(size);
    GODWIT_TRY(sys::pread_exact(memory, bytes, 0));
    return state::SavedState::decode(bytes);
}

std::string text_of(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// One packet of a letter.
struct Packet {
    std::string word;
    Json facts;
    std::vector<std::string> names;
    bool more = false;
};

Result<Packet> parse(const std::string& bytes) {
    const Json packet = Json::parse(bytes, nullptr, false);
    const auto member = [&](const char* name) {
        return packet.is_object() ? packet.value(name, Json()) : Json();
    };
    const Json names = member("descriptors");
    const bool texts = names.is_array() && std::ranges::all_of(names, [](const Json& name) {
                           return name.is_string();
                       });
    if (!member("word").is_string() || !member("facts").is_object() ||
        !member("more").is_boolean() || !texts) {
        return Error(ErrorCode::corrupt, "a message of an exchange makes no sense");
    }
    return Packet{.word = member("word").get<std::string>(),
                  .facts = member("facts"),
                  .names = names.get<std::vector<std::string>>(),
                  .more = member("more").get<bool>()};
}

/// The reasons of a peer that gave up, so that the operator reads them as they are.
constexpr ErrorCode codes[] = {ErrorCode::invalid_argument,
                               ErrorCode::not_found,
                               ErrorCode::already_exists,
                               ErrorCode::permission_denied,
                               ErrorCode::busy,
                               ErrorCode::resource_exhausted,
                               ErrorCode::corrupt,
                               ErrorCode::unsupported,
                               ErrorCode::timeout,
                               ErrorCode::cancelled,
                               ErrorCode::io,
                               ErrorCode::conflict};

Error reason_of(const Letter& letter) {
    const std::string name = text_in(letter, "code");
    const auto* const found =
        std::ranges::find_if(codes, [&](ErrorCode code) { return name_of(code) == name; });
    return Error(found == std::end(codes) ? ErrorCode::internal : *found,
                 text_in(letter, "message").substr(0, 4096));
}

} // namespace

Status Conversation::send(Letter letter) const {
    if (letter.state.has_value()) {
        GODWIT_TRY(
            letter.descriptors.add(state_name, GODWIT_TRY(memory_with(letter.state->encode()))));
    }
    const std::vector<std::string>& names = letter.descriptors.names();
    const std::vector<const sys::Fd*> fds = letter.descriptors.borrowed();
    if (names.size() > descriptors_max) {
        return Error(ErrorCode::resource_exhausted,
                     std::to_string(names.size()) + " descriptors to hand over");
    }
    for (std::size_t first = 0;;) {
        const std::size_t count = std::min(names.size() - first, descriptors_per_packet);
        const bool last = first + count == names.size();
        const auto begin = names.begin() + static_cast<std::ptrdiff_t>(first);
        const Json packet{
            {"word", letter.word},
            {"facts", letter.facts},
            {"descriptors",
             std::vector<std::string>(begin, begin + static_cast<std::ptrdiff_t>(count))},
            {"more", !last}};
        GODWIT_TRY(socket_.send(text_of(packet), std::span(fds).subspan(first, count)));
        if (last) {
            return ok();
        }
        first += count;
    }
}

Status Conversation::say(std::string word, Json facts) const {
    Letter letter;
    letter.word = std::move(word);
    letter.facts = std::move(facts);
    return send(std::move(letter));
}

void Conversation::say_failed(const Error& reason) const noexcept {
    discard(say(failed_word, {{"code", name_of(reason.code())}, {"message", reason.to_string()}}),
            "the peer may be the one who has gone");
}

Result<Letter> Conversation::receive(std::chrono::milliseconds timeout) const {
    Letter letter;
    for (bool more = true; more;) {
        sys::Message message = GODWIT_TRY(socket_.receive(timeout));
        Packet packet = GODWIT_TRY(parse(message.bytes));
        letter.word = std::move(packet.word);
        letter.facts = std::move(packet.facts);
        more = packet.more;
        sys::FdManifest part =
            GODWIT_TRY(sys::FdManifest::pair_up(std::move(packet.names), std::move(message.fds)));
        if (letter.descriptors.size() + part.size() > descriptors_max ||
            (more && part.size() == 0)) {
            return Error(ErrorCode::corrupt, "a message of an exchange has no end");
        }
        const std::vector<std::string> names = part.names(); // take() shortens the list.
        for (const std::string& name : names) {
            GODWIT_TRY(letter.descriptors.add(name, GODWIT_TRY(part.take(name))));
        }
    }
    if (letter.descriptors.has(state_name)) {
        letter.state = GODWIT_TRY(state_in(GODWIT_TRY(letter.descriptors.take(state_name))));
    }
    return letter;
}

Result<Letter> Conversation::expect(std::string_view word,
                                    std::chrono::milliseconds timeout) const {
    Letter letter = GODWIT_TRY(receive(timeout));
    if (letter.word == failed_word) {
        return reason_of(letter);
    }
    if (letter.word != word) {
        return Error(ErrorCode::corrupt,
                     "'" + letter.word.substr(0, 40) + "' in place of '" + std::string(word) + "'");
    }
    return letter;
}

Result<std::uint64_t> number_in(const Letter& letter, const char* name) {
    const Json value = letter.facts.is_object() ? letter.facts.value(name, Json()) : Json();
    if (!value.is_number_unsigned()) {
        return Error(ErrorCode::corrupt, "a message without its '" + std::string(name) + "'");
    }
    return value.get<std::uint64_t>();
}

std::string text_in(const Letter& letter, const char* name) {
    const Json value = letter.facts.is_object() ? letter.facts.value(name, Json()) : Json();
    return value.is_string() ? value.get<std::string>() : std::string();
}

} // namespace godwit::doors::exchange
