#include "control/api.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

namespace godwit::control {
namespace {

TEST(match_route, takes_paths_apart) {
    const std::string pattern = "/api/v1/machines/{name}/disks/{disk}/refresh";
    const auto values = match_route(pattern, "/api/v1/machines/web1/disks/disk0/refresh");
    ASSERT_TRUE(values.has_value());
    EXPECT_EQ(*values, (std::vector<std::string>{"web1", "disk0"}));
    for (const char* other : {"",
                              "/",
                              "/api/v1/machines/web1/disks//refresh",
                              "api/v1/machines",
                              "/api/v1/machines/web1/disks/disk0/refresh/",
                              "/api/v1/machines/web1/disks/disk0"}) {
        EXPECT_FALSE(match_route(pattern, other).has_value()) << other;
    }
    EXPECT_TRUE(match_route("/metrics", "/metrics").has_value());
}

std::unique_ptr<sys::EventLoop> fresh_loop() {
    return GODWIT_MUST(sys::EventLoop::create()); // Descriptors are plenty in a test.
}

RunDirectory short_run_directory(const std::string& path) {
    return GODWIT_MUST(RunDirectory::at(path)); // The path is short.
}

class api : public testing::Test {
  protected:
    ~api() override { std::filesystem::remove_all(root_); }
    ApiResponse ask(std::string method, std::string path, std::string body = {}) {
        ApiResponse answer;
        api_.handle({.method = std::move(method),
                     .path = std::move(path),
                     .query = {},
                     .body = std::move(body)},
                    Reply<ApiResponse>([&](Result<ApiResponse> response) {
                        answer =
                            response.has_value() ? *response : error_response(response.error());
                    }));
        return answer;
    }

