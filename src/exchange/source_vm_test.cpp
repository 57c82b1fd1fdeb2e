#include "exchange/source.h"
#include "machine/testing/guest_image.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>

namespace godwit::exchange {
namespace {

constexpr const char* machine_id = "00000000-0000-4000-8000-000000000001";
constexpr handover::InstanceId self{1};
constexpr handover::InstanceId successor_instance{2};

class FakeEndpoints final : public Endpoints {
  public:
    void freeze() override { frozen = true; }
    void thaw() override { frozen = false; }
    [[nodiscard]] Result<sys::FdManifest> descriptors() const override { return sys::FdManifest{}; }
    [[nodiscard]] state::SectionType section_type() const override { return {"fake-consoles", 3}; }
    [[nodiscard]] state::SectionId section_id() const override { return section_type().id(); }
    [[nodiscard]] Result<state::Saved> save() const override { return state::NoState{}; }
    [[nodiscard]] std::string save_blocker() const override { return blocker; }

    std::string blocker;
    bool frozen = false;
};

/// A machine that runs, and a successor that has said hello and nothing else.
class SourceVmTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (::access("/dev/kvm", R_OK | W_OK) != 0) {
            GTEST_SKIP() << "no usable /dev/kvm";
        }
    }
    void boot(machine::RamMapping mapping) {
        machine::MachineSpec spec;
        spec.name = "test";
        spec.memory.bytes = 32 * mib;
        spec.kernel.path = kernel_.path();
        auto resources = machine::open_resources(spec);
        ASSERT_TRUE(resources.has_value());
        auto built =
            machine::Machine::build(spec, std::move(*resources), mapping, {}, sys::system_clock());
        ASSERT_TRUE(built.has_value()) << built.error().to_string();
        machine_ = std::move(*built);
        ASSERT_TRUE(machine_->boot().has_value());
        ASSERT_TRUE(machine_->start().has_value());
    }
    /// What this build reads, but for one section.
    static Hello hello(std::string_view without = {}) {
        Hello hello{.instance = successor_instance.value, .version = {}, .build_id = "b"};
        for (const state::SectionType& type : machine::Machine::known_sections()) {
            if (type.name != without) {
                hello.sections.push_back({.name = std::string(type.name), .version = type.version});
            }
        }
        hello.sections.push_back({.name = "fake-consoles", .version = 3});
        return hello;
    }
    handover::Report run(const Hello& hello) {
        auto [near, far] = GODWIT_MUST(sys::MessageSocket::pair()); // descriptors are to be had
        EXPECT_TRUE(send(far, hello).has_value());
        auto record = GODWIT_MUST(handover::OwnerRecord::create(machine_id, self)); // the same
        const auto cancel = GODWIT_MUST(sys::Cancel::create());
        return run_source({.machine = *machine_,
                           .endpoints = endpoints_,
                           .record = record,
                           .self = self,
                           .expected = record.read(),
                           .limits = {},
                           .clock = sys::system_clock(),
                           .cancel = cancel,
                           .page_map = page_map_,
                           .progress = {}},
                          near);
    }

    machine::testing::TemporaryFile kernel_{
        machine::testing::pvh_elf(machine::testing::clock_code())};
    FakeEndpoints endpoints_;
    PageMap page_map_;
    std::unique_ptr<machine::Machine> machine_;
};

TEST_F(SourceVmTest, all_blockers_are_told_together_in_plan_and_the_guest_runs_on) {
    boot(machine::RamMapping::private_copy);
    endpoints_.blocker = "a console is stuck: detach it";
    const handover::Report report = run(hello("virtio-pci"));
    EXPECT_EQ(report.outcome, handover::Outcome::rolled_back);
    EXPECT_EQ(report.failed_step, "introduce");
    ASSERT_EQ(report.blockers.size(), 3U);
    EXPECT_NE(report.blockers[0].find("--copy-ram"), std::string::npos) << report.blockers[0];
    EXPECT_EQ(report.blockers[1], endpoints_.blocker);
    EXPECT_NE(report.blockers[2].find("'virtio-pci'"), std::string::npos) << report.blockers[2];
    EXPECT_TRUE(machine_->running());
    EXPECT_FALSE(endpoints_.frozen);
}

TEST_F(SourceVmTest, successor_without_a_section_is_refused_in_plan_by_name) {
    boot(machine::RamMapping::shared);
    const handover::Report report = run(hello("rtc"));
    EXPECT_EQ(report.outcome, handover::Outcome::rolled_back);
    ASSERT_EQ(report.blockers.size(), 1U);
    EXPECT_NE(report.blockers[0].find("'rtc'"), std::string::npos) << report.blockers[0];
    EXPECT_TRUE(machine_->running());
}

TEST_F(SourceVmTest, successor_with_an_older_version_is_refused_in_plan_by_name) {
    boot(machine::RamMapping::shared);
    Hello older = hello();
    older.sections.back().version = 2;
    const handover::Report report = run(older);
    ASSERT_EQ(report.blockers.size(), 1U);
    EXPECT_NE(report.blockers[0].find("'fake-consoles' has version 3"), std::string::npos)
        << report.blockers[0];
}

} // namespace
} // namespace godwit::exchange
