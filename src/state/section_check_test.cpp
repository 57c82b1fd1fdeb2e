#include "state/section_check.h"
#include "state/section_codec.h"
#include "state/serial.pb.h"

#include <array>

namespace godwit::state {
namespace {

constexpr std::array known{SectionType{"serial", 3}, SectionType{"vcpu", 1}};

TEST(SectionCheck, the_same_and_older_versions_are_read) {
    for (const std::uint32_t version : {1U, 2U, 3U}) {
        EXPECT_TRUE(check_readable(known, {.name = "serial", .version = version}).has_value());
    }
}

TEST(SectionCheck, newer_version_is_refused_by_name) {
    const Status status = check_readable(known, {.name = "serial", .version = 4});
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::unsupported);
    EXPECT_EQ(
        status.error().to_string(),
        "saved section 'serial' has version 4, this build reads up to 3: use a build at least "
        "as new as the one that wrote it");
}

TEST(SectionCheck, version_0_is_refused) {
    EXPECT_FALSE(check_readable(known, {.name = "vcpu", .version = 0}).has_value());
}

TEST(SectionCheck, unknown_section_is_refused_by_name_if_required) {
    const Status status = check_readable(known, {.name = "gpu", .version = 1});
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), ErrorCode::unsupported);
    EXPECT_NE(status.error().to_string().find("'gpu' version 1"), std::string::npos);
    EXPECT_TRUE(
        check_readable(known, {.name = "gpu", .version = 1, .required = false}).has_value());
}

TEST(SectionCheck, codec_writes_the_declared_version_and_reads_older_ones) {
    SerialState message;
    message.set_scratch(7);
    Section section = encode_section(known[0], 2, message);
    EXPECT_EQ(section.id.to_string(), "serial#2");
    EXPECT_EQ(section.version, 3U);
    section.version = 1;
    const auto read = decode_section<SerialState>(known[0], section);
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->scratch(), 7U);
    section.version = 4;
    EXPECT_EQ(decode_section<SerialState>(known[0], section).error().code(),
              ErrorCode::unsupported);
}

} // namespace
} // namespace godwit::state
