#include "doors/nbd/negotiation.h"

namespace godwit::doors::nbd {
namespace {

constexpr std::uint16_t export_flags = 0x1ed;
constexpr std::uint64_t export_bytes = 123 * 4096;

struct NegotiationTest : ::testing::Test {
    NegotiationTest() {
        EXPECT_EQ(negotiation.output().size(), 18U);
        negotiation.output().clear();
    }
    /// Feeds all of it; the error, if there was one.
    Status feed(const std::vector<std::byte>& bytes) {
        std::span<const std::byte> left(bytes);
        while (!left.empty()) {
            const std::size_t taken = GODWIT_TRY(negotiation.take(left));
            if (taken == 0) {
                return ok();
            }
            left = left.subspan(taken);
        }
        return ok();
    }
    static std::vector<std::byte> flags(std::uint32_t value) {
        std::vector<std::byte> bytes;
        put(bytes, value);
        return bytes;
    }
    static std::vector<std::byte> option(Option kind, const std::vector<std::byte>& data) {
        std::vector<std::byte> bytes;
        put(bytes, magic_option);
        put(bytes, static_cast<std::uint32_t>(kind));
        put(bytes, static_cast<std::uint32_t>(data.size()));
        bytes.insert(bytes.end(), data.begin(), data.end());
        return bytes;
    }
    static std::vector<std::byte> counted(std::string_view text) {
        std::vector<std::byte> bytes;
        put(bytes, static_cast<std::uint32_t>(text.size()));
        put(bytes, text);
        return bytes;
    }
    static std::vector<std::byte> go_data(std::string_view name) {
        std::vector<std::byte> bytes = counted(name);
        put(bytes, std::uint16_t{0});
        return bytes;
    }
    static std::vector<std::byte> contexts(std::string_view name,
                                           const std::vector<std::string_view>& queries) {
        std::vector<std::byte> bytes = counted(name);
        put(bytes, static_cast<std::uint32_t>(queries.size()));
        for (const std::string_view query : queries) {
            const auto one = counted(query);
            bytes.insert(bytes.end(), one.begin(), one.end());
        }
        return bytes;
    }
    /// The kinds of the answers since the last time.
    std::vector<Answer> answers() {
        std::vector<Answer> kinds;
        const std::vector<std::byte> out = std::exchange(negotiation.output(), {});
        for (std::size_t at = 0; at + 20 <= out.size();) {
            EXPECT_EQ(get<std::uint64_t>(out, at), magic_option_reply);
            kinds.push_back(static_cast<Answer>(get<std::uint32_t>(out, at + 12)));
            at += 20 + get<std::uint32_t>(out, at + 16);
        }
        return kinds;
    }
    void
    expect_answers(Option kind, const std::vector<std::byte>& data, std::vector<Answer> wanted) {
        EXPECT_TRUE(feed(option(kind, data)).has_value());
        EXPECT_EQ(answers(), wanted);
    }
    Negotiation negotiation{
        {.name = "disk", .bytes = export_bytes, .flags = export_flags, .block_bytes_min = 512}};
};

TEST_F(NegotiationTest, GoLeadsToTransmissionWithEverythingAgreedOn) {
    ASSERT_TRUE(feed(flags(3)).has_value());
    expect_answers(Option::structured_reply, {}, {Answer::ack});
    expect_answers(Option::set_meta_context,
                   contexts("disk", {"qemu:dirty-bitmap:x", "base:allocation"}),
                   {Answer::meta_context, Answer::ack});
    expect_answers(
        Option::info, go_data(""), {Answer::info, Answer::info, Answer::info, Answer::ack});
    EXPECT_EQ(negotiation.phase(), Negotiation::Phase::options);
    expect_answers(
        Option::go, go_data("disk"), {Answer::info, Answer::info, Answer::info, Answer::ack});
    EXPECT_EQ(negotiation.phase(), Negotiation::Phase::transmission);
    EXPECT_TRUE(negotiation.structured_replies() && negotiation.allocation());
}

TEST_F(NegotiationTest, ExportNameAnswersWithTheExportAlone) {
    ASSERT_TRUE(feed(flags(1)).has_value());
    std::vector<std::byte> name;
    put(name, std::string_view("disk"));
    ASSERT_TRUE(feed(option(Option::export_name, name)).has_value());
    const auto& out = negotiation.output();
    ASSERT_EQ(out.size(), 8U + 2 + 124);
    EXPECT_EQ(get<std::uint64_t>(out, 0), export_bytes);
    EXPECT_EQ(get<std::uint16_t>(out, 8), export_flags);
    EXPECT_EQ(negotiation.phase(), Negotiation::Phase::transmission);
}

TEST_F(NegotiationTest, AnswersWhatItDoesNotKnowAndGoesOn) {
    ASSERT_TRUE(feed(flags(3)).has_value());
    expect_answers(Option::start_tls, {}, {Answer::unsupported});
    expect_answers(static_cast<Option>(4711), {}, {Answer::unsupported});
    expect_answers(Option::list, {}, {Answer::server, Answer::ack});
    expect_answers(Option::list, {std::byte{1}}, {Answer::invalid});
    expect_answers(Option::go, go_data("other"), {Answer::unknown});
    expect_answers(Option::go, {}, {Answer::invalid});
    expect_answers(Option::go, counted("disk"), {Answer::invalid});
    expect_answers(Option::structured_reply, {std::byte{1}}, {Answer::invalid});
    expect_answers(Option::set_meta_context, contexts("disk", {}), {Answer::invalid});
    expect_answers(
        Option::list_meta_context, contexts("disk", {}), {Answer::meta_context, Answer::ack});
    EXPECT_FALSE(negotiation.allocation());
    expect_answers(Option::structured_reply, {}, {Answer::ack});
    expect_answers(Option::set_meta_context, contexts("other", {}), {Answer::unknown});
    expect_answers(Option::set_meta_context, contexts("disk", {"other:"}), {Answer::ack});
    expect_answers(Option::abort, {}, {Answer::ack});
    EXPECT_EQ(negotiation.phase(), Negotiation::Phase::ended);
}

TEST_F(NegotiationTest, TakesNothingUntilItIsComplete) {
    const auto client_flags = flags(3);
    EXPECT_EQ(*negotiation.take(std::span(client_flags).first(3)), 0U);
    ASSERT_TRUE(feed(flags(3)).has_value());
    const auto whole = option(Option::go, go_data("disk"));
    for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
        EXPECT_EQ(*negotiation.take(std::span(whole).first(bytes)), 0U);
    }
    EXPECT_EQ(*negotiation.take(whole), whole.size());
}

TEST_F(NegotiationTest, EndsWithWhatItCannotUnderstand) {
    EXPECT_FALSE(feed(flags(0)).has_value());
    EXPECT_FALSE(feed(flags(5)).has_value());
    ASSERT_TRUE(feed(flags(3)).has_value());
    auto wrong = option(Option::list, {});
    wrong[0] = std::byte{0};
    EXPECT_FALSE(feed(wrong).has_value());
    auto large = option(Option::list, {});
    large[12] = std::byte{0xff};
    EXPECT_FALSE(feed(large).has_value());
    std::vector<std::byte> name;
    put(name, std::string_view("other"));
    EXPECT_EQ(feed(option(Option::export_name, name)).error().code(), ErrorCode::not_found);
}

TEST_F(NegotiationTest, OptionsHaveAnEnd) {
    ASSERT_TRUE(feed(flags(3)).has_value());
    for (std::uint32_t i = 0; i < options_max; ++i) {
        ASSERT_TRUE(feed(option(Option::list, {})).has_value());
    }
    EXPECT_EQ(feed(option(Option::list, {})).error().code(), ErrorCode::resource_exhausted);
}

TEST_F(NegotiationTest, LyingCountsAreMalformed) {
    ASSERT_TRUE(feed(flags(3)).has_value());
    expect_answers(Option::structured_reply, {}, {Answer::ack});
    auto queries = contexts("disk", {"base:allocation"});
    queries[11] = std::byte{200}; // more queries than there are
    expect_answers(Option::set_meta_context, queries, {Answer::invalid});
    auto name = contexts("disk", {});
    name[0] = std::byte{0xff};
    expect_answers(Option::set_meta_context, name, {Answer::invalid});
    auto tail = contexts("disk", {});
    tail.push_back(std::byte{0});
    expect_answers(Option::set_meta_context, tail, {Answer::invalid});
}

} // namespace
} // namespace godwit::doors::nbd
