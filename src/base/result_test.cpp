#include "base/result.h"

#include <cerrno>
#include <memory>

namespace godwit {
namespace {

Result<std::unique_ptr<int>> make(bool works) {
    if (!works) {
        return Error(ErrorCode::busy, "the image is in use");
    }
    return std::make_unique<int>(7);
}

Result<int> twice(bool works) {
    const std::unique_ptr<int> value = GODWIT_TRY(make(works));
    return *value * 2;
}

Status both() {
    GODWIT_TRY(make(true));
    GODWIT_TRY(make(false).with_context("second"));
    return ok();
}

TEST(Result, try_value_is_moved_out) {
    auto result = twice(true);
    ASSERT_TRUE(result.has_value());
    EXPECT_EQ(*result, 14);
}

TEST(Result, try_error_is_returned) {
    auto result = twice(false);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code(), ErrorCode::busy);
}

TEST(Result, with_context_error_names_both) {
    auto status = both();
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().to_string(), "second: the image is in use");
}

TEST(Error, from_errno_enoent_is_not_found) {
    const Error error = Error::from_errno(ENOENT, "open '/x'");
    EXPECT_EQ(error.code(), ErrorCode::not_found);
    EXPECT_EQ(error.os_errno(), ENOENT);
    EXPECT_EQ(error.to_string(), "open '/x': No such file or directory");
}

TEST(Error, name_of_every_code_is_known) {
    for (int code = 1; code <= 14; ++code) {
        EXPECT_NE(name_of(static_cast<ErrorCode>(code)), "unknown");
    }
}

} // namespace
} // namespace godwit
