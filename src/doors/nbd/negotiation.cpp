#include "doors/nbd/negotiation.h"

#include <algorithm>
#include <array>
#include <optional>

namespace godwit::doors::nbd {

namespace {

constexpr std::size_t flags_bytes = 4;
constexpr std::size_t option_header_bytes = 16;
constexpr std::size_t export_name_padding = 124;
/// What most clients do well with; larger is allowed.
constexpr std::uint32_t block_bytes_preferred = 4096;

/// Takes parts off the front of an option's data; nothing if it is shorter than it should be.
class Reader {
  public:
    explicit Reader(std::span<const std::byte> data) : data_(data) {}
    template <typename T>
    [[nodiscard]] std::optional<T> number() {
        if (data_.size() < sizeof(T)) {
            return std::nullopt;
        }
        const T value = get<T>(data_, 0);
        data_ = data_.subspan(sizeof(T));
        return value;
    }
    /// A text of so many bytes.
    [[nodiscard]] std::optional<std::string_view> text(std::size_t bytes) {
        if (data_.size() < bytes) {
            return std::nullopt;
        }
        const std::string_view found(reinterpret_cast<const char*>(data_.data()), bytes);
        data_ = data_.subspan(bytes);
        return found;
    }
    /// A text after its length.
    [[nodiscard]] std::optional<std::string_view> counted_text() {
        const auto bytes = number<std::uint32_t>();
        return bytes.has_value() ? text(*bytes) : std::nullopt;
    }
    [[nodiscard]] std::size_t left() const noexcept { return data_.size(); }

