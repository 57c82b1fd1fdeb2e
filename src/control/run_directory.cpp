#include "control/run_directory.h"

#include "sys/run_path.h"

#include <sys/stat.h>
#include <sys/un.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace godwit::control {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view socket_prefix = "vmm-";
constexpr std::string_view socket_suffix = ".sock";
/// What a socket is called while it is bound: ".<pid>" behind its name (sys::Listener).
constexpr std::size_t temporary_suffix_bytes_max = 8;
constexpr std::size_t socket_path_bytes_max =
    sizeof(sockaddr_un::sun_path) - 1 - temporary_suffix_bytes_max;

Error path_too_long(const std::string& path) {
    return Error(ErrorCode::invalid_argument,
                 "the socket path '" + path + "' has " + std::to_string(path.size()) + " bytes, " +
                     std::to_string(socket_path_bytes_max) +
                     " is the limit; choose a shorter GODWIT_RUN_DIR or machine name");
}

Error error_from(const std::error_code& failure, const std::string& what) {
    const bool denied = failure == std::errc::permission_denied;
    const bool missing = failure == std::errc::no_such_file_or_directory;
    return Error(denied    ? ErrorCode::permission_denied
                 : missing ? ErrorCode::not_found
                           : ErrorCode::io,
                 what + ": " + failure.message());
}

Status make_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) {
        return ok();
    }
    return Error::from_errno(errno, "create the directory '" + path + "'");
}

} // namespace

Status check_machine_name(std::string_view name) {
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    };
    const bool good = !name.empty() && name.size() <= machine_name_bytes_max && name[0] >= 'a' &&
                      name[0] <= 'z' && std::ranges::all_of(name, allowed);
    if (!good) {
        return Error(ErrorCode::invalid_argument,
                     "the machine name '" + std::string(name.substr(0, 80)) +
                         "' must be 1 to 48 of a-z, 0-9 and '-', starting with a letter");
    }
    return ok();
}

bool is_instance_id(std::string_view text) noexcept {
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    return text.size() == 8 && std::ranges::all_of(text, hex);
}

Result<RunDirectory> RunDirectory::at(const std::string& path) {
    std::error_code failure;
    const fs::path absolute = fs::absolute(path, failure);
    if (failure || path.empty()) {
        return Error(ErrorCode::invalid_argument, "'" + path + "' is no path of a run directory");
    }
    std::string text = absolute.lexically_normal().string();
    while (text.size() > 1 && text.ends_with('/')) {
        text.pop_back();
    }
    RunDirectory directory(std::move(text));
    if (directory.api_socket().size() > socket_path_bytes_max) {
        return path_too_long(directory.api_socket());
    }
    return directory;
}

Status RunDirectory::prepare() const {
    GODWIT_TRY(sys::prepare_private_directory(path_).with_context(
        "the run directory; choose another GODWIT_RUN_DIR"));
    return make_directory(machines());
}

std::string RunDirectory::machine(std::string_view name) const {
    return machines() + "/" + std::string(name);
}

std::string RunDirectory::spec_file(std::string_view name) const {
    return machine(name) + "/spec.json";
}

std::string RunDirectory::vmm_log(std::string_view name) const {
    return machine(name) + "/vmm.log";
}

std::string RunDirectory::vmm_socket(std::string_view name, std::string_view instance) const {
    return machine(name) + "/" + std::string(socket_prefix) + std::string(instance) +
           std::string(socket_suffix);
}

Status RunDirectory::check_socket_paths(std::string_view name) const {
    for (const std::string& path :
         {vmm_socket(name, "00000000"), machine(name) + "/console-virtio.sock"}) {
        if (path.size() > socket_path_bytes_max) {
            return path_too_long(path);
        }
    }
    return ok();
}

Result<std::vector<std::string>> RunDirectory::list_machines() const {
    std::error_code failure;
    std::vector<std::string> names;
    for (fs::directory_iterator at(machines(), failure), end; !failure && at != end;
         at.increment(failure)) {
        std::string name = at->path().filename().string();
        std::error_code ignored;
        if (!check_machine_name(name).has_value() || !at->is_directory(ignored)) {
            continue;
        }
        if (names.size() == machines_max) {
            return Error(ErrorCode::resource_exhausted,
                         "'" + machines() + "' has more than " + std::to_string(machines_max) +
                             " directories, the limit of machines");
        }
        names.push_back(std::move(name));
    }
    if (failure) {
        return error_from(failure, "list '" + machines() + "'");
    }
    std::ranges::sort(names);
    return names;
}

Result<std::vector<std::string>> RunDirectory::list_instances(std::string_view name) const {
    constexpr std::size_t instances_max = 64;
    std::error_code failure;
    std::vector<std::string> ids;
    for (fs::directory_iterator at(machine(name), failure), end; !failure && at != end;
         at.increment(failure)) {
        const std::string file = at->path().filename().string();
        if (file.size() != socket_prefix.size() + 8 + socket_suffix.size() ||
            !file.starts_with(socket_prefix) || !file.ends_with(socket_suffix)) {
            continue;
        }
        std::string id = file.substr(socket_prefix.size(), 8);
        if (is_instance_id(id) && ids.size() < instances_max) {
            ids.push_back(std::move(id));
        }
    }
    if (failure) {
        return error_from(failure, "list '" + machine(name) + "'");
    }
    std::ranges::sort(ids);
    return ids;
}

Status RunDirectory::create_machine(std::string_view name) const {
    const std::string path = machine(name);
    if (::mkdir(path.c_str(), 0700) != 0) {
        return Error::from_errno(errno, "create the directory '" + path + "'");
    }
    return ok();
}

Status RunDirectory::remove_machine(std::string_view name) const {
    std::error_code failure;
    fs::remove_all(machine(name), failure);
    if (failure) {
        return error_from(failure, "remove '" + machine(name) + "'");
    }
    return ok();
}

} // namespace godwit::control
