#include "machine/machine_spec.h"

#include "machine/devices/device_plan.h"
#include "machine/mac_address.h"

#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>

namespace godwit::machine {

namespace {

using Json = nlohmann::json;
using Adapter = valijson::adapters::NlohmannJsonAdapter;

constexpr std::string_view schema_text =
#include "machine_schema.inc"
    ;

constexpr std::size_t nesting_max = 8;
constexpr std::size_t shown_value_bytes_max = 60;

/// The schema, read once. Throws only if the schema in the tree is wrong, which a test would show.
const valijson::Schema& schema() {
    static const std::unique_ptr<const valijson::Schema> parsed = [] {
        const Json document = Json::parse(schema_text);
        auto made = std::make_unique<valijson::Schema>();
        valijson::SchemaParser().populateSchema(Adapter(document), *made);
        return made;
    }();
    return *parsed;
}

/// The parser recurses per level, so depth is checked on the text, before it runs.
bool is_nested_too_deep(std::string_view text) {
    std::size_t depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            i += c == '\\' ? 1 : 0;
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > nesting_max) {
                return true;
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            --depth;
        }
    }
    return false;
}

std::string shortened(std::string text) {
    if (text.size() > shown_value_bytes_max) {
        text.resize(shown_value_bytes_max);
        text += "...";
    }
    return text;
}

/// Where a validation error happened: its JSON pointer, and the value there.
struct Place {
    std::string pointer;
    std::string value;
};

/// valijson names a place as ["<root>", "[disks]", "[0]", ...].
Place place_of(const Json& document, const std::vector<std::string>& context) {
    Place place;
    const Json* at = &document;
    for (const std::string& step : context) {
        if (step.size() < 2 || step.front() != '[') {
            continue;
        }
        const std::string key = step.substr(1, step.size() - 2);
        place.pointer += "/" + key;
        if (at != nullptr && at->is_object() && at->contains(key)) {
            at = &(*at)[key];
        } else if (at != nullptr && at->is_array()) {
            std::size_t index = 0;
            const bool is_index = std::sscanf(key.c_str(), "%zu", &index) == 1;
            at = is_index && index < at->size() ? &(*at)[index] : nullptr;
        }
    }
    place.pointer = place.pointer.empty() ? "/" : place.pointer;
    place.value =
        at == nullptr ? "" : shortened(at->dump(-1, ' ', false, Json::error_handler_t::replace));
    return place;
}

Status check_against_schema(const Json& document) {
    valijson::Validator validator;
    valijson::ValidationResults results;
    const Adapter target(document);
    if (validator.validate(schema(), target, &results)) {
        return ok();
    }
    // The innermost error comes first and says most.
    valijson::ValidationResults::Error error;
    results.popError(error);
    const Place place = place_of(document, error.context);
    return Error(ErrorCode::invalid_argument,
                 "machine document: " + place.pointer +
                     (place.value.empty() ? "" : " is " + place.value) + ": " + error.description);
}

Error bad_value(const std::string& pointer, const std::string& value, const std::string& why) {
    return Error(ErrorCode::invalid_argument,
                 "machine document: " + pointer + " is " + shortened(value) + ": " + why);
}

/// Values of the document, whose types the schema has checked.
template <typename T>
void take(const Json& object, const char* key, T& value) {
    const auto found = object.find(key);
    if (found != object.end()) {
        value = found->get<T>();
    }
}

constexpr std::array<std::pair<memory::RamKind, std::string_view>, 4> ram_kinds{{
    {memory::RamKind::memfd, "memfd"},
    {memory::RamKind::hugetlb, "hugetlb"},
    {memory::RamKind::file, "file"},
    {memory::RamKind::pool, "pool"},
}};

memory::RamSpec ram_from(const Json& object) {
    memory::RamSpec ram;
    take(object, "bytes", ram.bytes);
    take(object, "path", ram.path);
    std::string kind = "memfd";
    take(object, "kind", kind);
    for (const auto& [value, name] : ram_kinds) {
        ram.kind = kind == name ? value : ram.kind;
    }
    if (const auto runs = object.find("runs"); runs != object.end()) {
        for (const Json& run : *runs) {
            auto& added = ram.runs.emplace_back();
            take(run, "offset", added.offset);
            take(run, "bytes", added.bytes);
        }
    }
    return ram;
}

