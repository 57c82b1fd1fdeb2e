#include "doors/place_note.h"
#include "sys/fd.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace godwit::doors {
namespace {

class PlaceNoteTest : public testing::Test {
  protected:
    PlaceNoteTest() {
        std::string name = "/dev/shm/godwit-place-XXXXXX";
        EXPECT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
        image_ = folder_ + "/disk.raw";
    }
    ~PlaceNoteTest() override {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    PlaceNote note() const { return GODWIT_MUST(PlaceNote::of(image_, "")); } // A good path.
    void put(const std::string& text) const {
        ASSERT_TRUE(sys::write_file_atomically(image_ + ".place", text).has_value());
    }
    std::string folder_;
    std::string image_;
};

TEST_F(PlaceNoteTest, without_one_the_image_lies_where_it_always_did) {
    const Result<block::ImagePlace> place = note().read();
    ASSERT_TRUE(place.has_value());
    EXPECT_EQ(place->path, image_);
    EXPECT_TRUE(place->direct);
}

TEST_F(PlaceNoteTest, what_was_written_is_read_there_and_back) {
    ASSERT_TRUE(note().write({.path = "/mnt/fast/disk.raw", .direct = false}).has_value());
    EXPECT_EQ(note().read()->path, "/mnt/fast/disk.raw");
    EXPECT_FALSE(note().read()->direct);
    ASSERT_TRUE(note().write({.path = image_, .direct = true}).has_value());
    EXPECT_EQ(note().read()->path, image_);
    EXPECT_FALSE(std::filesystem::exists(image_ + ".place.new"));
}

TEST_F(PlaceNoteTest, what_is_no_note_is_never_the_old_place) {
    const std::string good = R"("format":"godwit-export-place","version":1,"direct":true)";
    for (const std::string& text : {std::string(),
                                    std::string("{}"),
                                    std::string("[1]"),
                                    "{" + good + R"(,"image":"/x"})",
                                    "{" + good + R"(,"image":"/x","origin":"/other.raw"})",
                                    "{" + good + R"(,"image":"x","origin":")" + image_ + "\"}",
                                    "{" + good + R"(,"image":7,"origin":")" + image_ + "\"}",
                                    R"({"format":"godwit-export-place","version":2,"direct":true,)"
                                    R"("image":"/x","origin":")" +
                                        image_ + "\"}"}) {
        put(text);
        const Result<block::ImagePlace> place = note().read();
        ASSERT_FALSE(place.has_value()) << text;
        EXPECT_EQ(place.error().code(), ErrorCode::corrupt) << text;
    }
    put(std::string(PlaceNote::bytes_max + 1, ' '));
    EXPECT_FALSE(note().read().has_value());
    std::filesystem::remove(image_ + ".place");
    std::filesystem::create_directory(image_ + ".place");
    EXPECT_FALSE(note().read().has_value());
}

TEST_F(PlaceNoteTest, bytes_that_are_no_text_are_refused_when_written) {
    EXPECT_FALSE(note().write({.path = "/mnt/\xff.raw"}).has_value());
    EXPECT_EQ(note().read()->path, image_);
}

TEST_F(PlaceNoteTest, where_nothing_can_be_noted_is_told_before) {
    EXPECT_TRUE(note().check().has_value());
    const auto gone = PlaceNote::of(folder_ + "/gone/disk.raw", "");
    ASSERT_TRUE(gone.has_value());
    EXPECT_FALSE(gone->check().has_value());
    EXPECT_FALSE(gone->write({.path = "/x"}).has_value());
}

} // namespace
} // namespace godwit::doors
