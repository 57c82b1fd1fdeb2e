#include "state/saved_state.h"

#include <xxhash.h>

#include <algorithm>
#include <set>

namespace godwit::state {

namespace {

constexpr std::string_view magic = "GODWITST";
constexpr std::string_view architecture_here = "x86_64";
constexpr std::size_t architecture_bytes_max = 16;
constexpr std::size_t writer_bytes_max = 128;
constexpr std::size_t build_id_bytes_max = 128;
constexpr std::uint32_t flag_required = 1U << 0U;
constexpr std::size_t checksum_bytes = sizeof(std::uint64_t);
/// Everything of a section that is neither its name nor its payload.
constexpr std::size_t section_fixed_bytes = 1 + 4 * sizeof(std::uint32_t) + checksum_bytes;
/// The largest header and the trailer.
constexpr std::size_t outer_bytes_max = magic.size() + 2 * sizeof(std::uint32_t) + 3 +
                                        architecture_bytes_max + writer_bytes_max +
                                        build_id_bytes_max + checksum_bytes;

bool is_lower_or_digit(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}
bool is_section_name_char(char c) noexcept {
    return is_lower_or_digit(c) || c == '-' || c == '.';
}
bool is_architecture_char(char c) noexcept {
    return is_lower_or_digit(c) || c == '_';
}
bool is_printable(char c) noexcept {
    return c >= ' ' && c <= '~';
}

/// What a text of the format may look like.
struct TextRule {
    std::string_view what;
    std::size_t bytes_min = 0;
    std::size_t bytes_max = 0;
    bool (*allowed)(char) noexcept = nullptr;
};
constexpr TextRule architecture_rule{
    "architecture", 1, architecture_bytes_max, is_architecture_char};
constexpr TextRule writer_rule{"writer", 0, writer_bytes_max, is_printable};
// Hexadecimal digits, or "none".
constexpr TextRule build_id_rule{"build id", 0, build_id_bytes_max, is_lower_or_digit};
constexpr TextRule name_rule{"section name", 1, section_name_bytes_max, is_section_name_char};

bool keeps(const TextRule& rule, std::string_view text) noexcept {
    return text.size() >= rule.bytes_min && text.size() <= rule.bytes_max &&
           std::ranges::all_of(text, rule.allowed);
}

std::size_t encoded_size(const Section& section) noexcept {
    return section_fixed_bytes + section.id.name.size() + section.payload.size();
}

Error corrupt(std::string_view what) {
    return {ErrorCode::corrupt, std::string(what)};
}

} // namespace

bool SavedState::has(const SectionId& id) const noexcept {
    return std::ranges::any_of(sections_, [&](const Section& section) {
        return section.id.instance == id.instance && section.id.name == id.name;
    });
}

Status SavedState::add(Section section) {
    if (!keeps(name_rule, section.id.name) || section.version == 0) {
        return Error(ErrorCode::invalid_argument,
                     "saved section " + section.id.to_string() + " has a bad name or version");
    }
    if (has(section.id)) {
        return Error(ErrorCode::already_exists,
                     "saved section " + section.id.to_string() + " is there twice");
    }
    const std::size_t bytes = encoded_size(section);
    if (section.payload.size() > section_payload_bytes_max || sections_.size() >= sections_max ||
        bytes > state_bytes_max - outer_bytes_max - encoded_bytes_) {
        return Error(ErrorCode::resource_exhausted,
                     "saved section " + section.id.to_string() + " of " +
                         std::to_string(section.payload.size()) +
                         " bytes is beyond the limits of a saved state");
    }
    encoded_bytes_ += bytes;
    sections_.push_back(std::move(section));
    return ok();
}

Status SavedState::append(SavedState other) {
    for (Section& section : other.sections_) {
        GODWIT_TRY(add(std::move(section)));
    }
    return ok();
}

Status SavedState::add(const StateUnit& unit) {
    Saved saved = GODWIT_TRY(unit.save().with_context("save " + unit.section_id().to_string()));
    if (const auto* refusal = std::get_if<NotSavable>(&saved)) {
        return Error(ErrorCode::conflict,
                     unit.section_id().to_string() + " cannot be saved now: " + refusal->reason);
    }
    if (auto* section = std::get_if<Section>(&saved)) {
        return add(std::move(*section));
    }
    return ok();
}

Result<Section> SavedState::take(const SectionId& id) {
    const auto found = std::ranges::find(sections_, id, &Section::id);
    if (found == sections_.end()) {
        return Error(ErrorCode::not_found,
                     "the saved state has no section " + id.to_string() +
                         ": it does not belong to this machine");
    }
    Section section = std::move(*found);
    encoded_bytes_ -= encoded_size(section);
    sections_.erase(found);
    return section;
}

bool SavedState::leave_out(const SavedState& other) {
    const auto in_other = [&other](const Section& section) {
        return std::ranges::find(other.sections_, section) != other.sections_.end();
    };
    const auto shared = std::ranges::count_if(sections_, in_other);
    if (static_cast<std::size_t>(shared) != other.sections_.size()) {
        return false;
    }
    std::erase_if(sections_, [&](const Section& section) {
        const bool leaves = in_other(section);
        encoded_bytes_ -= leaves ? encoded_size(section) : 0;
        return leaves;
    });
    return true;
}

Result<std::uint32_t> SavedState::finish() const {
    const auto required = std::ranges::find_if(sections_, &Section::required);
    if (required != sections_.end()) {
        return Error(ErrorCode::unsupported,
                     "this build does not know the required saved section " +
                         required->id.to_string() + ", written by '" + header.writer +
                         "': restore with that build or a newer one");
    }
    return static_cast<std::uint32_t>(sections_.size());
}

namespace {

std::uint64_t checksum_of(std::string_view bytes) noexcept {
    return XXH3_64bits(bytes.data(), bytes.size());
}

class Writer {
  public:
    explicit Writer(std::size_t expected_bytes) { out_.reserve(expected_bytes); }
    template <typename T>
    void integer(T value) {
        for (std::size_t i = 0; i < sizeof(T); ++i) {
            out_ += static_cast<char>((value >> (8 * i)) & 0xff);
        }
    }
    void text(const TextRule& rule, std::string_view value) {
        GODWIT_ASSERT(keeps(rule, value));
        integer(static_cast<std::uint8_t>(value.size()));
        out_ += value;
    }
    void raw(std::string_view bytes) { out_ += bytes; }
    [[nodiscard]] std::string_view since(std::size_t start) const {
        return std::string_view(out_).substr(start);
    }
    [[nodiscard]] std::size_t size() const { return out_.size(); }
    [[nodiscard]] std::string take() { return std::move(out_); }

