#pragma once

/// Where a host keeps its sockets, locks and machine documents, and what everything in it is
/// called. The directory is all the state godwitd has. Any thread; values.

#include "base/result.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

inline constexpr std::size_t machine_name_bytes_max = 48;
inline constexpr std::size_t machines_max = 1024;

/// 1..48 of [a-z0-9-], starting with a letter; invalid_argument otherwise.
[[nodiscard]] Status check_machine_name(std::string_view name);
/// 8 lower-case hex digits.
[[nodiscard]] bool is_instance_id(std::string_view text) noexcept;

class RunDirectory {
  public:
    /// Names the directory; `path` may be relative. Touches nothing. invalid_argument if its
    /// sockets' paths would be too long.
    [[nodiscard]] static Result<RunDirectory> at(const std::string& path);
    /// Makes it with mode 0700 where it is missing; permission_denied if it belongs to somebody
    /// else, is open to others or cannot be written.
    [[nodiscard]] Status prepare() const;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::string api_socket() const { return path_ + "/godwitd.sock"; }
    [[nodiscard]] std::string lock_file() const { return path_ + "/godwitd.lock"; }
    [[nodiscard]] std::string log_file() const { return path_ + "/godwitd.log"; }
    [[nodiscard]] std::string history_file() const { return path_ + "/history.jsonl"; }
    /// What is under way while godwitd itself is replaced.
    [[nodiscard]] std::string suspension_file() const { return path_ + "/suspension.json"; }
    [[nodiscard]] std::string machines() const { return path_ + "/machines"; }
    [[nodiscard]] std::string machine(std::string_view name) const;
    [[nodiscard]] std::string spec_file(std::string_view name) const;
    [[nodiscard]] std::string vmm_log(std::string_view name) const;
    [[nodiscard]] std::string vmm_socket(std::string_view name, std::string_view instance) const;

    /// Refuses a name whose socket paths would not fit into sockaddr_un.
    [[nodiscard]] Status check_socket_paths(std::string_view name) const;
    /// Names of the machine directories, in order; entries that are no machine name are skipped.
    [[nodiscard]] Result<std::vector<std::string>> list_machines() const;
    /// Instance ids that have a control socket in a machine's directory.
    [[nodiscard]] Result<std::vector<std::string>> list_instances(std::string_view name) const;
    /// already_exists if the directory is there.
    [[nodiscard]] Status create_machine(std::string_view name) const;
    /// Removes a machine's directory with everything in it.
    [[nodiscard]] Status remove_machine(std::string_view name) const;

  private:
    explicit RunDirectory(std::string path) : path_(std::move(path)) {}
    std::string path_;
};

} // namespace godwit::control
