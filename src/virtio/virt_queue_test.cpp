#include "virtio/testing/driver_queue.h"
#include "virtio/virt_queue.h"

#include <array>
#include <functional>

namespace godwit::virtio {
namespace {

using testing::bytes_of;
using testing::DriverQueue;
using testing::flag_indirect;
using testing::flag_next;
using testing::flag_write;
using testing::make_memory;
using testing::RawDescriptor;

constexpr Gpa somewhere{0x30'0000};

TEST(VirtQueue, offered_chain_is_popped_with_its_segments) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    const auto offered = driver.chain().readable(bytes_of("hello")).writable(512).offer();
    Chain chain;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    EXPECT_EQ(chain.head, offered.head);
    EXPECT_EQ(chain.readable_bytes, 5U);
    EXPECT_EQ(chain.writable_bytes, 512U);
    EXPECT_EQ(chain.writable_at.at(0), offered.writable_at());
    std::vector<std::byte> text(5);
    EXPECT_EQ(chain.copy_out(0, text), 5U);
    EXPECT_EQ(text, bytes_of("hello"));
    EXPECT_FALSE(GODWIT_MUST(queue.pop(chain)));
}

TEST(VirtQueue, indirect_chain_gives_the_same_segments) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    driver.chain()
        .readable(bytes_of("abc"))
        .readable(bytes_of("de"))
        .writable(7)
        .indirect()
        .offer();
    Chain chain;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    EXPECT_EQ(chain.readable.size(), 2U);
    EXPECT_EQ(chain.readable_bytes, 5U);
    EXPECT_EQ(chain.writable_bytes, 7U);
}

TEST(VirtQueue, copies_cross_segments_at_any_offset) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    const auto offered = driver.chain()
                             .readable(bytes_of("abc"))
                             .readable(bytes_of("defg"))
                             .writable(2)
                             .writable(3)
                             .offer();
    Chain chain;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    std::vector<std::byte> out(4);
    EXPECT_EQ(chain.copy_out(1, out), 4U);
    EXPECT_EQ(out, bytes_of("bcde"));
    EXPECT_EQ(chain.copy_out(6, out), 1U);
    EXPECT_EQ(chain.copy_out(7, out), 0U);
    EXPECT_EQ(chain.copy_in(1, bytes_of("xyzwv")), 4U);
    EXPECT_EQ(driver.read(Gpa{offered.writable_at(0).value + 1}, 1), bytes_of("x"));
    EXPECT_EQ(driver.read(offered.writable_at(1), 3), bytes_of("yzw"));
}

TEST(VirtQueue, chains_pushed_together_show_in_order) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    const auto first = driver.chain().writable(100).offer();
    const auto second = driver.chain().writable(100).offer();
    std::array<Chain, 2> chains;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chains[0])));
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chains[1])));
    const std::array<VirtQueue::Completion, 2> completions{
        {{.chain = &chains[0], .written = 100}, {.chain = &chains[1], .written = 7}}};
    queue.push_together(completions);
    EXPECT_EQ(driver.used_waiting(), 2U);
    const auto used_first = driver.take_used();
    const auto used_second = driver.take_used();
    EXPECT_EQ(used_first->head, first.head);
    EXPECT_EQ(used_first->written, 100U);
    EXPECT_EQ(used_second->head, second.head);
    EXPECT_EQ(used_second->written, 7U);
    EXPECT_EQ(queue.outstanding(), 0U);
}

TEST(VirtQueue, pushed_chain_shows_in_the_used_ring) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    const auto offered = driver.chain().writable(100).offer();
    Chain chain;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    EXPECT_EQ(queue.outstanding(), 1U);
    queue.push(chain, 42);
    EXPECT_EQ(queue.outstanding(), 0U);
    const auto used = driver.take_used();
    ASSERT_TRUE(used.has_value());
    EXPECT_EQ(used->head, offered.head);
    EXPECT_EQ(used->written, 42U);
}

