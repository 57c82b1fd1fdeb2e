#include "cli/size_text.h"
#include "cli/table.h"

#include <gtest/gtest.h>

namespace godwit::cli {
namespace {

TEST(parse_size, takes_powers_of_1024) {
    EXPECT_EQ(GODWIT_MUST(parse_size("4096")), 4096U); // All of these are sizes.
    EXPECT_EQ(GODWIT_MUST(parse_size("512K")), 512U * 1024);
    EXPECT_EQ(GODWIT_MUST(parse_size("256m")), 256U * 1024 * 1024);
    EXPECT_EQ(GODWIT_MUST(parse_size("4GiB")), 4ULL << 30);
    EXPECT_EQ(GODWIT_MUST(parse_size("1TB")), 1ULL << 40);
    EXPECT_EQ(GODWIT_MUST(parse_size("0")), 0U);
}

TEST(parse_size, refuses_everything_else) {
    for (const char* bad : {"",
                            "K",
                            "-1",
                            "1.5G",
                            "4 G",
                            "4GG",
                            "4X",
                            "0x10",
                            " 4",
                            "4G ",
                            "99999999999999999999",
                            "16777216T",
                            "18446744073709551615K"}) {
        const Result<std::uint64_t> result = parse_size(bad);
        ASSERT_FALSE(result.has_value()) << bad;
        EXPECT_EQ(result.error().code(), ErrorCode::invalid_argument);
    }
}

TEST(size_text, is_exact_and_reads_back) {
    for (const std::uint64_t bytes :
         {0ULL, 100ULL, 1024ULL, 1536ULL * 1024, 4ULL << 30, (1ULL << 40) + 1}) {
        EXPECT_EQ(GODWIT_MUST(parse_size(size_text(bytes))), bytes); // It is our own text.
    }
    EXPECT_EQ(size_text(1536ULL * 1024), "1536K");
    EXPECT_EQ(duration_text(35), "35 us");
    EXPECT_EQ(duration_text(1234), "1.2 ms");
    EXPECT_EQ(duration_text(2'040'000), "2.0 s");
}

TEST(table, columns_are_aligned_and_harmless) {
    Table table({"NAME", "STATE"});
    table.add({"web1", "running"});
    table.add({"db\x1b[31m", ""});
    table.add({"gr\xc3\xbc\xc3\x9f", "x"});
    EXPECT_EQ(table.to_string(),
              "NAME     STATE\nweb1     running\ndb?[31m\ngr\xc3\xbc\xc3\x9f     x\n");
}

} // namespace
} // namespace godwit::cli
