#include "cli/export_client.h"

#include "sys/run_path.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace godwit::cli {

namespace {

using control::Json;

std::string path_of(const std::string& run_directory, const std::string& name) {
    return name.find('/') != std::string::npos
               ? name
               : sys::export_socket(run_directory.empty() ? sys::default_run_path() : run_directory,
                                    name);
}

} // namespace

Result<ExportClient> ExportClient::connect(const std::string& run_directory,
                                           const std::string& name) {
    if (name.find('/') == std::string::npos) {
        GODWIT_TRY(sys::check_export_name(name));
    }
    const std::string path = path_of(run_directory, name);
    Result<sys::MessageSocket> socket = sys::MessageSocket::connect(path);
    if (!socket.has_value()) {
        return Error(ErrorCode::not_found,
                     "no godwit-blk serves an export '" + name + "' at '" + path +
                         "' (a machine's disk is called MACHINE:DISK, like web1:disk0)");
    }
    return ExportClient(name, std::move(*socket));
}

bool ExportClient::is_known(const std::string& run_directory, const std::string& name) {
    std::error_code error;
    const std::string path = path_of(run_directory, name);
    return (name.find('/') != std::string::npos || sys::check_export_name(name).has_value()) &&
           std::filesystem::exists(path, error);
}

Result<Json> ExportClient::call(const std::string& method,
                                const Json& params,
                                std::chrono::milliseconds timeout) const {
    GODWIT_TRY(
        socket_.send(control::json_text({{"id", 1}, {"method", method}, {"params", params}})));
    const sys::Message message = GODWIT_TRY(
        socket_.receive(timeout).with_context("the server of the export '" + name_ + "'"));
    const Json answer = GODWIT_TRY(control::parse_json(message.bytes));
    if (!answer.is_object()) {
        return Error(ErrorCode::corrupt, "the export's server answers nonsense");
    }
    if (answer.contains("error")) {
        return control::error_of(answer["error"]);
    }
    return answer.value("result", Json());
}

Status ExportClient::subscribe() const {
    GODWIT_TRY(call("subscribe", Json::object()));
    return ok();
}

Status ExportClient::wait(std::chrono::milliseconds timeout) const {
    const Result<sys::Message> message = socket_.receive(timeout);
    return message.has_value() || message.error().code() == ErrorCode::timeout
               ? ok()
               : Status(message.error());
}

} // namespace godwit::cli
