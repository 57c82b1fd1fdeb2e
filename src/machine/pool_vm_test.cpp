#include "machine/machine.h"
#include "machine/resources.h"
#include "machine/testing/guest_image.h"
#include "memory/pool/pool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace godwit::machine {
namespace {

constexpr memory::PoolOwner old_one{1};
constexpr memory::PoolOwner new_one{2};
constexpr std::uint64_t tag = 100;

/// Host frame of each page of RAM, 0 where the kernel does not show it.
std::vector<std::uint64_t> host_frames(const memory::GuestMemory& memory) {
    const sys::Fd pagemap = GODWIT_MUST(sys::open("/proc/self/pagemap", O_RDONLY));
    std::vector<std::uint64_t> frames;
    for (const auto& region : memory.regions()) {
        for (std::uint64_t at = 0; at < region.ram.bytes; at += page_size) {
            [[maybe_unused]] const auto touched =
                *static_cast<const volatile std::byte*>(region.host + at);
            std::uint64_t entry = 0;
            const auto page = reinterpret_cast<std::uintptr_t>(region.host + at) / page_size;
            GODWIT_MUST(sys::pread_exact(pagemap,
                                         std::as_writable_bytes(std::span(&entry, 1)),
                                         page * sizeof(entry))); // Mapped: it has an entry.
            frames.push_back(entry & ((1ULL << 55U) - 1));
        }
    }
    return frames;
}

memory::Pool make_pool() {
    return GODWIT_MUST(memory::Pool::create(64 * mib, old_one, 1));
}

class PoolVmTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (::access("/dev/kvm", R_OK | W_OK) != 0) {
            GTEST_SKIP() << "no usable /dev/kvm";
        }
    }
    /// 32 MiB in 16 runs that do not touch, and one more free frame between each two.
    std::vector<memory::Extent> allocate_scattered() {
        std::vector<std::vector<memory::Extent>> singles;
        for (std::uint64_t i = 0; i < 32; ++i) {
            singles.push_back(
                GODWIT_MUST(pool_.allocate(old_one, 1, memory::Purpose::program, i + 1)));
        }
        for (std::uint64_t i = 0; i < 32; i += 2) {
            GODWIT_MUST(pool_.free(singles[i])); // Its own extents, nobody else changes them.
        }
        return GODWIT_MUST(pool_.allocate(old_one, 16, memory::Purpose::machine, tag));
    }
    MachineSpec spec_for(const testing::TemporaryFile& kernel) {
        MachineSpec spec;
        spec.name = "test";
        spec.kernel.path = kernel.path();
        spec.memory = {.bytes = 32 * mib,
                       .kind = memory::RamKind::pool,
                       .runs = memory::ram_runs(allocate_scattered())};
        return spec;
    }
    std::unique_ptr<Machine> build(const MachineSpec& spec) {
        Resources resources = GODWIT_MUST(open_resources_except_ram(spec));
        resources.push_back(
            {std::string(ram_resource_name), GODWIT_MUST(pool_.memory_fd().duplicate())});
        resources.push_back(
            {std::string(pool_table_resource_name), GODWIT_MUST(pool_.table().fd().duplicate())});
        auto built =
            Machine::build(spec, std::move(resources), RamMapping::shared, {}, sys::system_clock());
        EXPECT_TRUE(built.has_value()) << built.error().to_string();
        return built.has_value() ? std::move(*built) : nullptr;
    }
    static std::uint32_t count_of(Machine& machine) {
        return *machine.memory().load<std::uint32_t>(Gpa{0x20'0000});
    }
    static bool counts_on(Machine& machine, std::uint32_t from) {
        const auto start = sys::system_clock().now();
        while (sys::system_clock().now() - start < std::chrono::seconds(20)) {
            if (count_of(machine) != from) {
                return true;
            }
        }
        return false;
    }

    memory::Pool pool_ = make_pool();
};

// MP-2: a running machine goes from one instance to the other by its list of extents, on RAM in 16
// pieces; its pages stay in their frames, and it counts on where it was.
TEST_F(PoolVmTest, machine_goes_over_by_pointers_and_counts_on_in_the_same_frames) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    ASSERT_EQ(spec.memory.runs.size(), 16U);
    auto first = build(spec);
    ASSERT_TRUE(first->boot().has_value());
    ASSERT_TRUE(first->start().has_value());
    ASSERT_TRUE(counts_on(*first, 0));
    ASSERT_TRUE(first->pause().has_value());
    const std::uint32_t stopped_at = count_of(*first);
    const auto saved = first->save();
    ASSERT_TRUE(saved.has_value()) << saved.error().to_string();
    const auto frames = host_frames(first->memory());

    auto& table = pool_.table();
    ASSERT_TRUE(table.register_owner(new_one).has_value());
    const auto all = GODWIT_MUST(table.snapshot());
    const auto list = memory::extents_of(all, old_one, memory::Purpose::machine, tag);
    ASSERT_TRUE(
        memory::check_list(
            list,
            all,
            {.owner = old_one, .purpose = memory::Purpose::machine, .tag = tag, .frames = 16})
            .has_value());
    for (const memory::Extent& extent : list) {
        ASSERT_TRUE(table.claim(extent, new_one).has_value());
    }
    first.reset();

    const MachineSpec received = GODWIT_MUST(parse_machine_spec(to_json(spec)));
    auto second = build(received);
    ASSERT_TRUE(second->load(*saved, {.clock = Machine::ClockPolicy::running}).has_value());
    EXPECT_EQ(count_of(*second), stopped_at);
    EXPECT_EQ(host_frames(second->memory()), frames);
    ASSERT_TRUE(second->start().has_value());
    EXPECT_TRUE(counts_on(*second, stopped_at));
    ASSERT_TRUE(second->pause().has_value());
    EXPECT_TRUE(table.prove(GODWIT_MUST(table.snapshot())).has_value());
}

} // namespace
} // namespace godwit::machine
