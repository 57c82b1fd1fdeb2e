#include "control/machine_document.h"

#include "machine/machine_spec.h"
#include "sys/entropy.h"

#include <array>
#include <span>

namespace godwit::control {

namespace {

MachineDocument document_of(const machine::MachineSpec& spec) {
    return {.name = spec.name,
            .id = spec.id,
            .vcpus = spec.vcpus,
            .memory_bytes = spec.memory.bytes,
            .json = machine::to_json(spec),
            .in_pool = spec.memory.kind == memory::RamKind::pool,
            .runs = spec.memory.runs};
}

} // namespace

Result<std::string> fresh_uuid() {
    std::array<unsigned char, 16> bytes{};
    GODWIT_TRY(sys::system_random().random_bytes(std::as_writable_bytes(std::span(bytes))));
    bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0FU) | 0x40U); // RFC 9562, section 5.4
    bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3FU) | 0x80U);
    std::string text;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            text += '-';
        }
        text += "0123456789abcdef"[bytes[i] >> 4U];
        text += "0123456789abcdef"[bytes[i] & 0xFU];
    }
    return text;
}

Result<MachineDocument> read_machine_document(std::string_view json) {
    machine::MachineSpec spec = GODWIT_TRY(machine::parse_machine_spec(json));
    if (spec.id.empty()) {
        spec.id = GODWIT_TRY(fresh_uuid());
    }
    return document_of(spec);
}

Result<MachineDocument> renamed_machine_document(std::string_view json, std::string_view name) {
    machine::MachineSpec spec = GODWIT_TRY(machine::parse_machine_spec(json));
    spec.name = name;
    spec.id = GODWIT_TRY(fresh_uuid());
    return document_of(spec);
}

Result<MachineDocument> placed_machine_document(std::string_view json,
                                                std::vector<memory::PoolRun> runs) {
    machine::MachineSpec spec = GODWIT_TRY(machine::parse_machine_spec(json));
    spec.memory.runs = std::move(runs);
    return document_of(spec);
}

} // namespace godwit::control