    std::string root_ = "/tmp/godwit-api-" + std::to_string(::getpid());
    std::unique_ptr<sys::EventLoop> loop_ = fresh_loop();
    RunDirectory run_ = short_run_directory(root_);
    EventLog events_{sys::system_clock()};
    Metrics metrics_;
    Operations operations_{*loop_, events_, metrics_, sys::system_clock()};
    Supervisor supervisor_{{.loop = *loop_,
                            .run = run_,
                            .events = events_,
                            .operations = operations_,
                            .metrics = metrics_,
                            .clock = sys::system_clock(),
                            .vmm_program = "/nonexistent"}};
    Api api_{supervisor_, operations_, metrics_, {.build = {}, .run_directory = "", .pid = 1}};
};

TEST_F(api, unknown_paths_methods_and_names_are_told_apart) {
    EXPECT_EQ(ask("GET", "/api/v1/nothing").status, 404);
    EXPECT_EQ(ask("PATCH", "/api/v1/machines").status, 405);
    EXPECT_EQ(ask("GET", "/api/v1/machines/web1").status, 404);
    EXPECT_EQ(ask("GET", "/api/v1/machines/WEB").status, 400);
    EXPECT_EQ(ask("GET", "/api/v1/operations/x").status, 400);
    EXPECT_EQ(ask("GET", "/api/v1/operations/7").status, 404);
    EXPECT_EQ(ask("GET", "/api/v1/version").status, 200);
    EXPECT_EQ(ask("GET", "/metrics").status, 200);
}

TEST_F(api, wrong_bodies_name_the_path) {
    for (const auto& [method, path, body, where] : std::vector<std::array<const char*, 4>>{
             {"PUT", "/api/v1/machines/web1/stop", R"({"timeout_s":0})", "/timeout_s"},
             {"PUT", "/api/v1/machines/web1/stop", R"({"forse":true})", "/forse"},
             {"PUT", "/api/v1/machines/web1/balloon", R"({"bytes":"1G"})", "/bytes"},
             {"PUT", "/api/v1/machines/web1/balloon", R"({"bytes":4097})", "/bytes"},
             {"PUT", "/api/v1/machines/web1/exchange", R"({"program":7})", "/program"},
             {"PUT", "/api/v1/machines/web1/exchange", R"({"mode":"magic"})", "/mode"},
             {"PUT", "/api/v1/exchange", R"({"order":"random"})", "/order"},
             {"PUT", "/api/v1/exchange", R"({"concurrency":65})", "/concurrency"},
             {"PUT", "/api/v1/exchange/plan", R"({"machine":"NO"})", "/machine"},
             {"PUT", "/api/v1/exchange/plan", R"({"machine":7})", "/machine"},
             {"PUT", "/api/v1/machines/web1/snapshot", R"({})", "/directory"},
             {"PUT", "/api/v1/disks/move", R"({"to":[]})", "/to"},
             {"PUT", "/api/v1/disks/move", R"({"to":["/tmp",7]})", "/to"},
             {"PUT", "/api/v1/disks/move", R"({"to":["tmp"]})", "/to"},
             {"PUT", "/api/v1/disks/move", R"({"to":["/tmp"],"machine":"NO"})", "/machine"},
             {"PUT", "/api/v1/disks/move", R"({"to":["/tmp"],"concurrency":9})", "/concurrency"},
             {"PUT", "/api/v1/disks/move", R"({"to":["/tmp"],"scheme":"lr"})", "/scheme"},
             {"POST", "/api/v1/restore", R"({"directory":"/x","name":"NO"})", "/name"},
             {"POST", "/api/v1/restore", R"({"copy_ram":1})", "/directory"}}) {
        const ApiResponse response = ask(method, path, body);
        EXPECT_EQ(response.status, 400) << body;
        EXPECT_EQ(Json::parse(response.body)["error"]["path"], where) << response.body;
    }
    EXPECT_EQ(ask("PUT", "/api/v1/machines/web1/stop", "{{{").status, 400);
    EXPECT_EQ(ask("POST", "/api/v1/machines", std::string(70'000, ' ')).status, 400);
    EXPECT_EQ(ask("POST", "/api/v1/machines", std::string(10'000, '[')).status, 400);
}

TEST_F(api, machine_that_cannot_be_started_leaves_nothing) {
    ASSERT_TRUE(run_.prepare().has_value());
    const ApiResponse response =
        ask("POST", "/api/v1/machines", R"({"name":"web1","kernel":{"path":"/k"}})");
    EXPECT_EQ(response.status, 404) << response.body;
    EXPECT_TRUE(GODWIT_MUST(run_.list_machines()).empty()); // The directory was made above.
    EXPECT_EQ(supervisor_.machine_count(), 0U);
}

TEST_F(api, many_disks_need_a_machine_that_is_and_a_pool_that_is_there) {
    EXPECT_EQ(ask("PUT", "/api/v1/disks/move", "7").status, 400);
    EXPECT_EQ(ask("PUT", "/api/v1/disks/move", R"({"to":["/no/such"]})").status, 404);
    const char* nobody = R"({"to":["/tmp"],"machine":"web1"})";
    EXPECT_EQ(ask("PUT", "/api/v1/disks/move", nobody).status, 404);
}

TEST_F(api, closed_answers_at_once) {
    api_.close();
    EXPECT_EQ(ask("GET", "/api/v1/version").status, 409);
}

/// Lines "  /path:" and "    method:" under "paths:" of the description.
std::set<std::string> described_routes() {
    std::ifstream file(GODWIT_SOURCE_DIR "/docs/api/openapi.yaml");
    std::set<std::string> routes;
    std::string path;
    bool in_paths = false;
    for (std::string line; std::getline(file, line);) {
        if (!line.empty() && line[0] != ' ') {
            in_paths = line == "paths:";
        } else if (in_paths && line.starts_with("  /")) {
            path = line.substr(2, line.size() - 3);
        } else if (in_paths && line.starts_with("    ") && line[4] != ' ' && line.ends_with(':')) {
            std::string method = line.substr(4, line.size() - 5);
            for (char& c : method) {
                c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
            }
            if (method != "PARAMETERS") {
                routes.insert(method + " " + path);
            }
        }
    }
    return routes;
}

TEST(openapi, describes_exactly_the_routes_served) {
    std::set<std::string> served;
    for (const Api::RouteName& route : Api::routes()) {
        served.insert(std::string(route.method) + " " + std::string(route.pattern));
    }
    EXPECT_EQ(described_routes(), served);
    EXPECT_EQ(served.size(), Api::routes().size());
}

} // namespace
} // namespace godwit::control
