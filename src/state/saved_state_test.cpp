#include "state/saved_state.h"
#include "state/testing/reseal.h"

#include <cstring>
#include <fstream>
#include <iterator>

namespace godwit::state {
namespace {

Section section(std::string name, std::uint32_t instance, std::string payload) {
    return {.id = {.name = std::move(name), .instance = instance}, .payload = std::move(payload)};
}

/// The state that the golden file of format 1 holds.
SavedState sample() {
    SavedState state;
    state.header.writer = "godwit 0.1.0";
    state.header.build_id = "0123456789abcdef";
    GODWIT_MUST(state.add(section("kvm.clock", 0, std::string("\x00\x01\xff", 3)))); // Fits.
    GODWIT_MUST(state.add(section("virtio-blk", 0, "first")));                       // Fits.
    GODWIT_MUST(state.add(section("virtio-blk", 1, "")));                            // Fits.
    Section optional = section("statistics", 0, "numbers");
    optional.version = 7;
    optional.required = false;
    GODWIT_MUST(state.add(std::move(optional))); // Fits.
    return state;
}

Result<SavedState> decode(std::string_view bytes) {
    return SavedState::decode(std::as_bytes(std::span(bytes)));
}

std::string golden() {
    std::ifstream file(GODWIT_SOURCE_DIR "/tests/compat/golden/saved-state-format-1.bin",
                       std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <typename T>
void overwrite(std::string& bytes, std::size_t at, T value) {
    std::memcpy(bytes.data() + at, &value, sizeof(value));
}

TEST(SavedState, encode_decode_keeps_everything) {
    const SavedState state = sample();
    auto read = decode(state.encode());
    ASSERT_TRUE(read.has_value()) << read.error().to_string();
    EXPECT_EQ(read->header.writer, "godwit 0.1.0");
    EXPECT_EQ(read->header.build_id, "0123456789abcdef");
    ASSERT_EQ(read->sections().size(), 4U);
    EXPECT_EQ(read->sections()[0].payload, std::string("\x00\x01\xff", 3));
    EXPECT_EQ(read->sections()[2].id.to_string(), "virtio-blk#1");
    EXPECT_EQ(read->sections()[3].version, 7U);
    EXPECT_FALSE(read->sections()[3].required);
    EXPECT_EQ(read->encode(), state.encode());
}

TEST(SavedState, golden_format_1_reads_and_writes_the_same) {
    const std::string bytes = golden();
    ASSERT_FALSE(bytes.empty());
    EXPECT_EQ(sample().encode(), bytes);
    auto read = decode(bytes);
    ASSERT_TRUE(read.has_value()) << read.error().to_string();
    EXPECT_EQ(read->sections().size(), 4U);
}

TEST(SavedState, every_truncated_prefix_is_refused) {
    const std::string bytes = sample().encode();
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        EXPECT_FALSE(decode(std::string_view(bytes).substr(0, length)).has_value()) << length;
    }
}

TEST(SavedState, every_single_bit_change_is_refused) {
    const std::string bytes = sample().encode();
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        std::string changed = bytes;
        changed[bit / 8] =
            static_cast<char>(static_cast<unsigned char>(changed[bit / 8]) ^ (1U << (bit % 8)));
        ASSERT_FALSE(decode(changed).has_value()) << "bit " << bit;
    }
}

TEST(SavedState, every_overwritten_byte_is_refused) {
    const std::string bytes = sample().encode();
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        for (const char value : {'\0', 'A', '\x7f', '\xff'}) {
            std::string changed = bytes;
            changed[at] = value;
            ASSERT_EQ(decode(changed).has_value(), changed == bytes) << "byte " << at;
        }
    }
}

/// The error of a state of one section "abc" in which `change` was made and sealed again.
std::string
resealed_error(const std::function<void(std::string& bytes, std::size_t name)>& change) {
    SavedState state;
    GODWIT_MUST(state.add(section("abc", 0, "payload"))); // Fits.
    std::string bytes = state.encode();
    change(bytes, bytes.find("abc"));
    testing::reseal(bytes);
    auto read = decode(bytes);
    return read.has_value() ? "accepted" : read.error().to_string();
}

TEST(SavedState, resealed_unchanged_state_is_accepted) {
    EXPECT_EQ(resealed_error([](std::string&, std::size_t) {}), "accepted");
}

TEST(SavedState, resealed_unknown_flag_is_refused) {
    EXPECT_EQ(resealed_error([](std::string& bytes, std::size_t name) {
                  overwrite<std::uint32_t>(bytes, name + 11, 3);
              }),
              "the saved state cannot be used: section number 0, abc#0: it has flags this build "
              "does not know: 3");
}

TEST(SavedState, resealed_version_zero_is_refused) {
    EXPECT_EQ(resealed_error([](std::string& bytes, std::size_t name) {
                  overwrite<std::uint32_t>(bytes, name + 7, 0);
              }),
              "the saved state cannot be used: section number 0, abc#0: its version is 0");
}

TEST(SavedState, resealed_bad_name_is_refused) {
    EXPECT_EQ(
        resealed_error([](std::string& bytes, std::size_t name) { bytes[name + 1] = '/'; }),
        "the saved state cannot be used: section number 0: the section name has a character that "
        "is not allowed");
}

TEST(SavedState, resealed_duplicate_section_is_refused) {
    SavedState state;
    GODWIT_MUST(state.add(section("abc", 0, "payload"))); // Fits.
    GODWIT_MUST(state.add(section("abd", 0, "payload"))); // Fits.
    std::string bytes = state.encode();
    bytes[bytes.find("abd") + 2] = 'c';
    testing::reseal(bytes);
    auto read = decode(bytes);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().to_string(),
              "the saved state cannot be used: section abc#0 is there twice");
}

