#pragma once

/// For tests and simulations: a frozen disk, its delta and what a guest may find there, on
/// simulated disks; and one run of all that by a seed. One thread.

#include "block/overlay/overlay_device.h"
#include "block/testing/block_oracle.h"
#include "block/testing/simulated_disk.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::block::testing {

inline constexpr std::uint32_t overlay_block_bytes = 512;
inline constexpr std::uint32_t overlay_cluster_bytes = 4096;

/// A medium for what waits; what is written is durable at once.
class MediumStorage final : public DeltaStorage {
  public:
    explicit MediumStorage(Medium& medium) : medium_(medium) {}
    Result<std::uint64_t> bytes() override { return medium_.current.size(); }
    Status read(std::uint64_t offset, std::span<std::byte> out) override {
        std::copy_n(
            medium_.current.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
        return ok();
    }
    Status write(std::uint64_t offset, std::span<const std::byte> data) override {
        written += data.size();
        for (std::vector<std::byte>* copy : {&medium_.current, &medium_.durable}) {
            std::ranges::copy(data, copy->begin() + static_cast<std::ptrdiff_t>(offset));
        }
        return ok();
    }
    Status flush() override { return ok(); }
    std::uint64_t written = 0;

  private:
    Medium& medium_;
};

[[nodiscard]] inline DeltaOptions delta_options_of(std::uint64_t disk_bytes) {
    return {.disk_bytes = disk_bytes, .cluster_bytes = overlay_cluster_bytes, .epoch = 3};
}

/// A frozen disk, its delta and a guest, by seed.
class OverlayWorld {
  public:
    OverlayWorld(std::uint64_t seed, std::uint64_t blocks, std::uint64_t delta_bytes)
        : time(seed), base(blocks * overlay_block_bytes), delta(delta_bytes),
          oracle(blocks, overlay_block_bytes), storage_(delta) {
        GODWIT_MUST(create_delta(storage_, delta_options_of(base.current.size()))); // Room.
    }
    /// As after a start of the machine.
    void open(SimulatedDiskOptions disk = {}, OverlayOptions options = {}) {
        DeltaState state = GODWIT_MUST(open_delta(storage_, 3)); // Ours.
        auto base_disk = std::make_unique<SimulatedDisk>(base, time, disk);
        auto delta_disk = std::make_unique<SimulatedDisk>(delta, time, disk);
        base_disk_ = base_disk.get();
        delta_disk_ = delta_disk.get();
        device = GODWIT_MUST(OverlayDevice::create( // Sizes fit; simulated alarms.
            std::move(base_disk),
            std::move(delta_disk),
            std::move(state),
            time,
            options,
            {.pressure = [this](DeltaPressure now) { pressures.push_back(now); }}));
    }
    [[nodiscard]] SimulatedDisk& base_disk() noexcept { return *base_disk_; }
    [[nodiscard]] SimulatedDisk& delta_disk() noexcept { return *delta_disk_; }
    /// To its end; whether it succeeded.
    bool run(BlockRequest& request, const std::optional<Status>& outcome) {
        device->submit(request);
        device->kick();
        while (!outcome.has_value()) {
            GODWIT_ASSERT(time.step());
        }
        return outcome->has_value();
    }
    /// What a reader finds of a byte of the disk.
    [[nodiscard]] std::byte byte_at(std::uint64_t place) {
        return view_of(GODWIT_MUST(open_delta(storage_, 3)))[place]; // Ours.
    }
    void cut_power() {
        base_disk_->cut_power();
        delta_disk_->cut_power();
    }
    /// What is wrong with what a reader finds, now and once more.
    [[nodiscard]] std::string check_after_cut();

    SimulatedTime time;
    Medium base;
    Medium delta;
    BlockOracle oracle;
    std::vector<DeltaPressure> pressures;
    std::unique_ptr<OverlayDevice> device;

  private:
    [[nodiscard]] std::vector<std::byte> view_of(const DeltaState& state) const;

    MediumStorage storage_;
    SimulatedDisk* base_disk_ = nullptr;
    SimulatedDisk* delta_disk_ = nullptr;
};

/// A guest writes, the delta may be folded, devices may fail, the power may be cut. What is wrong;
/// empty if every read was right, the base stayed as it was until a fold, a fold left nothing
/// behind, and after a power cut what was durable is there.
[[nodiscard]] std::string run_overlay_scenario(std::uint64_t seed);

} // namespace godwit::block::testing
