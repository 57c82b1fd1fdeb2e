#include "machine/address_map.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace godwit::machine {
namespace {

/// Remembers the offsets it was written at and reads as its fill byte.
class Recorder final : public bus::BusDevice {
  public:
    explicit Recorder(std::byte fill) : fill_(fill) {}
    void read(std::uint64_t, std::span<std::byte> out) override {
        std::fill(out.begin(), out.end(), fill_);
    }
    void write(std::uint64_t offset, std::span<const std::byte>) override {
        offsets.push_back(offset);
    }
    std::vector<std::uint64_t> offsets;

  private:
    std::byte fill_;
};

std::byte read_byte(const AddressMap& map, std::uint64_t address) {
    std::array<std::byte, 1> out{};
    map.read(address, out);
    return out[0];
}

TEST(AddressMap, access_inside_range_reaches_its_device_with_offset) {
    AddressMap map;
    Recorder low(std::byte{1});
    Recorder high(std::byte{2});
    ASSERT_TRUE(map.add(0x100, 0x10, low).has_value());
    ASSERT_TRUE(map.add(0x110, 0x10, high).has_value());
    EXPECT_EQ(read_byte(map, 0x10F), std::byte{1});
    EXPECT_EQ(read_byte(map, 0x110), std::byte{2});
    const std::array<std::byte, 4> data{};
    map.write(0x11C, data);
    EXPECT_EQ(high.offsets, std::vector<std::uint64_t>{0xC});
}

TEST(AddressMap, nobody_there_reads_as_ones) {
    AddressMap map;
    Recorder device(std::byte{1});
    ASSERT_TRUE(map.add(0x100, 0x10, device).has_value());
    EXPECT_EQ(read_byte(map, 0xFF), std::byte{0xFF});
    EXPECT_EQ(read_byte(map, 0x110), std::byte{0xFF});
}

TEST(AddressMap, access_across_the_end_is_nobodys) {
    AddressMap map;
    Recorder device(std::byte{1});
    ASSERT_TRUE(map.add(0x100, 0x10, device).has_value());
    std::array<std::byte, 4> out{};
    map.read(0x10E, out);
    EXPECT_EQ(out[0], std::byte{0xFF});
    map.write(0x10E, out);
    EXPECT_TRUE(device.offsets.empty());
}

TEST(AddressMap, overlap_is_refused_on_both_sides) {
    AddressMap map;
    Recorder device(std::byte{1});
    ASSERT_TRUE(map.add(0x100, 0x10, device).has_value());
    EXPECT_EQ(map.add(0x10F, 1, device).error().code(), ErrorCode::already_exists);
    EXPECT_EQ(map.add(0xF0, 0x11, device).error().code(), ErrorCode::already_exists);
    EXPECT_EQ(map.add(0x100, 1, device).error().code(), ErrorCode::already_exists);
    EXPECT_TRUE(map.add(0xF0, 0x10, device).has_value());
}

TEST(AddressMap, empty_or_wrapping_range_is_refused) {
    AddressMap map;
    Recorder device(std::byte{1});
    EXPECT_FALSE(map.add(0x100, 0, device).has_value());
    EXPECT_FALSE(map.add(~std::uint64_t{0}, 2, device).has_value());
    EXPECT_TRUE(map.add(~std::uint64_t{0}, 1, device).has_value());
}

TEST(AddressMap, removed_range_is_free_again) {
    AddressMap map;
    Recorder device(std::byte{1});
    ASSERT_TRUE(map.add(0x100, 0x10, device).has_value());
    map.remove(0x100);
    EXPECT_EQ(read_byte(map, 0x100), std::byte{0xFF});
    EXPECT_TRUE(map.add(0x108, 0x10, device).has_value());
}

} // namespace
} // namespace godwit::machine
