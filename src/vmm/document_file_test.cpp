#include "sys/fd.h"
#include "vmm/document_file.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <filesystem>

namespace godwit::vmm {
namespace {

struct Folder {
    std::string path = "/tmp/godwit-document-XXXXXX";
    Folder() { EXPECT_NE(::mkdtemp(path.data()), nullptr); }
    ~Folder() {
        std::error_code error;
        std::filesystem::remove_all(path, error);
    }
    [[nodiscard]] std::string file() const { return path + "/spec.json"; }
    [[nodiscard]] nlohmann::json read() const {
        return nlohmann::json::parse(
            sys::read_file(file(), machine::spec_json_bytes_max).value_or(std::string("null")));
    }
};

machine::MachineSpec machine_with_two_disks() {
    return GODWIT_MUST(machine::parse_machine_spec( // A good document.
        R"({"name":"m","id":"3f333df6-90a4-4fda-8dd3-9485d27cee36","kernel":{"path":"/k"},
            "disks":[{"path":"/a"},{"path":"/b","serial":"keep me"}]})"));
}

TEST(DocumentFile, only_the_disk_changes) {
    const Folder folder;
    DocumentFile document(folder.file());
    ASSERT_TRUE(document.ensure(machine_with_two_disks()).has_value());
    nlohmann::json expected = folder.read();
    ASSERT_TRUE(document.set_disk(1, {.path = "/c", .direct = false}).has_value());
    expected["disks"][1]["path"] = "/c";
    expected["disks"][1]["direct"] = false;
    EXPECT_EQ(folder.read(), expected);
    ASSERT_TRUE(document.ensure(machine_with_two_disks()).has_value());
    EXPECT_EQ(folder.read(), expected) << "what is there stays";
}

TEST(DocumentFile, deltas_come_and_go_with_the_disk) {
    const Folder folder;
    DocumentFile document(folder.file());
    ASSERT_TRUE(document.ensure(machine_with_two_disks()).has_value());
    const nlohmann::json before = folder.read();
    machine::DiskSpec disk{.path = "/b"};
    disk.deltas.push_back({.path = "/d", .snapshot = std::string(32, 'a'), .direct = false});
    ASSERT_TRUE(document.set_disk(1, disk).has_value());
    const auto spec = machine::parse_machine_spec(folder.read().dump());
    ASSERT_TRUE(spec.has_value());
    EXPECT_EQ(spec->disks[1].deltas, disk.deltas);
    EXPECT_EQ(spec->disks[1].serial, "keep me");
    const auto again = machine::parse_machine_spec(machine::to_json(*spec));
    EXPECT_EQ(again->disks[1].deltas, disk.deltas);
    disk.deltas.front().snapshot = "no";
    EXPECT_FALSE(document.set_disk(1, disk).has_value());
    disk.deltas.clear();
    ASSERT_TRUE(document.set_disk(1, disk).has_value());
    EXPECT_EQ(folder.read(), before);
}

TEST(DocumentFile, what_makes_no_sense_is_left_alone) {
    const Folder folder;
    DocumentFile document(folder.file());
    EXPECT_FALSE(document.set_disk(0, {.path = "/c"}).has_value()) << "there is none";
    ASSERT_TRUE(document.ensure(machine_with_two_disks()).has_value());
    const nlohmann::json before = folder.read();
    EXPECT_FALSE(document.set_disk(2, {.path = "/c"}).has_value());
    EXPECT_FALSE(document.set_disk(0, {.path = ""}).has_value());
    EXPECT_EQ(folder.read(), before);
    ASSERT_TRUE(sys::write_file_atomically(folder.file(), "{\"name\": 1").has_value());
    EXPECT_FALSE(document.set_disk(0, {.path = "/c"}).has_value());
}

} // namespace
} // namespace godwit::vmm
