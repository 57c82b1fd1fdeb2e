#include "machine/mac_address.h"

#include <gtest/gtest.h>

namespace godwit::machine {
namespace {

TEST(MacAddress, text_is_read) {
    EXPECT_EQ(*parse_mac_address("52:54:00:aB:0c:ff"),
              (MacBytes{0x52, 0x54, 0x00, 0xAB, 0x0C, 0xFF}));
}

TEST(MacAddress, malformed_text_is_refused) {
    for (const char* text : {"",
                             "52:54:00:ab:0c",
                             "52:54:00:ab:0c:f",
                             "52:54:00:ab:0c:fg",
                             "52-54-00-ab-0c-ff",
                             "52:54:00:ab:0c:ff:",
                             "-2:54:00:ab:0c:ff",
                             "53:54:00:ab:0c:ff"}) {
        EXPECT_FALSE(parse_mac_address(text).has_value()) << text;
    }
}

TEST(MacAddress, derived_addresses_differ_and_stay) {
    EXPECT_EQ(derived_mac_address("web1", 0), derived_mac_address("web1", 0));
    EXPECT_NE(derived_mac_address("web1", 0), derived_mac_address("web1", 1));
    EXPECT_NE(derived_mac_address("web1", 0), derived_mac_address("web2", 0));
    EXPECT_TRUE(parse_mac_address(derived_mac_address("web1", 0)).has_value());
}

} // namespace
} // namespace godwit::machine
