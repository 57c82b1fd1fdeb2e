#include "machine/devices/delta_check.h"

#include "block/image.h"
#include "block/overlay/delta_format.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::machine {

namespace {

using Json = nlohmann::json;

class Findings {
  public:
    void add(const char* level, std::string text) {
        good_ = good_ && std::string_view(level) != "error";
        list_.push_back({{"level", level}, {"text", std::move(text)}});
    }
    [[nodiscard]] bool good() const noexcept { return good_; }
    [[nodiscard]] Json take() { return std::move(list_); }

  private:
    bool good_ = true;
    Json list_ = Json::array();
};

std::string number(std::uint64_t value) {
    return std::to_string(value);
}

/// Both headers: one is left from before the last checkpoint, or from nothing.
Status look_at_headers(block::DeltaStorage& storage, Findings& findings) {
    block::DeltaBlock block{};
    for (std::uint64_t i = 0; i < 2; ++i) {
        GODWIT_TRY(storage.read(i * block::delta_block_bytes, block));
        const Result<block::DeltaHeader> header = block::decode_delta_header(block);
        const bool empty =
            std::ranges::all_of(block, [](std::byte b) { return b == std::byte{0}; });
        findings.add("note",
                     "header " + number(i) +
                         (header.has_value() ? ": generation " + number(header->generation) +
                                                   ", epoch " + number(header->epoch)
                          : empty ? ": none yet"
                                  : ": " + header.error().to_string()));
    }
    return ok();
}

Json json_of(const block::DeltaCheck& check) {
    const block::DeltaHeader& header = check.header;
    return {{"snapshot", block::to_text(header.snapshot_id)},
            {"epoch", header.epoch},
            {"generation", header.generation},
            {"disk_bytes", header.disk_bytes},
            {"cluster_bytes", header.cluster_bytes},
            {"slots", header.slots},
            {"clusters_mapped", check.clusters_mapped},
            {"journal_blocks", header.journal_blocks},
            {"journal_blocks_used", check.journal_blocks_used},
            {"checkpoint_blocks", header.checkpoint_blocks}};
}

void look_at(const block::DeltaCheck& check, Findings& findings) {
    const block::DeltaHeader& header = check.header;
    findings.add("note",
                 "snapshot " + block::to_text(header.snapshot_id) + " of a disk of " +
                     number(header.disk_bytes) + " bytes, last opened by owner " +
                     number(header.epoch));
    findings.add("note",
                 "journal: " + number(check.journal_blocks_used) + " of " +
                     number(header.journal_blocks) + " blocks, " +
                     number(header.checkpoint_blocks) + " of them its checkpoint");
    findings.add("note",
                 number(check.clusters_mapped) + " clusters of " + number(header.cluster_bytes) +
                     " bytes lie here, there is room for " + number(header.slots));
    if (check.clusters_mapped == 0) {
        findings.add("warning",
                     "it is empty: unless a machine's document names it, it may be removed");
    } else if (check.clusters_mapped == header.slots) {
        findings.add("warning", "it is full: its guest's writes wait until it is merged");
    }
}

Status look_at_base(const block::DeltaHeader& header, const std::string& path, Findings& findings) {
    const sys::Fd image = GODWIT_TRY(block::open_image(path, {.read_only = true, .direct = false}));
    const block::ImageFacts facts = GODWIT_TRY(block::inspect_image(image, path));
    if (facts.geometry.bytes == header.disk_bytes) {
        findings.add("note", "the base has the size the delta is for");
    } else {
        findings.add("error",
                     "the delta is for a disk of " + number(header.disk_bytes) + " bytes, '" +
                         path + "' has " + number(facts.geometry.bytes));
    }
    return ok();
}

} // namespace

Result<DeltaReport> check_delta_file(const std::string& path, const std::string& base) {
    const sys::Fd file = GODWIT_TRY(block::open_image(path, {.read_only = true, .direct = false}));
    block::DeltaFile storage(file);
    Findings findings;
    Json report{{"operation", "disk-check"}, {"delta", path}, {"header", nullptr}};
    if (GODWIT_TRY(storage.bytes()) < block::delta_journal_offset) {
        findings.add("error", "it is too short for a delta's headers");
    } else {
        GODWIT_TRY(look_at_headers(storage, findings));
        const Result<block::DeltaCheck> check = block::check_delta(storage);
        if (check.has_value()) {
            report["header"] = json_of(*check);
            look_at(*check, findings);
            if (!base.empty()) {
                report["base"] = base;
                GODWIT_TRY(look_at_base(check->header, base, findings));
            }
        } else {
            findings.add("error", check.error().to_string());
        }
    }
    report["ok"] = findings.good();
    const bool good = findings.good();
    report["findings"] = findings.take();
    return DeltaReport{.good = good,
                       .json = report.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

} // namespace godwit::machine
