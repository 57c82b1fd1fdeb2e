#pragma once

/// What an exchange of a godwit-blk tells its operator at its end, whatever the end
/// (docs/reports.md, "disk-exchange"). A value.

#include "base/error.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace godwit::doors::exchange {

enum class Outcome : std::uint8_t {
    done,                ///< The successor serves the export.
    rolled_back,         ///< This process serves it as before.
    failed_after_commit, ///< The successor owns it and has not said that it serves it.
};
[[nodiscard]] std::string_view name_of(Outcome outcome) noexcept;

struct Report {
    struct Side {
        std::string program;
        int pid = 0; ///< 0: it was not started.
        std::string version;
        std::string build_id;
    };
    std::string name; ///< Of the export.
    Outcome outcome = Outcome::rolled_back;
    Side from;
    Side to;
    std::size_t nbd_clients = 0;
    std::size_t front_ends = 0;
    std::uint64_t carried_bytes = 0; ///< Sent by NBD clients, or not yet sent to them.
    /// From the moment on from which nothing new was begun for its users until the successor (or,
    /// rolled back, this process) served them; -1: they did not wait.
    std::int64_t pause_us = -1;
    std::vector<std::pair<std::string, std::int64_t>> pause_parts_us; ///< In order.
    std::int64_t total_us = 0;
    // Unless done.
    std::string failed_step;
    std::string reason;
    std::string error_code;
};

[[nodiscard]] nlohmann::json to_json(const Report& report);

} // namespace godwit::doors::exchange
