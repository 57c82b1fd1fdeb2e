#include "cli/commands.h"
#include "cli/console.h"
#include "cli/daemon_client.h"
#include "cli/manual.h"

#include <CLI/CLI.hpp>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::cli {
namespace {

TEST(commands, every_command_has_a_page_an_example_and_a_completion) {
    Invocation invocation;
    const std::unique_ptr<CLI::App> app = describe_cli(invocation);
    const auto pages = manual_pages(*app);
    const std::string completion = bash_completion(*app);
    EXPECT_TRUE(pages.contains("godwit.1"));
    EXPECT_TRUE(pages.contains("godwit-disk-refresh.1"));
    EXPECT_FALSE(pages.contains("godwit-generate.1"));
    for (const char* command : {"run",
                                "ps",
                                "info",
                                "console",
                                "pause",
                                "resume",
                                "stop",
                                "snapshot",
                                "restore",
                                "exchange",
                                "recover",
                                "events",
                                "balloon",
                                "disk",
                                "version"}) {
        const auto page = pages.find("godwit-" + std::string(command) + ".1");
        ASSERT_NE(page, pages.end()) << command;
        EXPECT_NE(page->second.find(".SH SYNOPSIS"), std::string::npos);
        if (std::string(command) != "disk") {
            EXPECT_NE(page->second.find("Examples:"), std::string::npos) << command;
        }
        EXPECT_NE(completion.find("'" + (" " + std::string(command)) + "')"), std::string::npos)
            << command;
    }
}

TEST(commands, run_takes_the_flags_of_the_manual) {
    Invocation invocation;
    const std::unique_ptr<CLI::App> app = describe_cli(invocation);
    const std::string page = manual_pages(*app)["godwit-run.1"];
    for (const char* flag : {"kernel",
                             "initrd",
                             "cmdline",
                             "cpus",
                             "memory",
                             "memory\\-file",
                             "hugepages",
                             "disk",
                             "net",
                             "serial",
                             "console",
                             "spec"}) {
        EXPECT_NE(page.find("\\-\\-" + std::string(flag)), std::string::npos) << flag;
    }
}

int parsed(std::vector<const char*> arguments) {
    Invocation invocation;
    const std::unique_ptr<CLI::App> app = describe_cli(invocation);
    arguments.insert(arguments.begin(), "godwit");
    const auto count = static_cast<int>(arguments.size());
    if (parse_cli(*app, count, arguments.data()) != ExitCode::done) {
        return -1;
    }
    return invocation.action ? (invocation.session.json ? 2 : 1) : 0;
}

TEST(commands, right_ones_leave_an_action) {
    EXPECT_EQ(parsed({"ps"}), 1);
    EXPECT_EQ(parsed({"completion", "bash"}), 1);
    EXPECT_EQ(parsed({"generate", "man", "/tmp"}), 1);
    EXPECT_EQ(parsed({"ps", "--json"}), 2);
    EXPECT_EQ(parsed({"--json", "stop", "web1", "--force", "--timeout", "5"}), 2);
    EXPECT_EQ(parsed({"disk", "refresh", "web1", "disk0"}), 1);
    EXPECT_EQ(parsed({"disk", "move", "web1:disk0", "/there", "--scheme", "lr", "--unsafe"}), 1);
    EXPECT_EQ(parsed({"disk", "move", "web1:disk0", "/there", "--gamma", "0.2", "--json"}), 2);
    EXPECT_EQ(parsed({"disk", "list", "web1"}), 1);
    EXPECT_EQ(parsed({"disk", "cancel", "web1:disk0"}), 1);
    EXPECT_EQ(parsed({"exchange", "--all", "--order", "idle-first", "--concurrency", "2"}), 1);
    EXPECT_EQ(parsed({"exchange", "web1", "--mode", "suspend", "--dry-run"}), 1);
    EXPECT_EQ(
        parsed({"run", "web1", "--kernel", "k", "--disk", "a", "--disk", "b", "--net", "tap=t"}),
        1);
    EXPECT_EQ(parsed({"run", "--disk", "a", "web1", "--kernel", "k"}), 1);
}

TEST(commands, wrong_ones_are_usage_errors) {
    for (const std::vector<const char*>& wrong :
         std::vector<std::vector<const char*>>{{},
                                               {"fly"},
                                               {"ps", "web1"},
                                               {"info"},
                                               {"stop", "web1", "--timeout", "0"},
                                               {"run", "web1", "--serial", "maybe"},
                                               {"run", "web1", "--cpus", "x"},
                                               {"run", "web1", "--hugepages", "--memory-file", "f"},
                                               {"exchange", "--all", "--mode", "magic"},
                                               {"exchange", "--all", "--concurrency", "0"},
                                               {"exchange", "--dry-run", "--history"},
                                               {"exchange", "--keep-going", "--stop-on-failure"},
                                               {"disk", "move", "a:*", "--concurrency", "0"},
                                               {"disk", "move", "a:disk0", "b", "--scheme", "x"},
                                               {"disk", "move", "a:disk0", "b", "--gamma", "2"},
                                               {"disk", "cancel"},
                                               {"console", "web1", "--port", "usb"},
                                               {"disk"}}) {
        EXPECT_EQ(parsed(wrong), -1) << (wrong.empty() ? "nothing" : wrong[0]);
    }
}

TEST(exit_code, follows_the_report) {
    using control::Json;
    EXPECT_EQ(exit_code_of_operation({{"state", "succeeded"}}), ExitCode::done);
    EXPECT_EQ(
        exit_code_of_operation({{"state", "failed"}, {"result", {{"outcome", "rolled_back"}}}}),
        ExitCode::failed);
    EXPECT_EQ(exit_code_of_operation(
                  {{"state", "failed"}, {"result", {{"outcome", "failed_after_commit"}}}}),
              ExitCode::failed_after_commit);
    EXPECT_EQ(
        exit_code_of_operation({{"state", "failed"}, {"error", {{"code", "invalid_argument"}}}}),
        ExitCode::usage);
    EXPECT_EQ(exit_code_of_operation(Json()), ExitCode::failed);
}

TEST(escape_filter, leaves_only_on_the_whole_sequence) {
    EscapeFilter filter;
    std::string out;
    EXPECT_FALSE(filter.feed("a\x1d", out));
    EXPECT_FALSE(filter.feed("\x1d"
                             "b",
                             out));
    EXPECT_EQ(out,
              "a\x1d"
              "b");
    EXPECT_FALSE(filter.feed("\x1dx", out));
    EXPECT_EQ(out,
              "a\x1d"
              "b\x1dx");
    EXPECT_FALSE(filter.feed("\x1d", out));
    EXPECT_TRUE(filter.feed(".never", out));
    EXPECT_EQ(out,
              "a\x1d"
              "b\x1dx");
}

TEST(event_stream, data_is_cut_out_over_any_boundaries) {
    const std::string stream = ": hi\n\nid: 1\nevent: a\ndata: {\"x\":1}\n\ndata: {}\n\n";
    for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
        EventStreamParser parser;
        std::vector<std::string> data;
        const auto take = [&](const std::string& text) { data.push_back(text); };
        ASSERT_TRUE(parser.feed(stream.substr(0, cut), take).has_value());
        ASSERT_TRUE(parser.feed(stream.substr(cut), take).has_value());
        EXPECT_EQ(data, (std::vector<std::string>{"{\"x\":1}", "{}"}));
    }
    EventStreamParser parser;
    EXPECT_FALSE(parser
                     .feed(std::string(EventStreamParser::line_bytes_max + 1, 'x'),
                           [](const std::string&) {})
                     .has_value());
}

} // namespace
} // namespace godwit::cli