  private:
    std::string out_;
};

void write_section(Writer& out, const Section& section) {
    const std::size_t start = out.size();
    out.text(name_rule, section.id.name);
    out.integer(section.id.instance);
    out.integer(section.version);
    out.integer(section.required ? flag_required : 0U);
    out.integer(static_cast<std::uint32_t>(section.payload.size()));
    out.raw(section.payload);
    out.integer(checksum_of(out.since(start)));
}

} // namespace

std::string SavedState::encode() const {
    Writer out(outer_bytes_max + encoded_bytes_);
    out.raw(magic);
    out.integer(header.format);
    out.text(architecture_rule, header.architecture);
    out.text(writer_rule, header.writer);
    out.text(build_id_rule, header.build_id);
    out.integer(static_cast<std::uint32_t>(sections_.size()));
    for (const Section& section : sections_) {
        write_section(out, section);
    }
    out.integer(checksum_of(out.since(0)));
    return out.take();
}

namespace {

/// Reads from bytes that nobody has checked; nothing it hands out lies outside them.
class Reader {
  public:
    explicit Reader(std::string_view bytes) : bytes_(bytes) {}

    Result<std::string_view> raw(std::size_t count, std::string_view what) {
        if (count > bytes_.size() - position_) {
            return corrupt("it ends within the " + std::string(what));
        }
        position_ += count;
        return bytes_.substr(position_ - count, count);
    }
    template <typename T>
    Result<T> integer(std::string_view what) {
        const std::string_view found = GODWIT_TRY(raw(sizeof(T), what));
        T value = 0;
        for (std::size_t i = sizeof(T); i-- > 0;) {
            value =
                static_cast<T>((std::uint64_t{value} << 8U) | static_cast<unsigned char>(found[i]));
        }
        return value;
    }
    Result<std::string> text(const TextRule& rule) {
        const std::size_t length = GODWIT_TRY(integer<std::uint8_t>(rule.what));
        if (length < rule.bytes_min || length > rule.bytes_max) {
            return corrupt("the " + std::string(rule.what) + " has " + std::to_string(length) +
                           " bytes");
        }
        const std::string_view found = GODWIT_TRY(raw(length, rule.what));
        if (!keeps(rule, found)) {
            return corrupt("the " + std::string(rule.what) +
                           " has a character that is not allowed");
        }
        return std::string(found);
    }
    [[nodiscard]] std::size_t position() const { return position_; }
    [[nodiscard]] std::string_view since(std::size_t start) const {
        return bytes_.substr(start, position_ - start);
    }
    [[nodiscard]] std::size_t left() const { return bytes_.size() - position_; }

