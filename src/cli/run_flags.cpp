#include "cli/run_flags.h"

#include "cli/size_text.h"
#include "control/json_text.h"

#include <nlohmann/json.hpp>

#include <charconv>
#include <filesystem>
#include <utility>

namespace godwit::cli {

namespace {

constexpr std::size_t parts_max = 16;

Error wrong(std::string_view flag, std::string_view text, const std::string& why) {
    return Error(ErrorCode::invalid_argument,
                 std::string(flag) + " '" + std::string(text.substr(0, 120)) + "': " + why);
}

/// Splits at single commas; a doubled one stands for itself.
std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> parts(1);
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != ',') {
            parts.back() += text[i];
        } else if (i + 1 < text.size() && text[i + 1] == ',') {
            parts.back() += ',';
            ++i;
        } else {
            parts.emplace_back();
        }
    }
    return parts;
}

std::pair<std::string, std::string> key_and_value(const std::string& part) {
    const std::size_t at = part.find('=');
    return at == std::string::npos ? std::pair(part, std::string())
                                   : std::pair(part.substr(0, at), part.substr(at + 1));
}

std::optional<std::uint16_t> small_number(const std::string& text) {
    std::uint16_t number = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool good = failure == std::errc() && end == text.data() + text.size();
    return good ? std::optional(number) : std::nullopt;
}

} // namespace

std::string absolute_path(const std::string& path) {
    if (path.empty()) {
        return path;
    }
    std::error_code error;
    const std::filesystem::path whole = std::filesystem::absolute(path, error);
    return error ? path : whole.lexically_normal().string();
}

Result<machine::DiskSpec> parse_disk(std::string_view text) {
    const std::vector<std::string> parts = split(text);
    if (parts[0].empty() || parts.size() > parts_max) {
        return wrong("--disk", text, "must begin with the path of an image or block device");
    }
    machine::DiskSpec disk;
    disk.path = absolute_path(parts[0]);
    for (std::size_t i = 1; i < parts.size(); ++i) {
        const auto [key, value] = key_and_value(parts[i]);
        const std::optional<std::uint16_t> number = small_number(value);
        if (parts[i] == "ro") {
            disk.read_only = true;
        } else if (key == "serial" && !value.empty()) {
            disk.serial = value;
        } else if (key == "queues" && number.has_value()) {
            disk.queues = *number;
        } else if (key == "direct" && (value == "on" || value == "off")) {
            disk.direct = value == "on";
        } else {
            return wrong("--disk",
                         text,
                         "'" + parts[i] +
                             "' is not known; after the path come ro, serial=TEXT, queues=N and "
                             "direct=on|off (a comma in a path is written ',,')");
        }
    }
    return disk;
}

Result<machine::NetSpec> parse_net(std::string_view text) {
    machine::NetSpec net;
    const std::vector<std::string> parts = split(text);
    for (const std::string& part : parts) {
        const auto [key, value] = key_and_value(part);
        const std::optional<std::uint16_t> number = small_number(value);
        if (key == "tap" && !value.empty()) {
            net.tap = value;
        } else if (key == "mac" && !value.empty()) {
            net.mac = value;
        } else if (key == "queues" && number.has_value()) {
            net.queue_pairs = *number;
        } else {
            return wrong(
                "--net", text, "'" + part + "' is not known; write tap=IF[,mac=MAC][,queues=N]");
        }
    }
    if (net.tap.empty() || parts.size() > parts_max) {
        return wrong("--net", text, "names no tap interface; write tap=IF[,mac=MAC][,queues=N]");
    }
    return net;
}

namespace {

Result<machine::MachineSpec> base_spec(const RunFlags& flags, std::string_view base_json) {
    if (base_json.empty()) {
        machine::MachineSpec spec;
        spec.name = flags.name;
        return spec;
    }
    Result<control::Json> document = control::parse_json(base_json);
    if (!document.has_value()) {
        return std::move(document.error()).with_context("--spec '" + flags.spec_file + "'");
    }
    if (document->is_object() && !flags.name.empty()) {
        (*document)["name"] = flags.name;
    }
    return machine::parse_machine_spec(control::json_text(*document))
        .with_context("--spec '" + flags.spec_file + "'");
}

/// "SIZE" or "SIZE,pool".
Status apply_memory_size(const std::string& text, memory::RamSpec& ram) {
    const std::vector<std::string> parts = split(text);
    if (parts.size() > 2 || (parts.size() == 2 && parts[1] != "pool")) {
        return wrong("--memory", text, "write SIZE, or SIZE,pool for memory of the host's pool");
    }
    Result<std::uint64_t> bytes = parse_size(parts[0]);
    if (!bytes.has_value()) {
        return std::move(bytes.error()).with_context("--memory");
    }
    ram.bytes = *bytes;
    if (parts.size() == 2) {
        ram.kind = memory::RamKind::pool;
        ram.path.clear();
    }
    return ok();
}

Status apply_memory(const RunFlags& flags, memory::RamSpec& ram) {
    if (!flags.memory.empty()) {
        GODWIT_TRY(apply_memory_size(flags.memory, ram));
        if (ram.kind == memory::RamKind::pool && (flags.huge_pages || !flags.memory_file.empty())) {
            return wrong("--memory",
                         flags.memory,
                         "memory of the pool is not also in a file or in "
                         "reserved huge pages");
        }
    }
    if (!flags.memory_file.empty()) {
        ram.kind = memory::RamKind::file;
        ram.path = absolute_path(flags.memory_file);
    } else if (flags.huge_pages) {
        ram.kind = memory::RamKind::hugetlb;
        ram.path.clear();
    }
    return ok();
}

} // namespace

Result<machine::MachineSpec> machine_spec_from(const RunFlags& flags, std::string_view base_json) {
    machine::MachineSpec spec = GODWIT_TRY(base_spec(flags, base_json));
    if (!flags.kernel.empty()) {
        spec.kernel.path = absolute_path(flags.kernel);
    }
    if (spec.kernel.path.empty()) {
        return Error(ErrorCode::invalid_argument,
                     "--kernel is missing: the guest's kernel, an ELF (vmlinux) or a bzImage");
    }
    if (!flags.initrd.empty()) {
        spec.kernel.initrd = absolute_path(flags.initrd);
    }
    spec.kernel.command_line = flags.command_line.value_or(spec.kernel.command_line);
    spec.vcpus = flags.cpus.value_or(spec.vcpus);
    GODWIT_TRY(apply_memory(flags, spec.memory));
    for (const std::string& text : flags.disks) {
        spec.disks.push_back(GODWIT_TRY(parse_disk(text)));
    }
    for (const std::string& text : flags.nets) {
        spec.nets.push_back(GODWIT_TRY(parse_net(text)));
    }
    spec.serial = flags.serial.value_or(spec.serial);
    spec.virtio_console = flags.console.value_or(spec.virtio_console);
    // The same reader that godwitd uses, so that mistakes are found before anything is started.
    return machine::parse_machine_spec(machine::to_json(spec));
}

} // namespace godwit::cli