std::string_view name_of(memory::RamKind kind) {
    const auto found =
        std::ranges::find(ram_kinds, kind, &std::pair<memory::RamKind, std::string_view>::first);
    return found->second;
}

constexpr std::uint16_t automatic_queues_max = 8;

std::vector<DeltaSpec> deltas_from(const Json& object) {
    std::vector<DeltaSpec> deltas;
    for (const Json& each : object.value("deltas", Json::array())) {
        DeltaSpec& delta = deltas.emplace_back();
        take(each, "path", delta.path);
        take(each, "snapshot", delta.snapshot);
        take(each, "direct", delta.direct);
    }
    return deltas;
}

DiskSpec disk_from(const Json& object, std::size_t index, std::uint32_t vcpus) {
    DiskSpec disk;
    take(object, "path", disk.path);
    disk.deltas = deltas_from(object);
    take(object, "read_only", disk.read_only);
    take(object, "serial", disk.serial);
    take(object, "queues", disk.queues);
    take(object, "queue_size", disk.queue_size);
    take(object, "direct", disk.direct);
    if (disk.serial.empty()) {
        disk.serial = "disk" + std::to_string(index);
    }
    if (disk.queues == 0) {
        disk.queues =
            static_cast<std::uint16_t>(std::min<std::uint32_t>(vcpus, automatic_queues_max));
    }
    return disk;
}

NetSpec net_from(const Json& object, std::size_t index, const std::string& machine) {
    NetSpec net;
    take(object, "tap", net.tap);
    take(object, "mac", net.mac);
    take(object, "queue_pairs", net.queue_pairs);
    if (net.mac.empty()) {
        net.mac = derived_mac_address(machine, index);
    }
    return net;
}

std::optional<BalloonSpec> balloon_from(const Json& document) {
    const auto found = document.find("balloon");
    if (found == document.end()) {
        return BalloonSpec{};
    }
    if (found->is_null()) {
        return std::nullopt;
    }
    BalloonSpec balloon;
    take(*found, "free_page_reporting", balloon.free_page_reporting);
    return balloon;
}

MachineSpec spec_from(const Json& document) {
    MachineSpec spec;
    take(document, "name", spec.name);
    take(document, "id", spec.id);
    take(document, "vcpus", spec.vcpus);
    if (document.contains("memory")) {
        spec.memory = ram_from(document["memory"]);
    }
    take(document["kernel"], "path", spec.kernel.path);
    take(document["kernel"], "initrd", spec.kernel.initrd);
    take(document["kernel"], "command_line", spec.kernel.command_line);
    for (const Json& disk : document.value("disks", Json::array())) {
        spec.disks.push_back(disk_from(disk, spec.disks.size(), spec.vcpus));
    }
    for (const Json& net : document.value("nets", Json::array())) {
        spec.nets.push_back(net_from(net, spec.nets.size(), spec.name));
    }
    take(document, "serial", spec.serial);
    take(document, "virtio_console", spec.virtio_console);
    take(document, "rng", spec.rng);
    spec.balloon = balloon_from(document);
    return spec;
}

Status check_deltas(const MachineSpec& spec) {
    std::size_t deltas = 0;
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        const DiskSpec& disk = spec.disks[i];
        const std::string pointer = "/disks/" + std::to_string(i) + "/deltas";
        deltas += disk.deltas.size();
        if (disk.read_only && !disk.deltas.empty()) {
            return bad_value(pointer,
                             std::to_string(disk.deltas.size()) + " deltas",
                             "a disk that is attached for reading only has none");
        }
        if (deltas > deltas_max) {
            return bad_value(pointer,
                             std::to_string(deltas) + " deltas so far",
                             "a machine has at most " + std::to_string(deltas_max));
        }
    }
    return ok();
}

