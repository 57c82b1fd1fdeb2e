#include "cli/run_flags.h"

#include <gtest/gtest.h>

namespace godwit::cli {
namespace {

TEST(parse_disk, reads_all_of_it) {
    const machine::DiskSpec disk =
        GODWIT_MUST(parse_disk("/x/a,,b.img,ro,serial=abc,queues=4,direct=off")); // Well formed.
    EXPECT_EQ(disk.path, "/x/a,b.img");
    EXPECT_TRUE(disk.read_only);
    EXPECT_EQ(disk.serial, "abc");
    EXPECT_EQ(disk.queues, 4U);
    EXPECT_FALSE(disk.direct);
}

TEST(parse_disk, relative_path_becomes_absolute) {
    const machine::DiskSpec disk = GODWIT_MUST(parse_disk("db.img")); // Well formed.
    EXPECT_TRUE(disk.path.starts_with('/'));
    EXPECT_TRUE(disk.path.ends_with("/db.img"));
}

TEST(parse_disk, mistakes_are_named) {
    for (const char* bad : {"",
                            ",ro",
                            "/x,rw",
                            "/x,queues=",
                            "/x,queues=-1",
                            "/x,queues=99999",
                            "/x,direct=maybe",
                            "/x,serial=",
                            "/x,,"}) {
        if (std::string_view(bad) == "/x,,") {
            continue; // A path that ends in a comma.
        }
        const Result<machine::DiskSpec> disk = parse_disk(bad);
        ASSERT_FALSE(disk.has_value()) << bad;
        EXPECT_NE(disk.error().to_string().find("--disk"), std::string::npos);
    }
    EXPECT_FALSE(
        parse_disk("/x" + std::string(40, 'y') + ",ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro")
            .has_value());
}

TEST(parse_net, reads_all_of_it_and_refuses_the_rest) {
    const machine::NetSpec net =
        GODWIT_MUST(parse_net("tap=tap0,mac=52:54:00:00:00:01,queues=2")); // Well formed.
    EXPECT_EQ(net.tap, "tap0");
    EXPECT_EQ(net.mac, "52:54:00:00:00:01");
    EXPECT_EQ(net.queue_pairs, 2U);
    for (const char* bad : {"", "tap0", "tap=", "mac=52:54:00:00:00:01", "tap=a,bridge=b"}) {
        EXPECT_FALSE(parse_net(bad).has_value()) << bad;
    }
}

RunFlags flags_with_kernel() {
    RunFlags flags;
    flags.name = "web1";
    flags.kernel = "/boot/vmlinuz";
    return flags;
}

TEST(machine_spec_from, flags_become_a_document) {
    RunFlags flags = flags_with_kernel();
    flags.initrd = "/boot/initrd";
    flags.command_line = "console=ttyS0 quiet";
    flags.cpus = 4;
    flags.memory = "1G";
    flags.disks = {"/a.img", "/b.img,ro"};
    flags.nets = {"tap=tap0"};
    flags.console = false;
    const machine::MachineSpec spec = GODWIT_MUST(machine_spec_from(flags, "")); // Well formed.
    EXPECT_EQ(spec.name, "web1");
    EXPECT_EQ(spec.kernel.path, "/boot/vmlinuz");
    EXPECT_EQ(spec.kernel.initrd, "/boot/initrd");
    EXPECT_EQ(spec.kernel.command_line, "console=ttyS0 quiet");
    EXPECT_EQ(spec.vcpus, 4U);
    EXPECT_EQ(spec.memory.bytes, 1ULL << 30);
    ASSERT_EQ(spec.disks.size(), 2U);
    EXPECT_TRUE(spec.disks[1].read_only);
    EXPECT_EQ(spec.nets.at(0).tap, "tap0");
    EXPECT_TRUE(spec.serial);
    EXPECT_FALSE(spec.virtio_console);
}

TEST(machine_spec_from, flags_go_over_a_document) {
    RunFlags flags = flags_with_kernel();
    flags.disks = {"/c.img"};
    const machine::MachineSpec base = GODWIT_MUST(machine_spec_from(flags, "")); // Well formed.
    RunFlags changes;
    changes.name = "web2";
    changes.cpus = 2;
    changes.disks = {"/d.img"};
    const machine::MachineSpec spec =
        GODWIT_MUST(machine_spec_from(changes, machine::to_json(base))); // Our own document.
    EXPECT_EQ(spec.name, "web2");
    EXPECT_EQ(spec.vcpus, 2U);
    EXPECT_EQ(spec.kernel.path, "/boot/vmlinuz");
    ASSERT_EQ(spec.disks.size(), 2U);
    EXPECT_EQ(spec.disks[1].path, "/d.img");
}

TEST(machine_spec_from, mistakes_are_refused) {
    RunFlags no_kernel;
    no_kernel.name = "web1";
    EXPECT_FALSE(machine_spec_from(no_kernel, "").has_value());
    RunFlags bad_size = flags_with_kernel();
    bad_size.memory = "lots";
    EXPECT_FALSE(machine_spec_from(bad_size, "").has_value());
    EXPECT_FALSE(machine_spec_from(flags_with_kernel(), "{").has_value());
    EXPECT_FALSE(machine_spec_from(flags_with_kernel(), R"({"nmae":1})").has_value());
}

TEST(memory_kind, pool_is_asked_for_with_the_size_and_excludes_the_others) {
    RunFlags flags{.name = "a", .kernel = "/k"};
    flags.memory = "1G,pool";
    const auto spec = GODWIT_MUST(machine_spec_from(flags, ""));
    EXPECT_EQ(spec.memory.kind, memory::RamKind::pool);
    EXPECT_EQ(spec.memory.bytes, 1ULL << 30);
    EXPECT_TRUE(spec.memory.runs.empty());
    flags.huge_pages = true;
    EXPECT_FALSE(machine_spec_from(flags, "").has_value());
    flags.huge_pages = false;
    flags.memory = "1G,puddle";
    EXPECT_FALSE(machine_spec_from(flags, "").has_value());
}

TEST(memory_kind, follows_the_flags) {
    RunFlags flags = flags_with_kernel();
    flags.huge_pages = true;
    EXPECT_EQ(GODWIT_MUST(machine_spec_from(flags, "")).memory.kind, // Well formed.
              memory::RamKind::hugetlb);
    flags.huge_pages = false;
    flags.memory_file = "/ram";
    const machine::MachineSpec spec = GODWIT_MUST(machine_spec_from(flags, "")); // Well formed.
    EXPECT_EQ(spec.memory.kind, memory::RamKind::file);
    EXPECT_EQ(spec.memory.path, "/ram");
}

} // namespace
} // namespace godwit::cli