TEST(SavedState, writer_without_build_id_is_read_back) {
    SavedState state;
    state.header.writer = "0.1.0+label";
    state.header.build_id = "none";
    EXPECT_TRUE(decode(state.encode()).has_value());
}

TEST(SavedState, resealed_unprintable_writer_is_refused) {
    SavedState state;
    state.header.writer = "godwit";
    std::string bytes = state.encode();
    bytes[bytes.find("godwit")] = '\x1b';
    testing::reseal(bytes);
    EXPECT_FALSE(decode(bytes).has_value());
}

TEST(SavedState, damaged_payload_error_names_the_section) {
    std::string bytes = sample().encode();
    bytes[bytes.find("first")] = 'F';
    auto read = decode(bytes);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), ErrorCode::corrupt);
    EXPECT_NE(read.error().to_string().find("virtio-blk#0"), std::string::npos);
}

TEST(SavedState, leftover_byte_is_refused) {
    auto read = decode(sample().encode() + "x");
    ASSERT_FALSE(read.has_value());
    EXPECT_NE(read.error().to_string().find("1 bytes after its end"), std::string::npos);
}

TEST(SavedState, other_format_is_unsupported) {
    std::string bytes = sample().encode();
    overwrite<std::uint32_t>(bytes, 8, 2);
    auto read = decode(bytes);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), ErrorCode::unsupported);
}

TEST(SavedState, other_architecture_is_unsupported) {
    SavedState state = sample();
    state.header.architecture = "aarch64";
    auto read = decode(state.encode());
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), ErrorCode::unsupported);
    EXPECT_NE(read.error().to_string().find("aarch64"), std::string::npos);
}

TEST(SavedState, section_count_beyond_limit_is_refused) {
    std::string bytes = SavedState().encode();
    overwrite<std::uint32_t>(bytes, bytes.size() - 12, sections_max + 1);
    auto read = decode(bytes);
    ASSERT_FALSE(read.has_value());
    EXPECT_NE(read.error().to_string().find("4097 sections"), std::string::npos);
}

TEST(SavedState, payload_length_beyond_limit_is_refused_before_reading) {
    SavedState state;
    GODWIT_MUST(state.add(section("a", 0, ""))); // Fits.
    std::string bytes = state.encode();
    // The last 20 bytes: payload length, section checksum, trailer.
    overwrite<std::uint32_t>(bytes, bytes.size() - 20, 0xffff'ffff);
    auto read = decode(bytes);
    ASSERT_FALSE(read.has_value());
    EXPECT_NE(read.error().to_string().find("beyond the limit"), std::string::npos);
}

TEST(SavedState, add_taken_id_already_exists) {
    SavedState state = sample();
    const Status status = state.add(section("virtio-blk", 1, "again"));
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::already_exists);
}

