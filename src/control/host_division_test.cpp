#include "control/host_division.h"

#include <gtest/gtest.h>

namespace godwit::control {
namespace {

// MP-4: CPUs follow the machines; the last one is bequeathed.
TEST(CpusToKeep, share_of_the_machines_that_are_left_rounded_up_and_never_none) {
    EXPECT_EQ(cpus_to_keep(4, 8, 8), 4U);
    EXPECT_EQ(cpus_to_keep(4, 7, 8), 4U);
    EXPECT_EQ(cpus_to_keep(4, 6, 8), 3U);
    EXPECT_EQ(cpus_to_keep(4, 2, 8), 1U);
    EXPECT_EQ(cpus_to_keep(4, 0, 8), 1U);
    EXPECT_EQ(cpus_to_keep(1, 1, 3), 1U);
    EXPECT_EQ(cpus_to_keep(3, 0, 0), 1U);
}

} // namespace
} // namespace godwit::control