  private:
    std::string_view bytes_;
    std::size_t position_ = 0;
};

Result<StateHeader> read_header(Reader& in) {
    if (GODWIT_TRY(in.raw(magic.size(), "magic")) != magic) {
        return corrupt("it does not begin with the magic of a saved state");
    }
    StateHeader header;
    header.format = GODWIT_TRY(in.integer<std::uint32_t>("format number"));
    if (header.format != state_format) {
        return Error(ErrorCode::unsupported,
                     "its format is number " + std::to_string(header.format) +
                         ", this build reads number " + std::to_string(state_format));
    }
    header.architecture = GODWIT_TRY(in.text(architecture_rule));
    header.writer = GODWIT_TRY(in.text(writer_rule));
    header.build_id = GODWIT_TRY(in.text(build_id_rule));
    if (header.architecture != architecture_here) {
        return Error(ErrorCode::unsupported,
                     "it is the state of a machine of architecture " + header.architecture +
                         ", this host is " + std::string(architecture_here));
    }
    return header;
}

/// Reads the rest of a section whose name is known.
Status read_section_body(Reader& in, std::size_t start, Section& section) {
    section.id.instance = GODWIT_TRY(in.integer<std::uint32_t>("instance"));
    section.version = GODWIT_TRY(in.integer<std::uint32_t>("version"));
    const auto flags = GODWIT_TRY(in.integer<std::uint32_t>("flags"));
    const auto length = GODWIT_TRY(in.integer<std::uint32_t>("payload length"));
    if (length > section_payload_bytes_max) {
        return corrupt("its length of " + std::to_string(length) + " bytes is beyond the limit");
    }
    const std::string_view payload = GODWIT_TRY(in.raw(length, "payload"));
    const std::string_view covered = in.since(start);
    if (GODWIT_TRY(in.integer<std::uint64_t>("section checksum")) != checksum_of(covered)) {
        return corrupt("its checksum does not match");
    }
    if (section.version == 0) {
        return corrupt("its version is 0");
    }
    if ((flags & ~flag_required) != 0) {
        return Error(ErrorCode::unsupported,
                     "it has flags this build does not know: " + std::to_string(flags));
    }
    section.required = (flags & flag_required) != 0;
    section.payload = payload;
    return ok();
}

Result<Section> read_section(Reader& in, std::uint32_t number) {
    const std::size_t start = in.position();
    Section section;
    section.id.name =
        GODWIT_TRY(in.text(name_rule).with_context("section number " + std::to_string(number)));
    GODWIT_TRY(read_section_body(in, start, section)
                   .with_context("section number " + std::to_string(number) + ", " +
                                 section.id.to_string()));
    return section;
}

Result<std::vector<Section>> read_sections(Reader& in) {
    const auto count = GODWIT_TRY(in.integer<std::uint32_t>("section count"));
    if (count > sections_max) {
        return corrupt("it says it has " + std::to_string(count) + " sections, the limit is " +
                       std::to_string(sections_max));
    }
    std::vector<Section> sections;
    std::set<SectionId> seen;
    for (std::uint32_t number = 0; number < count; ++number) {
        Section section = GODWIT_TRY(read_section(in, number));
        if (!seen.insert(section.id).second) {
            return corrupt("section " + section.id.to_string() + " is there twice");
        }
        sections.push_back(std::move(section));
    }
    return sections;
}

Status read_trailer(Reader& in) {
    const std::string_view covered = in.since(0);
    const auto checksum = GODWIT_TRY(in.integer<std::uint64_t>("trailer"));
    if (in.left() != 0) {
        return corrupt("it has " + std::to_string(in.left()) + " bytes after its end");
    }
    if (checksum_of(covered) != checksum) {
        return corrupt("the trailer's checksum does not match");
    }
    return ok();
}

Result<StateHeader> read_all(Reader& in, std::vector<Section>& sections) {
    StateHeader header = GODWIT_TRY(read_header(in));
    sections = GODWIT_TRY(read_sections(in));
    GODWIT_TRY(read_trailer(in));
    return header;
}

} // namespace

Result<SavedState> SavedState::decode(std::span<const std::byte> bytes) {
    static constexpr std::string_view context = "the saved state cannot be used";
    if (bytes.size() > state_bytes_max) {
        return corrupt("it is larger than " + std::to_string(state_bytes_max) + " bytes")
            .with_context(context);
    }
    Reader in(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    SavedState state;
    state.header = GODWIT_TRY(read_all(in, state.sections_).with_context(context));
    for (const Section& section : state.sections_) {
        state.encoded_bytes_ += encoded_size(section);
    }
    return state;
}

} // namespace godwit::state
