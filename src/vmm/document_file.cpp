#include "vmm/document_file.h"

#include "sys/fd.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace godwit::vmm {

Status DocumentFile::ensure(const machine::MachineSpec& spec) {
    const std::lock_guard lock(mutex_);
    std::error_code error;
    return std::filesystem::exists(path_, error) ? ok() : write(machine::to_json(spec));
}

Status DocumentFile::set_disk(std::size_t disk, const machine::DiskSpec& now) {
    const std::lock_guard lock(mutex_);
    const std::string text =
        GODWIT_TRY(sys::read_file(path_, machine::spec_json_bytes_max)
                       .with_context("the machine's document cannot be rewritten"));
    // Whatever stands there must be a good document before and after.
    const auto known =
        GODWIT_TRY(machine::parse_machine_spec(text).with_context("'" + path_ + "'"));
    nlohmann::json document = nlohmann::json::parse(text, nullptr, false);
    if (disk >= known.disks.size()) {
        return Error(ErrorCode::conflict,
                     "'" + path_ + "' knows only " + std::to_string(known.disks.size()) +
                         " disks of the machine");
    }
    document["disks"][disk]["path"] = now.path;
    document["disks"][disk]["direct"] = now.direct;
    document["disks"][disk].erase("deltas");
    for (const machine::DeltaSpec& delta : now.deltas) {
        document["disks"][disk]["deltas"].push_back(
            {{"path", delta.path}, {"snapshot", delta.snapshot}, {"direct", delta.direct}});
    }
    const std::string rewritten =
        document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
    GODWIT_TRY(machine::parse_machine_spec(rewritten).with_context("the document rewritten"));
    return write(rewritten);
}

Status DocumentFile::write(const std::string& text) const {
    return sys::replace_file_durably(path_, text);
}

} // namespace godwit::vmm
