#include "vmm/snapshot.h"

#include "base/scope_guard.h"
#include "memory/ram_file.h"

#include <sys/stat.h>

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

namespace godwit::vmm {

namespace {

constexpr const char* spec_file = "machine.json";
constexpr const char* state_file = "state.bin";
constexpr const char* ram_file = "ram.raw";
constexpr std::uint64_t state_file_bytes_max = 256ULL << 20U;

/// The directory, new or empty. True if it was made here.
Result<bool> make_directory(const std::string& directory) {
    if (::mkdir(directory.c_str(), 0700) == 0) {
        return true;
    }
    if (errno != EEXIST) {
        return Error::from_errno(errno, "create the directory '" + directory + "'");
    }
    std::error_code error;
    if (!std::filesystem::is_empty(directory, error) || error) {
        return Error(ErrorCode::already_exists,
                     "'" + directory +
                         "' is not an empty directory: name a new one for the snapshot");
    }
    return false;
}

void remove_snapshot(const std::string& directory, bool made_here) noexcept {
    for (const char* name : {spec_file, state_file, ram_file}) {
        ::unlink((directory + "/" + name).c_str());
    }
    if (made_here) {
        ::rmdir(directory.c_str());
    }
}

/// Makes the names in the directory durable, so that a snapshot that was reported is there after a
/// crash.
Status sync_directory(const std::string& directory) {
    const sys::Fd fd = GODWIT_TRY(sys::open(directory, O_RDONLY | O_DIRECTORY));
    if (::fsync(fd.raw()) != 0) {
        return Error::from_errno(errno, "make '" + directory + "' durable");
    }
    return ok();
}

Result<const sys::Fd*> ram_of(const machine::Resources& resources) {
    for (const machine::Resource& resource : resources) {
        if (resource.name == "ram") {
            return &resource.fd;
        }
    }
    return Error(ErrorCode::internal, "the machine has no RAM");
}

} // namespace

Result<SnapshotReport> write_snapshot(machine::Machine& machine,
                                      const std::string& directory,
                                      const SnapshotProgress& progress,
                                      const std::atomic<bool>& cancel) {
    const bool made_here = GODWIT_TRY(make_directory(directory));
    ScopeGuard undo([&] { remove_snapshot(directory, made_here); });
    const machine::Resources resources = GODWIT_TRY(machine.duplicate_resources());
    const sys::Fd* ram = GODWIT_TRY(ram_of(resources));
    const std::string state = GODWIT_TRY(machine.save()).encode();
    GODWIT_TRY(
        sys::write_file_atomically(directory + "/" + spec_file, machine::to_json(machine.spec())));
    GODWIT_TRY(sys::write_file_atomically(directory + "/" + state_file, state));
    const auto written = GODWIT_TRY(memory::write_ram_file(machine.memory(),
                                                           *ram,
                                                           directory + "/" + ram_file,
                                                           progress,
                                                           cancel,
                                                           machine.spec().memory.runs));
    GODWIT_TRY(sync_directory(directory));
    undo.commit();
    return SnapshotReport{.ram_bytes = written.ram_bytes,
                          .written_bytes = written.written_bytes,
                          .state_bytes = state.size()};
}

Result<Snapshot> read_snapshot(const std::string& directory) {
    const std::string spec_text =
        GODWIT_TRY(sys::read_file(directory + "/" + spec_file, machine::spec_json_bytes_max)
                       .with_context("'" + directory + "' is not a snapshot"));
    machine::MachineSpec spec = GODWIT_TRY(
        machine::parse_machine_spec(spec_text).with_context(directory + "/" + spec_file));
    const std::string state_text =
        GODWIT_TRY(sys::read_file(directory + "/" + state_file, state_file_bytes_max));
    if (spec.memory.kind == memory::RamKind::pool) {
        // Where it lay in a pool says nothing about this host; the snapshot's file is the RAM.
        spec.memory = {.bytes = spec.memory.bytes, .kind = memory::RamKind::memfd, .path = {}};
    }
    state::SavedState state =
        GODWIT_TRY(state::SavedState::decode(std::as_bytes(std::span(state_text)))
                       .with_context(directory + "/" + state_file));
    sys::Fd ram = GODWIT_TRY(sys::open(directory + "/" + ram_file, O_RDONLY));
    const std::uint64_t ram_bytes = GODWIT_TRY(sys::file_size(ram));
    if (ram_bytes != spec.memory.bytes) {
        return Error(ErrorCode::corrupt,
                     "'" + directory + "/" + ram_file + "' has " + std::to_string(ram_bytes) +
                         " bytes, the machine had " + std::to_string(spec.memory.bytes));
    }
    return Snapshot{.spec = std::move(spec), .state = std::move(state), .ram = std::move(ram)};
}

} // namespace godwit::vmm