TEST(SavedState, add_bad_names_invalid_argument) {
    SavedState state;
    for (const char* name : {"", "Upper", "under_score", "sp ace"}) {
        const Status status = state.add(section(name, 0, ""));
        ASSERT_FALSE(status.has_value()) << name;
        EXPECT_EQ(status.error().code(), ErrorCode::invalid_argument);
    }
    EXPECT_FALSE(state.add(section(std::string(65, 'a'), 0, "")).has_value());
    EXPECT_TRUE(state.add(section(std::string(64, 'a'), 0, "")).has_value());
}

TEST(SavedState, add_too_many_sections_resource_exhausted) {
    SavedState state;
    for (std::uint32_t i = 0; i < sections_max; ++i) {
        ASSERT_TRUE(state.add(section("a", i, "")).has_value());
    }
    const Status status = state.add(section("a", sections_max, ""));
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::resource_exhausted);
    EXPECT_TRUE(decode(state.encode()).has_value());
}

TEST(SavedState, add_too_large_payload_resource_exhausted) {
    SavedState state;
    EXPECT_FALSE(
        state.add(section("a", 0, std::string(section_payload_bytes_max + 1, 'x'))).has_value());
}

TEST(SavedState, take_missing_section_is_named) {
    SavedState state = sample();
    auto taken = state.take({.name = "serial", .instance = 3});
    ASSERT_FALSE(taken.has_value());
    EXPECT_EQ(taken.error().code(), ErrorCode::not_found);
    EXPECT_NE(taken.error().to_string().find("serial#3"), std::string::npos);
}

TEST(SavedState, finish_required_leftover_is_named) {
    SavedState state = sample();
    discard(state.take({.name = "kvm.clock", .instance = 0}), "only its absence matters");
    auto left = state.finish();
    ASSERT_FALSE(left.has_value());
    EXPECT_EQ(left.error().code(), ErrorCode::unsupported);
    EXPECT_NE(left.error().to_string().find("virtio-blk#0"), std::string::npos);
}

TEST(SavedState, finish_optional_leftovers_are_counted) {
    SavedState state = sample();
    discard(state.take({.name = "kvm.clock", .instance = 0}), "only its absence matters");
    discard(state.take({.name = "virtio-blk", .instance = 0}), "only its absence matters");
    discard(state.take({.name = "virtio-blk", .instance = 1}), "only its absence matters");
    auto left = state.finish();
    ASSERT_TRUE(left.has_value());
    EXPECT_EQ(*left, 1U);
}

class FakeUnit final : public StateUnit {
  public:
    explicit FakeUnit(std::function<Saved()> saved) : saved_(std::move(saved)) {}
    [[nodiscard]] SectionType section_type() const override { return {"fake", 1}; }
    [[nodiscard]] SectionId section_id() const override { return section_type().id(2); }
    [[nodiscard]] Result<Saved> save() const override { return saved_(); }
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    std::function<Saved()> saved_;
};

TEST(SavedState, add_unit_not_savable_is_conflict_with_reason) {
    SavedState state;
    const Status status = state.add(FakeUnit([] { return NotSavable{"it is on fire"}; }));
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::conflict);
    EXPECT_EQ(status.error().to_string(), "fake#2 cannot be saved now: it is on fire");
}

TEST(SavedState, add_unit_without_state_adds_nothing) {
    SavedState state;
    ASSERT_TRUE(state.add(FakeUnit([] { return NoState{}; })).has_value());
    EXPECT_TRUE(state.sections().empty());
}

TEST(SavedState, add_unit_section_is_there) {
    SavedState state;
    ASSERT_TRUE(state.add(FakeUnit([] { return section("fake", 2, "x"); })).has_value());
    EXPECT_TRUE(state.has({.name = "fake", .instance = 2}));
}

} // namespace
} // namespace godwit::state