/// What one value cannot tell alone.
Status cross_check(const MachineSpec& spec) {
    const bool is_file = spec.memory.kind == memory::RamKind::file;
    if (is_file == spec.memory.path.empty()) {
        return bad_value("/memory/path",
                         "\"" + spec.memory.path + "\"",
                         is_file ? "a path is needed for kind \"file\""
                                 : "a path is only for kind \"file\"");
    }
    if (spec.memory.kind != memory::RamKind::pool && !spec.memory.runs.empty()) {
        return bad_value("/memory/runs",
                         std::to_string(spec.memory.runs.size()) + " runs",
                         "only kind \"pool\" has runs of the host's memory pool");
    }
    if (spec.kernel.command_line.find('\0') != std::string::npos ||
        spec.kernel.path.find('\0') != std::string::npos) {
        return bad_value("/kernel", "text with a zero byte", "the kernel would not see the rest");
    }
    if (const std::size_t devices = plan_devices(spec).size(); devices > devices_max) {
        return bad_value("/",
                         "a machine with " + std::to_string(devices) + " devices",
                         "its PCI bus has " + std::to_string(devices_max) + " slots");
    }
    GODWIT_TRY(check_deltas(spec));
    for (std::size_t i = 0; i < spec.nets.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            if (spec.nets[i].tap == spec.nets[j].tap) {
                return bad_value("/nets/" + std::to_string(i) + "/tap",
                                 "\"" + spec.nets[i].tap + "\"",
                                 "the machine has this tap already");
            }
        }
    }
    return ok();
}

} // namespace

Result<MachineSpec> parse_machine_spec(std::string_view json) {
    if (json.size() > spec_json_bytes_max) {
        return Error(ErrorCode::invalid_argument,
                     "machine document: " + std::to_string(json.size()) + " bytes, at most " +
                         std::to_string(spec_json_bytes_max) + " are read");
    }
    if (is_nested_too_deep(json)) {
        return Error(ErrorCode::invalid_argument, "machine document: nested too deep");
    }
    const Json document = Json::parse(json, nullptr, false);
    if (document.is_discarded()) {
        return Error(ErrorCode::invalid_argument, "machine document: not JSON");
    }
    GODWIT_TRY(check_against_schema(document));
    MachineSpec spec = spec_from(document);
    GODWIT_TRY(cross_check(spec));
    return spec;
}

std::string to_json(const MachineSpec& spec) {
    Json document{
        {"name", spec.name},
        {"id", spec.id},
        {"vcpus", spec.vcpus},
        {"memory", {{"bytes", spec.memory.bytes}, {"kind", name_of(spec.memory.kind)}}},
        {"kernel",
         {{"path", spec.kernel.path},
          {"initrd", spec.kernel.initrd},
          {"command_line", spec.kernel.command_line}}},
        {"disks", Json::array()},
        {"nets", Json::array()},
        {"serial", spec.serial},
        {"virtio_console", spec.virtio_console},
        {"rng", spec.rng},
        {"balloon", nullptr},
    };
    if (spec.memory.kind == memory::RamKind::file) {
        document["memory"]["path"] = spec.memory.path;
    }
    for (const memory::PoolRun& run : spec.memory.runs) {
        document["memory"]["runs"].push_back({{"offset", run.offset}, {"bytes", run.bytes}});
    }
    for (const DiskSpec& disk : spec.disks) {
        document["disks"].push_back({{"path", disk.path},
                                     {"read_only", disk.read_only},
                                     {"serial", disk.serial},
                                     {"queues", disk.queues},
                                     {"queue_size", disk.queue_size},
                                     {"direct", disk.direct}});
        for (const DeltaSpec& delta : disk.deltas) { // Older builds do not know the key.
            document["disks"].back()["deltas"].push_back(
                {{"path", delta.path}, {"snapshot", delta.snapshot}, {"direct", delta.direct}});
        }
    }
    for (const NetSpec& net : spec.nets) {
        document["nets"].push_back(
            {{"tap", net.tap}, {"mac", net.mac}, {"queue_pairs", net.queue_pairs}});
    }
    if (spec.balloon.has_value()) {
        document["balloon"] = {{"free_page_reporting", spec.balloon->free_page_reporting}};
    }
    return document.dump(2, ' ', false, Json::error_handler_t::replace);
}

} // namespace godwit::machine
