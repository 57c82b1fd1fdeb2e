#include "control/exchange_order.h"

#include <gtest/gtest.h>

namespace godwit::control {
namespace {

std::string ordered(std::string_view order) {
    std::vector<OrderedMachine> machines{{.name = "b", .memory_bytes = 4, .processors_used = 0.5},
                                         {.name = "d", .memory_bytes = 1, .processors_used = 0.5},
                                         {.name = "a", .memory_bytes = 4, .processors_used = 1.9},
                                         {.name = "c", .memory_bytes = 9, .processors_used = 0}};
    const Result<ExchangeOrder> named = exchange_order_named(order);
    put_in_order(machines, named.value_or(ExchangeOrder::name));
    std::string names;
    for (const OrderedMachine& machine : machines) {
        names += machine.name;
    }
    return names;
}

TEST(exchange_order, each_has_its_key_and_then_the_name) {
    EXPECT_EQ(ordered("name"), "abcd");
    EXPECT_EQ(ordered("smallest-first"), "dabc");
    EXPECT_EQ(ordered("largest-first"), "cabd");
    EXPECT_EQ(ordered("idle-first"), "cbda");
}

TEST(exchange_order, unknown_name_is_refused) {
    EXPECT_FALSE(exchange_order_named("random").has_value());
    EXPECT_FALSE(exchange_order_named("").has_value());
}

TEST(default_concurrency, grows_with_the_host_and_ends) {
    EXPECT_EQ(default_concurrency(0), 1U);
    EXPECT_EQ(default_concurrency(2), 1U);
    EXPECT_EQ(default_concurrency(16), 4U);
    EXPECT_EQ(default_concurrency(512), 8U);
}

} // namespace
} // namespace godwit::control
