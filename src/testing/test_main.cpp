#include <gtest/gtest.h>

#include <cstdio>

// An empty list of tests must not pass, and a skipped test is named at the end of the run.
int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    const int result = RUN_ALL_TESTS();
    const auto* unit = testing::UnitTest::GetInstance();
    if (unit->test_to_run_count() == 0) {
        std::fprintf(stderr, "no test matched: an empty run is a failure\n");
        return 1;
    }
    return result;
}
