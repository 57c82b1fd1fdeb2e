#include "machine/machine_spec.h"

#include <gtest/gtest.h>

namespace godwit::machine {
namespace {

std::string message_of(std::string_view json) {
    const auto parsed = parse_machine_spec(json);
    return parsed.has_value() ? "accepted" : parsed.error().to_string();
}

TEST(MachineSpec, smallest_document_gets_defaults) {
    const auto spec = parse_machine_spec(R"({"name":"a","kernel":{"path":"/k"}})");
    ASSERT_TRUE(spec.has_value()) << spec.error().to_string();
    EXPECT_EQ(spec->vcpus, 1U);
    EXPECT_EQ(spec->memory.bytes, 256 * mib);
    EXPECT_TRUE(spec->serial);
    EXPECT_TRUE(spec->balloon.has_value());
}

TEST(MachineSpec, document_written_out_reads_the_same) {
    const auto spec = parse_machine_spec(R"({"name":"a","vcpus":3,"kernel":{"path":"/k"},
        "disks":[{"path":"/d","queues":0}], "nets":[{"tap":"t0"}], "balloon":null})");
    ASSERT_TRUE(spec.has_value()) << spec.error().to_string();
    EXPECT_EQ(spec->disks[0].queues, 3);
    EXPECT_EQ(spec->disks[0].serial, "disk0");
    EXPECT_EQ(spec->nets[0].mac.substr(0, 9), "52:54:00:");
    const std::string text = to_json(*spec);
    const auto again = parse_machine_spec(text);
    ASSERT_TRUE(again.has_value()) << again.error().to_string();
    EXPECT_EQ(to_json(*again), text);
    EXPECT_FALSE(again->balloon.has_value());
}

TEST(MachineSpec, errors_name_path_and_value) {
    const std::string vcpus = message_of(R"({"name":"a","kernel":{"path":"/k"},"vcpus":65})");
    EXPECT_NE(vcpus.find("/vcpus is 65"), std::string::npos) << vcpus;
    const std::string queue = message_of(
        R"({"name":"a","kernel":{"path":"/k"},"disks":[{"path":"/d"},{"path":"/e","queue_size":3}]})");
    EXPECT_NE(queue.find("/disks/1/queue_size is 3"), std::string::npos) << queue;
    const std::string name = message_of(R"({"name":"A b","kernel":{"path":"/k"}})");
    EXPECT_NE(name.find("/name is \"A b\""), std::string::npos) << name;
}

TEST(MachineSpec, unknown_key_is_refused_by_name) {
    const std::string text = message_of(R"({"name":"a","kernel":{"path":"/k"},"cpu":2})");
    EXPECT_NE(text.find("cpu"), std::string::npos) << text;
    EXPECT_NE(text, "accepted");
}

TEST(MachineSpec, missing_kernel_is_refused_by_name) {
    const std::string text = message_of(R"({"name":"a"})");
    EXPECT_NE(text.find("kernel"), std::string::npos) << text;
}

TEST(MachineSpec, memory_of_a_pool_has_runs_once_it_is_placed_and_only_it) {
    const auto with = [](const std::string& memory) {
        return R"({"name":"a","kernel":{"path":"/k"},"memory":)" + memory + "}";
    };
    EXPECT_TRUE(GODWIT_MUST(parse_machine_spec(with(R"({"kind":"pool"})"))).memory.runs.empty());
    EXPECT_NE(message_of(with(R"({"runs":[{"offset":0,"bytes":268435456}]})")), "accepted");
    EXPECT_NE(message_of(with(R"({"kind":"pool","runs":[{"offset":1,"bytes":268435456}]})")),
              "accepted");
    const auto spec = GODWIT_MUST(parse_machine_spec(
        with(R"({"kind":"pool","runs":[{"offset":2097152,"bytes":268435456}]})")));
    EXPECT_EQ(GODWIT_MUST(parse_machine_spec(to_json(spec))).memory.runs,
              (std::vector<memory::PoolRun>{{.offset = 2 * mib, .bytes = 256 * mib}}));
}

TEST(MachineSpec, memory_file_needs_its_path_and_only_it) {
    EXPECT_NE(message_of(R"({"name":"a","kernel":{"path":"/k"},"memory":{"kind":"file"}})"),
              "accepted");
    EXPECT_NE(message_of(R"({"name":"a","kernel":{"path":"/k"},"memory":{"path":"/m"}})"),
              "accepted");
    EXPECT_EQ(
        message_of(R"({"name":"a","kernel":{"path":"/k"},"memory":{"kind":"file","path":"/m"}})"),
        "accepted");
}

TEST(MachineSpec, one_tap_twice_is_refused) {
    const std::string text =
        message_of(R"({"name":"a","kernel":{"path":"/k"},"nets":[{"tap":"t0"},{"tap":"t0"}]})");
    EXPECT_NE(text.find("/nets/1/tap is \"t0\""), std::string::npos) << text;
}

TEST(MachineSpec, hostile_text_is_refused) {
    EXPECT_NE(message_of(""), "accepted");
    EXPECT_NE(message_of("{"), "accepted");
    EXPECT_NE(message_of("[]"), "accepted");
    EXPECT_NE(message_of(std::string(50'000, '[')), "accepted");
    EXPECT_NE(message_of(std::string(spec_json_bytes_max + 1, ' ')), "accepted");
    EXPECT_NE(message_of(R"({"name":"a","kernel":{"path":"/k"},"vcpus":1.5})"), "accepted");
    EXPECT_NE(message_of(R"({"name":"a","kernel":{"path":"/k"},"vcpus":99999999999999999999})"),
              "accepted");
    EXPECT_NE(message_of(R"({"name":"a\u0000","kernel":{"path":"/k"}})"), "accepted");
}

} // namespace
} // namespace godwit::machine
