#pragma once

/// One machine as its owner describes it: the document `godwit run` builds and godwit-vmm obeys.
/// Values. JSON form and limits: src/machine/machine.schema.json.

#include "base/result.h"
#include "memory/ram.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::machine {

inline constexpr std::uint32_t vcpus_max = 64;
inline constexpr std::size_t disks_max = 24;
inline constexpr std::size_t nets_max = 8;
/// Of one disk, and of all of a machine: each is a descriptor that goes along in an exchange.
inline constexpr std::size_t deltas_per_disk_max = 8;
inline constexpr std::size_t deltas_max = 64;
inline constexpr std::size_t command_line_bytes_max = 2047;
inline constexpr std::size_t spec_json_bytes_max = std::size_t{64} * 1024;

struct KernelSpec {
    std::string path;
    std::string initrd; ///< Empty: none.
    std::string command_line;
};

/// What was written to a disk since it was frozen (block/overlay/overlay_device.h).
struct DeltaSpec {
    std::string path;
    std::string snapshot; ///< 32 hexadecimal digits: which delta has to lie there.
    bool direct = true;   ///< O_DIRECT
    friend bool operator==(const DeltaSpec&, const DeltaSpec&) = default;
};

struct DiskSpec {
    std::string path;
    std::vector<DeltaSpec> deltas = {}; ///< Over `path`, the oldest first; the last is written.
    bool read_only = false;
    std::string serial;       ///< At most 20 bytes; empty: "disk<index>".
    std::uint16_t queues = 1; ///< 1..64; 0 in the document means one per vCPU, at most 8.
    std::uint16_t queue_size = 256;
    bool direct = true; ///< O_DIRECT
};

struct NetSpec {
    std::string tap; ///< Interface name, at most 15 bytes.
    std::string mac; ///< "52:54:00:12:34:56"; empty: derived from machine name and index.
    std::uint16_t queue_pairs = 1; ///< 1..8
};

struct BalloonSpec {
    bool free_page_reporting = true;
};

struct MachineSpec {
    std::string name; ///< 1..48 of [a-z0-9-], starting with a letter.
    std::string id;   ///< UUID text, made by `run` when absent.
    std::uint32_t vcpus = 1;
    memory::RamSpec memory;
    KernelSpec kernel;
    std::vector<DiskSpec> disks;
    std::vector<NetSpec> nets;
    bool serial = true;         ///< ttyS0
    bool virtio_console = true; ///< hvc0
    bool rng = true;
    std::optional<BalloonSpec> balloon = BalloonSpec{};
};

/// Reads a document; the error names the JSON path and the offending value. Unknown keys are
/// refused.
[[nodiscard]] Result<MachineSpec> parse_machine_spec(std::string_view json);
/// The document again, with every default written out.
[[nodiscard]] std::string to_json(const MachineSpec& spec);

} // namespace godwit::machine
