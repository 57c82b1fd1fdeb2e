#pragma once

/// A virtual machine on KVM: vCPU threads, platform devices, PCI and virtio devices over guest RAM.
///
/// Built completely and at rest by build(); then either boot() loads a kernel, or load() takes a
/// saved state. start() lets it run; pause() brings it back to rest. What must be quick in a
/// handover (pause, save, load, start) does no allocation-heavy or kernel-slow work: KVM objects,
/// threads, memory slots and mappings all exist after build().
///
/// Thread rule: one control thread calls everything; callbacks come on vCPU or I/O threads.

#include "base/result.h"
#include "block/move/disk_move_request.h"
#include "machine/disk_freeze_request.h"
#include "machine/machine_spec.h"
#include "machine/mirror.h"
#include "machine/stop_reason.h"
#include "machine/wiring.h"
#include "memory/guest_memory.h"
#include "state/saved_state.h"
#include "sys/clock.h"
#include "sys/cpu_placement.h"
#include "sys/fd.h"
#include "sys/time_line.h"

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct kvm_cpuid_entry2;

namespace godwit::machine {

/// The outside things a machine holds, each under a stable name ("ram", "disk0", "net0.0",
/// "net0.1"): opened by open_resources() for a new machine, or received from the previous owner in
/// a handover. Names and count are checked against the spec by build().
struct Resource {
    std::string name;
    sys::Fd fd;
};
using Resources = std::vector<Resource>;

/// Opens RAM, disks (with their locks) and taps of a new machine. Errors say what to do.
[[nodiscard]] Result<Resources> open_resources(const MachineSpec& spec);
/// The same without "ram", for a restored machine whose RAM comes from its snapshot.
[[nodiscard]] Result<Resources> open_resources_except_ram(const MachineSpec& spec);

/// Called on vCPU and I/O threads; must only hand the news on. Empty ones are left out.
struct MachineEvents {
    /// Once per machine; no vCPU runs on afterwards.
    StopSink stopped;
    /// Bytes the guest wrote to a console: port "serial" or "virtio". May not block.
    std::function<void(std::string_view port, std::span<const std::byte> bytes)> console_output;
    /// A port that refused input before can take some again. May be empty.
    std::function<void(std::string_view port)> console_ready;
    /// A disk's back end failed ("disk0", what happened): told once until a request succeeds again,
    /// and of a disk that comes and goes the 1st, 2nd, 4th, 8th ... time.
    std::function<void(std::string_view disk, std::string detail)> disk_error;
    /// A disk is about to lie at `now`, moved or with other deltas: notes that for good, before the
    /// guest goes on there. The only event that may take its time: that disk's guest requests wait.
    std::function<Status(std::size_t disk, const DiskSpec& now)> disk_moved;
    /// The move, merge or freeze of a disk ("disk0") is over, or a move stuck: settle_disks() is
    /// due.
    std::function<void(std::string_view disk)> disk_move_ended;
    /// A disk's delta fills up: "high", "full" (the guest's writes wait), or "low" again.
    std::function<void(std::string_view disk, std::string_view delta, std::string_view pressure)>
        disk_pressure;
};

/// How long devices and vCPUs may take to come to rest, unless said otherwise.
inline constexpr std::chrono::milliseconds rest_time_max{3'000};

enum class RamMapping : std::uint8_t {
    shared,
    private_copy,
    read_only, ///< Until grant().
};

/// How long the parts of a pause took, nanoseconds.
struct PauseTimes {
    std::int64_t quiesce_ns = 0;
    std::int64_t vcpus_ns = 0;
};

class Machine {
  public:
    /// Builds everything that needs no state. On failure nothing is left behind.
    [[nodiscard]] static Result<std::unique_ptr<Machine>> build(const MachineSpec& spec,
                                                                Resources resources,
                                                                RamMapping ram_mapping,
                                                                MachineEvents events,
                                                                const sys::Clock& clock);
    /// Builds what needs no right to change anything: KVM machine and vCPUs over RAM that is only
    /// mapped for reading (`ram` may be open for reading alone), no disk, no tap. grant() completes
    /// it (requirement HR-2).
    [[nodiscard]] static Result<std::unique_ptr<Machine>> build_without_rights(
        const MachineSpec& spec, sys::Fd ram, MachineEvents events, const sys::Clock& clock);
    /// All resources of a machine built without rights: RAM is mapped for writing at the addresses
    /// KVM knows already, back ends are made. Must be the same RAM.
    [[nodiscard]] Status grant(Resources resources);
    /// Page tables filled before the guest comes, so that it does not fault at each page it had.
    struct Warmth {
        std::uint64_t bytes = 0;   ///< Of RAM mapped in this process.
        bool second_level = false; ///< KVM's own tables are filled too; needs support of the host.
    };
    /// Fills them for what RAM holds, for at most `limit`. Once it has its rights, at rest.
    [[nodiscard]] Result<Warmth> warm(std::chrono::milliseconds limit);
    /// As warm() for this process's tables, to be called on any one thread while the guest runs.
    /// The value of the call is how many bytes are mapped by then.
    using Fetch = std::move_only_function<Result<std::uint64_t>()>;
    [[nodiscard]] Result<Fetch> prepare_fetch(std::chrono::milliseconds limit) const;
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;
    ~Machine();

    /// Loads kernel, initrd, command line and tables; sets the first vCPU at the entry point.
    [[nodiscard]] Status boot();
    /// Takes a saved state into a freshly built machine. If it fails the machine can only be
    /// destroyed. A section that is newer than this build is refused by name before anything else.
    enum class ClockPolicy : std::uint8_t {
        running, ///< Handover: guest clocks never stood still (same host).
        frozen,  ///< Snapshot: guest clocks continue where they stopped.
    };
    struct LoadOptions {
        ClockPolicy clock = ClockPolicy::running;
        /// PCI bus and functions are those of preload_devices(), and the state has none; else the
        /// state has them, and what was loaded before is given up.
        bool devices_ahead = false;
        /// The guest goes on within seconds of its stop: its watchdogs need not be told.
        bool starts_at_once = false;
        /// Done while the vCPUs take their state; its error is that of load().
        std::function<Status()> meanwhile;
        sys::TimeLine* times = nullptr; ///< Told what took how long.
    };
    [[nodiscard]] Status load(state::SavedState state, const LoadOptions& options);

    /// The vCPUs' state while the guest runs: each leaves it for a moment. Good for preload() only.
    [[nodiscard]] Result<state::SavedState> preview() const;
    /// Sets of a preview what does nothing yet, in a machine that has neither booted nor loaded, so
    /// that load() has less to do. Refuses what load() would refuse.
    [[nodiscard]] Status preload(state::SavedState preview);
    /// The PCI bus and its functions while the guest may still run: after quiesce_devices() only
    /// the guest itself changes them, which a later save() shows. Good for preload_devices() only.
    struct DevicesAtRest {
        state::SavedState state;
        std::uint64_t exits = 0; ///< vCPU exits served before.
    };
    [[nodiscard]] Result<DevicesAtRest> save_devices() const;
    /// After a pause: the guest has reached no device since save_devices(), so that save() need not
    /// write the PCI bus and its functions once more.
    [[nodiscard]] bool untouched_since(const DevicesAtRest& devices) const noexcept;
    /// Loads them into a machine that has neither booted nor loaded. May be repeated: the last
    /// counts, at the price of making the back ends anew. They stay at rest.
    [[nodiscard]] Status preload_devices(state::SavedState saved);
    /// What stands here of a machine that runs elsewhere or is about to: equal on both sides, if
    /// `wiring` is the one that was prepared (requirement HR-4).
    [[nodiscard]] Result<MirrorDigest> mirror(const Wiring& wiring) const;
    /// The wiring KVM has been given.
    [[nodiscard]] Wiring wired() const;
    /// Where interrupts and doorbells of the devices go at present. Any thread, also while the
    /// guest runs.
    [[nodiscard]] Wiring wiring() const;
    /// Prepares that wiring in a machine that has neither booted nor loaded. May be repeated. From
    /// here on, until start(), device threads rest and the calling thread does their work: load()
    /// and start() must be called by it.
    [[nodiscard]] Status prewire(const Wiring& wiring);

    /// A section save() is going to write.
    struct PlannedSection {
        state::SectionId id;
        std::uint32_t version = 0;
        friend bool operator==(const PlannedSection&, const PlannedSection&) = default;
    };
    /// All of them, in order; none before boot() or load().
    [[nodiscard]] std::vector<PlannedSection> planned_sections() const;
    /// What this build reads (checked before the pause, X-8).
    [[nodiscard]] static std::span<const state::SectionType> known_sections() noexcept;
    /// Reasons against saving this machine, each with what to do, asked while it runs; empty if
    /// none.
    [[nodiscard]] std::vector<std::string> save_blockers() const;

    /// The processor its first vCPU was given (check_cpuid in machine/cpuid.h).
    [[nodiscard]] std::span<const kvm_cpuid_entry2> cpuid() const noexcept;

    /// Lets devices and vCPUs run. Idempotent.
    [[nodiscard]] Status start();
    /// First half of a pause, while the guest still runs: devices finish what is in flight. timeout
    /// naming the device that has not after `limit`; then all of them work on.
    [[nodiscard]] Status quiesce_devices(std::chrono::milliseconds limit = rest_time_max);
    /// Second half: vCPUs leave the guest with pending exits completed. Calls
    /// quiesce_devices() first if that has not happened. timeout naming who is not at rest after
    /// `limit`; then the guest runs on. Idempotent.
    [[nodiscard]] Status pause(std::chrono::milliseconds limit = rest_time_max);
    /// The same, and vCPUs read their own state on the way, all at once: the next save(), which
    /// follows before anything reaches the machine, takes it. Also of a machine at rest.
    /// Until start() or stay_paused(), which the same thread must call unless the machine goes,
    /// device threads rest.
    [[nodiscard]] Status pause_to_save(std::chrono::milliseconds limit = rest_time_max);
    /// The calling thread keeps off the CPUs of the vCPUs, as far as it can, until what this
    /// returns goes: beside them it can do the work of those whose thread must wait.
    [[nodiscard]] sys::StayOffCpus stay_off_vcpus() const;
    /// After pause_to_save(), of a machine that is not started again for now.
    void stay_paused() noexcept;
    [[nodiscard]] bool running() const noexcept;
    /// Everything a new owner needs besides RAM and resources; at rest only.
    enum class Save : std::uint8_t {
        all,
        without_functions, ///< PCI bus and functions went ahead.
    };
    [[nodiscard]] Result<state::SavedState> save(Save what = Save::all) const;
    /// CLOCK_MONOTONIC when the last vCPU left the guest in the last pause().
    [[nodiscard]] sys::Moment vcpus_stopped_at() const noexcept;
    /// CLOCK_MONOTONIC just before the first vCPU entered the guest after the last start(). Waits
    /// for that moment, which start() itself does not; zero while the machine is paused.
    [[nodiscard]] sys::Moment first_entry_at() const noexcept;

    /// Whether the RAM is that of the resource "ram", or a copy of it that only this process has.
    [[nodiscard]] RamMapping ram_mapping() const noexcept;
    /// Duplicates of every resource, for a handover.
    [[nodiscard]] Result<Resources> duplicate_resources() const;
    [[nodiscard]] memory::GuestMemory& memory() noexcept;
    [[nodiscard]] const MachineSpec& spec() const noexcept;
    /// JSON object with counters of vCPUs and devices, for `godwit info`.
    [[nodiscard]] std::string statistics_json() const;

    /// Input for a console port ("serial", "virtio"); returns how many bytes were taken, the rest
    /// may be offered again when console_ready is called.
    [[nodiscard]] std::size_t console_input(std::string_view port,
                                            std::span<const std::byte> bytes);
    /// ACPI power button; the guest may obey.
    [[nodiscard]] Status press_power_button();
    /// Asks a disk's back end for its new size and tells the guest ("disk0").
    [[nodiscard]] Status refresh_disk(std::string_view disk);
    /// Begins to move a disk while the guest uses it. The machine is not saved before the move is
    /// over and settled. The value names the move in disks_json().
    [[nodiscard]] Result<std::uint64_t> start_disk_move(const block::DiskMoveRequest& request);
    /// Brings a disk back to where it was, or ends a merge where it is; conflict when it is too
    /// late.
    [[nodiscard]] Status cancel_disk_move(std::string_view disk);
    /// Freezes a disk: from now on what the guest writes goes to a new delta. `frozen` comes once
    /// that is settled, within settle_disks(), unless an error is returned here.
    using DiskFrozen = std::move_only_function<void(Result<DiskFreezeReport>)>;
    [[nodiscard]] Status freeze_disk(const DiskFreezeRequest& request, DiskFrozen frozen);
    /// Begins to merge all deltas of a disk into its base. The value names it in disks_json().
    [[nodiscard]] Result<std::uint64_t> start_disk_merge(std::string_view disk);
    /// A move, a merge or a freeze that is not settled.
    enum class DiskWork : std::uint8_t { move, merge, freeze };
    struct DiskMoving {
        DiskWork work = DiskWork::move;
        std::string disk;
        std::string destination; ///< Of a move.
        bool stuck = false; ///< Neither side is complete, and it does not get better by itself.
        bool safe = true;   ///< The source is complete should this process end now.
    };
    [[nodiscard]] std::vector<DiskMoving> disks_moving() const;
    /// Of what is over: the machine's description and resources say where the disk lies now, what
    /// is not needed any more is closed, and a file that was made in vain, or is merged, goes.
    struct DiskSettled {
        std::string disk;
        DiskWork work = DiskWork::move;
    };
    std::vector<DiskSettled> settle_disks();
    /// JSON array: where each disk lies, its size, its present and last move.
    [[nodiscard]] std::string disks_json() const;
    /// Target size of the balloon in bytes (multiple of 4096).
    [[nodiscard]] Status set_balloon(std::uint64_t bytes);

  private:
    enum class Collect : std::uint8_t { nothing, vcpu_state };
    [[nodiscard]] Status stop_vcpus(sys::Moment deadline, Collect collect);
    struct Impl;
    explicit Machine(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace godwit::machine
