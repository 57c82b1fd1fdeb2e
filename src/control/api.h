#pragma once

/// The REST API without HTTP: which routes exist, what their bodies must look like, what they
/// answer. Described for users in docs/api/openapi.yaml; a test keeps the two equal.
///
/// Every request gets exactly one answer; wrong input gets an error document
/// {"error":{"code","message","path"}}. Control thread only.

#include "base/units.h"
#include "control/metrics.h"
#include "control/reply.h"
#include "control/supervisor.h"

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

inline constexpr std::size_t request_body_bytes_max = 64 * kib;

struct ApiRequest {
    std::string method;
    std::string path; ///< Decoded, without the query.
    std::map<std::string, std::string> query;
    std::string body;
};

struct ApiResponse {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
};

[[nodiscard]] int http_status_of(ErrorCode code) noexcept;
[[nodiscard]] ApiResponse error_response(const Error& error);

/// Takes "/api/v1/machines/{name}" apart against a path: the values in braces, or nothing.
[[nodiscard]] std::optional<std::vector<std::string>> match_route(std::string_view pattern,
                                                                  std::string_view path);

struct ApiIdentity {
    BuildInfo build;
    std::string run_directory;
    int pid = 0;
};

class Api {
  public:
    Api(Supervisor& supervisor, Operations& operations, Metrics& metrics, ApiIdentity identity)
        : supervisor_(supervisor), operations_(operations), metrics_(metrics),
          identity_(std::move(identity)) {}

    void handle(ApiRequest request, Reply<ApiResponse> reply);
    /// From now on every request is answered with "cancelled".
    void close() noexcept { closed_ = true; }

    struct RouteName {
        std::string_view method;
        std::string_view pattern;
    };
    /// All routes this API serves; the stream of events is served beside it (events_route).
    [[nodiscard]] static std::vector<RouteName> routes();
    static constexpr std::string_view events_route = "/api/v1/events";

  private:
    struct Route;
    struct Call;
    [[nodiscard]] static std::span<const Route> table();

    void version(Call call);
    void metrics(Call call);
    void list_machines(Call call);
    void pool(Call call);
    void create_machine(Call call);
    void machine_info(Call call);
    void pause(Call call);
    void resume(Call call);
    void stop(Call call);
    void snapshot(Call call);
    void exchange(Call call);
    void exchange_all(Call call);
    void plan_exchange(Call call);
    void reports(Call call);
    void recover(Call call);
    void suspend(Call call);
    void suspension(Call call);
    void balloon(Call call);
    void refresh_disk(Call call);
    void disks(Call call);
    void move_disk(Call call);
    void move_disks(Call call);
    void cancel_disk_move(Call call);
    void snapshot_disk(Call call);
    void merge_disk(Call call);
    void machine_reports(Call call);
    void restore(Call call);
    void list_operations(Call call);
    void show_operation(Call call);
    void cancel_operation(Call call);

    void pass_on(Call call, std::string_view method, const Json& params);
    void answer_operation(Call call, const Result<std::uint64_t>& operation);

    Supervisor& supervisor_;
    Operations& operations_;
    Metrics& metrics_;
    ApiIdentity identity_;
    bool closed_ = false;
};

} // namespace godwit::control