TEST(VirtQueue, rings_go_round_many_times) {
    DriverQueue driver(make_memory(), {.size = 4, .first_index = 65530});
    VirtQueue queue = driver.device_side();
    Chain chain;
    for (std::uint32_t i = 0; i < 40; ++i) {
        driver.chain().writable(16).offer();
        ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
        queue.push(chain, i % 16);
        EXPECT_EQ(driver.take_used()->written, i % 16);
    }
    EXPECT_EQ(queue.state().next_available, static_cast<std::uint16_t>(65530 + 40));
}

TEST(VirtQueue, undone_pop_is_returned_again) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    const auto offered = driver.chain().writable(16).offer();
    Chain chain;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    queue.undo_pop();
    EXPECT_EQ(queue.outstanding(), 0U);
    EXPECT_EQ(queue.state(), driver.state());
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    EXPECT_EQ(chain.head, offered.head);
}

TEST(VirtQueue, written_bytes_and_rings_are_in_the_write_log) {
    const auto memory = make_memory();
    DriverQueue driver(memory, {});
    VirtQueue queue = driver.device_side();
    driver.chain()
        .segment({.at = Gpa{0x40'0ff0}, .bytes = 0x20, .writable = true})
        .segment({.at = Gpa{0x41'0000}, .bytes = 0x1000, .writable = true})
        .offer();
    memory->start_write_log();
    Chain chain;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    queue.push(chain, 0x20);
    const auto log = memory->take_write_log();
    const auto dirty = [&](std::uint64_t page) {
        return ((log[page / 64] >> (page % 64)) & 1) != 0;
    };
    EXPECT_TRUE(dirty(0x400));
    EXPECT_TRUE(dirty(0x401));
    EXPECT_FALSE(dirty(0x410));
    EXPECT_TRUE(dirty(driver.state().device_area.value / page_size));
}

// --- notification in both directions ---

TEST(VirtQueue, interrupt_flag_suppresses_notification) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    Chain chain;
    driver.chain().writable(16).offer();
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    EXPECT_FALSE(queue.take_notification_due());
    queue.push(chain, 0);
    EXPECT_TRUE(queue.take_notification_due());
    EXPECT_FALSE(queue.take_notification_due());
    driver.set_interrupts(false);
    driver.chain().writable(16).offer();
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    queue.push(chain, 0);
    EXPECT_FALSE(queue.take_notification_due());
}

TEST(VirtQueue, event_index_asks_for_one_interrupt_per_crossing) {
    DriverQueue driver(make_memory(), {.features = {.event_index = true, .indirect = true}});
    VirtQueue queue = driver.device_side();
    driver.set_used_event(2); // "after the third"
    std::array<Chain, 4> chains;
    for (Chain& chain : chains) {
        driver.chain().writable(16).offer();
        ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    }
    queue.push(chains[0], 0);
    queue.push(chains[1], 0);
    EXPECT_FALSE(queue.take_notification_due());
    queue.push(chains[2], 0);
    EXPECT_TRUE(queue.take_notification_due());
    queue.push(chains[3], 0);
    EXPECT_FALSE(queue.take_notification_due());
}

TEST(VirtQueue, doorbell_is_unwanted_while_disabled) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    EXPECT_TRUE(driver.doorbell_wanted());
    queue.disable_doorbell();
    driver.chain().writable(16).offer();
    EXPECT_FALSE(driver.doorbell_wanted());
    EXPECT_TRUE(queue.enable_doorbell()) << "what was offered meanwhile must be looked at";
    EXPECT_TRUE(driver.doorbell_wanted());
}

TEST(VirtQueue, event_index_doorbell_rings_for_the_next_chain_only) {
    DriverQueue driver(make_memory(), {.features = {.event_index = true, .indirect = true}});
    VirtQueue queue = driver.device_side();
    EXPECT_FALSE(queue.enable_doorbell());
    driver.chain().writable(16).offer();
    EXPECT_TRUE(driver.doorbell_wanted());
    driver.chain().writable(16).offer();
    EXPECT_FALSE(driver.doorbell_wanted());
    Chain chain;
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    EXPECT_FALSE(queue.enable_doorbell());
    driver.chain().writable(16).offer();
    EXPECT_TRUE(driver.doorbell_wanted());
}

// --- what a bad driver gets ---

struct BadChain {
    const char* name;
    std::function<void(DriverQueue&)> offer;
};

void offer_raw(DriverQueue& driver, const std::vector<RawDescriptor>& descriptors) {
    for (std::size_t i = 0; i < descriptors.size(); ++i) {
        driver.write_descriptor(static_cast<std::uint16_t>(i), descriptors[i]);
    }
    driver.make_available(0);
}

void offer_indirect(DriverQueue& driver,
                    const std::vector<RawDescriptor>& table,
                    std::uint32_t table_bytes,
                    std::uint16_t extra_flags = 0) {
    for (std::size_t i = 0; i < table.size(); ++i) {
        DriverQueue::write_descriptor(driver.memory(), somewhere, i, table[i]);
    }
    offer_raw(driver,
              {{.address = somewhere.value,
                .length = table_bytes,
                .flags = static_cast<std::uint16_t>(flag_indirect | extra_flags),
                .next = 1}});
}

const std::vector<BadChain>& bad_chains() {
    static const std::vector<BadChain> chains = {
        {"head_beyond_the_table", [](DriverQueue& d) { d.make_available(16); }},
        {"next_beyond_the_table",
         [](DriverQueue& d) { offer_raw(d, {{somewhere.value, 8, flag_next, 99}}); }},
        {"loop_to_itself",
         [](DriverQueue& d) { offer_raw(d, {{somewhere.value, 8, flag_next, 0}}); }},
        {"loop_of_two",
         [](DriverQueue& d) {
             offer_raw(d, {{somewhere.value, 8, flag_next, 1}, {somewhere.value, 8, flag_next, 0}});
         }},
        {"readable_after_writable",
         [](DriverQueue& d) {
             offer_raw(
                 d, {{somewhere.value, 8, flag_next | flag_write, 1}, {somewhere.value, 8, 0, 0}});
         }},
        {"no_length", [](DriverQueue& d) { offer_raw(d, {{somewhere.value, 0, 0, 0}}); }},
        {"address_beyond_ram", [](DriverQueue& d) { offer_raw(d, {{32 * mib, 8, 0, 0}}); }},
        {"end_beyond_ram", [](DriverQueue& d) { offer_raw(d, {{32 * mib - 4, 8, 0, 0}}); }},
        {"address_wraps", [](DriverQueue& d) { offer_raw(d, {{~0ULL - 3, 8, 0, 0}}); }},
        {"longer_than_ram", [](DriverQueue& d) { offer_raw(d, {{0, 0xffff'ffff, 0, 0}}); }},
        {"indirect_of_odd_length",
         [](DriverQueue& d) { offer_indirect(d, {{somewhere.value, 8, 0, 0}}, 17); }},
        {"indirect_of_no_length", [](DriverQueue& d) { offer_indirect(d, {}, 0); }},
        {"indirect_too_long", [](DriverQueue& d) { offer_indirect(d, {}, 16 * 1025); }},
        {"indirect_with_next",
         [](DriverQueue& d) { offer_indirect(d, {{somewhere.value, 8, 0, 0}}, 16, flag_next); }},
        {"indirect_in_indirect",
         [](DriverQueue& d) { offer_indirect(d, {{somewhere.value, 16, flag_indirect, 0}}, 16); }},
        {"indirect_loop",
         [](DriverQueue& d) { offer_indirect(d, {{somewhere.value, 8, flag_next, 0}}, 16); }},
        {"indirect_next_beyond_the_table",
         [](DriverQueue& d) { offer_indirect(d, {{somewhere.value, 8, flag_next, 5}}, 32); }},
        {"indirect_table_outside_ram",
         [](DriverQueue& d) { offer_raw(d, {{32 * mib, 16, flag_indirect, 0}}); }},
        {"index_jumps", [](DriverQueue& d) { d.set_available_index(17); }},
        {"index_goes_back", [](DriverQueue& d) { d.set_available_index(0xffff); }},
    };
    return chains;
}

class BadChains : public ::testing::TestWithParam<BadChain> {};

TEST_P(BadChains, are_refused_and_change_nothing) {
    DriverQueue driver(make_memory(), {});
    VirtQueue queue = driver.device_side();
    GetParam().offer(driver);
    Chain chain;
    EXPECT_FALSE(queue.pop(chain).has_value());
    EXPECT_EQ(queue.outstanding(), 0U);
    EXPECT_EQ(queue.state(), driver.state());
}

INSTANTIATE_TEST_SUITE_P(All, BadChains, ::testing::ValuesIn(bad_chains()), [](const auto& bad) {
    return std::string(bad.param.name);
});

TEST(VirtQueue, indirect_without_the_feature_is_refused) {
    DriverQueue driver(make_memory(), {.features = {.event_index = false, .indirect = false}});
    VirtQueue queue = driver.device_side();
    driver.chain().writable(16).indirect().offer();
    Chain chain;
    EXPECT_FALSE(queue.pop(chain).has_value());
}

TEST(VirtQueue, chain_of_too_many_bytes_is_refused) {
    DriverQueue driver(make_memory(2 * gib), {});
    VirtQueue queue = driver.device_side();
    driver.chain()
        .segment({.at = Gpa{0}, .bytes = 1U << 30U, .writable = false})
        .segment({.at = Gpa{0}, .bytes = 1, .writable = false})
        .offer();
    Chain chain;
    EXPECT_FALSE(queue.pop(chain).has_value());
}

TEST(VirtQueue, segment_across_the_pci_hole_is_refused) {
    DriverQueue driver(make_memory(4 * gib), {});
    VirtQueue queue = driver.device_side();
    driver.chain().segment({.at = Gpa{3 * gib - 8}, .bytes = 16, .writable = true}).offer();
    Chain chain;
    EXPECT_FALSE(queue.pop(chain).has_value());
}

TEST(VirtQueue, the_same_descriptor_offered_for_ever_is_refused) {
    DriverQueue driver(make_memory(), {.size = 4});
    VirtQueue queue = driver.device_side();
    driver.write_descriptor(0, {.address = somewhere.value, .length = 8, .flags = 0, .next = 0});
    Chain chain;
    for (int i = 0; i < 4; ++i) {
        driver.make_available(0);
        ASSERT_TRUE(GODWIT_MUST(queue.pop(chain)));
    }
    driver.make_available(0);
    EXPECT_FALSE(queue.pop(chain).has_value());
}

TEST(VirtQueue, hostile_queue_states_are_refused) {
    const auto memory = make_memory();
    const QueueState good = DriverQueue(memory, {}).state();
    const auto refused = [&](auto change) {
        QueueState state = good;
        change(state);
        return !VirtQueue::create(memory, state, {}).has_value();
    };
    EXPECT_FALSE(refused([](QueueState&) {}));
    EXPECT_TRUE(refused([](QueueState& s) { s.ready = false; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.size = 0; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.size = 24; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.size = 2048; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.descriptors.value += 8; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.driver_area.value += 1; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.device_area.value += 2; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.descriptors = Gpa{32 * mib - 16}; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.driver_area = Gpa{~0ULL - 1}; }));
    EXPECT_TRUE(refused([](QueueState& s) { s.device_area = Gpa{1ULL << 63U}; }));
}

} // namespace
} // namespace godwit::virtio