  private:
    std::span<const std::byte> data_;
};

} // namespace

Negotiation::Negotiation(Export exported) : export_(std::move(exported)) {
    put(output_, magic_greeting);
    put(output_, magic_option);
    put(output_, static_cast<std::uint16_t>(fixed_newstyle | no_zeroes));
}

Negotiation::Negotiation(State state)
    : export_(std::move(state.exported)), phase_(state.phase), options_(state.options),
      without_zeroes_(state.without_zeroes), structured_(state.structured),
      allocation_(state.allocation) {}

Negotiation::State Negotiation::state() const {
    return {.exported = export_,
            .phase = phase_,
            .options = options_,
            .without_zeroes = without_zeroes_,
            .structured = structured_,
            .allocation = allocation_};
}

Result<std::size_t> Negotiation::take(std::span<const std::byte> in) {
    if (phase_ == Phase::client_flags) {
        if (in.size() < flags_bytes) {
            return std::size_t{0};
        }
        const auto flags = get<std::uint32_t>(in, 0);
        if ((flags & fixed_newstyle) == 0 ||
            (flags & ~std::uint32_t{fixed_newstyle | no_zeroes}) != 0) {
            return Error(ErrorCode::corrupt, "client flags " + std::to_string(flags));
        }
        without_zeroes_ = (flags & no_zeroes) != 0;
        phase_ = Phase::options;
        return flags_bytes;
    }
    if (phase_ != Phase::options || in.size() < option_header_bytes) {
        return std::size_t{0};
    }
    if (get<std::uint64_t>(in, 0) != magic_option) {
        return Error(ErrorCode::corrupt, "an option without its magic number");
    }
    const auto bytes = get<std::uint32_t>(in, 12);
    if (bytes > option_bytes_max) {
        return Error(ErrorCode::corrupt, "an option of " + std::to_string(bytes) + " bytes");
    }
    if (in.size() < option_header_bytes + bytes) {
        return std::size_t{0};
    }
    if (++options_ > options_max) {
        return Error(ErrorCode::resource_exhausted,
                     "more than " + std::to_string(options_max) + " options");
    }
    GODWIT_TRY(option(static_cast<Option>(get<std::uint32_t>(in, 8)),
                      in.subspan(option_header_bytes, bytes)));
    return option_header_bytes + bytes;
}

Status Negotiation::option(Option option, std::span<const std::byte> data) {
    switch (option) {
    case Option::export_name:
        return finish_by_name(data);
    case Option::abort:
        answer(option, Answer::ack);
        phase_ = Phase::ended;
        return ok();
    case Option::list:
        list(data);
        return ok();
    case Option::info:
    case Option::go:
        go(option, data);
        return ok();
    case Option::structured_reply:
        structured_ = data.empty();
        answer(option, data.empty() ? Answer::ack : Answer::invalid);
        return ok();
    case Option::list_meta_context:
    case Option::set_meta_context:
        meta_context(option, data);
        return ok();
    case Option::start_tls:
    default:
        answer_text(option, Answer::unsupported, "not offered by this server");
        return ok();
    }
}

void Negotiation::answer(Option option, Answer kind, std::span<const std::byte> data) {
    put(output_, magic_option_reply);
    put(output_, static_cast<std::uint32_t>(option));
    put(output_, static_cast<std::uint32_t>(kind));
    put(output_, static_cast<std::uint32_t>(data.size()));
    output_.insert(output_.end(), data.begin(), data.end());
}

void Negotiation::answer_text(Option option, Answer kind, std::string_view text) {
    answer(option, kind, std::as_bytes(std::span(text)));
}

/// The old way: no answer but the export itself, or the end of the connection.
Status Negotiation::finish_by_name(std::span<const std::byte> name) {
    const std::string_view wanted(reinterpret_cast<const char*>(name.data()), name.size());
    if (!is_ours(wanted)) {
        return Error(ErrorCode::not_found, "an export that is not served here was asked for");
    }
    put(output_, export_.bytes);
    put(output_, export_.flags);
    output_.resize(output_.size() + (without_zeroes_ ? 0 : export_name_padding));
    phase_ = Phase::transmission;
    return ok();
}

void Negotiation::list(std::span<const std::byte> data) {
    if (!data.empty()) {
        answer(Option::list, Answer::invalid);
        return;
    }
    std::vector<std::byte> entry;
    put(entry, static_cast<std::uint32_t>(export_.name.size()));
    put(entry, std::string_view(export_.name));
    answer(Option::list, Answer::server, entry);
    answer(Option::list, Answer::ack);
}

void Negotiation::go(Option option, std::span<const std::byte> data) {
    Reader reader(data);
    const auto name = reader.counted_text();
    const auto count = reader.number<std::uint16_t>();
    if (!name.has_value() || !count.has_value() || name->size() > name_bytes_max ||
        reader.left() != std::size_t{*count} * 2) {
        answer_text(option, Answer::invalid, "malformed");
        return;
    }
    if (!is_ours(*name)) {
        answer_text(option, Answer::unknown, "no such export");
        return;
    }
    std::vector<std::byte> info;
    put(info, info_export);
    put(info, export_.bytes);
    put(info, export_.flags);
    answer(option, Answer::info, info);
    info.clear();
    put(info, info_name);
    put(info, std::string_view(export_.name));
    answer(option, Answer::info, info);
    info.clear();
    put(info, info_block_size);
    put(info, export_.block_bytes_min);
    put(info, std::max(export_.block_bytes_min, block_bytes_preferred));
    put(info, payload_bytes_max);
    answer(option, Answer::info, info);
    answer(option, Answer::ack);
    if (option == Option::go) {
        phase_ = Phase::transmission;
    }
}

void Negotiation::meta_context(Option option, std::span<const std::byte> data) {
    const bool sets = option == Option::set_meta_context;
    if (sets) {
        allocation_ = false; // Whatever was set before is forgotten.
    }
    Reader reader(data);
    const auto name = reader.counted_text();
    const auto queries = reader.number<std::uint32_t>();
    if (!name.has_value() || !queries.has_value() || name->size() > name_bytes_max ||
        (sets && !structured_)) {
        answer_text(option, Answer::invalid, "malformed, or without structured replies");
        return;
    }
    bool wanted = !sets && *queries == 0; // A list without queries asks for all there are.
    for (std::uint32_t i = 0; i < *queries; ++i) {
        const auto query = reader.counted_text();
        if (!query.has_value()) {
            answer_text(option, Answer::invalid, "malformed query");
            return;
        }
        wanted = wanted || *query == allocation_context || (!sets && *query == "base:");
    }
    if (reader.left() != 0) {
        answer_text(option, Answer::invalid, "something behind the queries");
        return;
    }
    if (!is_ours(*name)) {
        answer_text(option, Answer::unknown, "no such export");
        return;
    }
    if (wanted) {
        std::vector<std::byte> context;
        put(context, allocation_context_id);
        put(context, allocation_context);
        answer(option, Answer::meta_context, context);
        allocation_ = sets || allocation_;
    }
    answer(option, Answer::ack);
}

} // namespace godwit::doors::nbd
