#include "base/units.h"
#include "block/overlay/layered_device.h"
#include "block/overlay/overlay_device.h"
#include "block/testing/guest_load.h"
#include "block/testing/overlay_world.h"
#include "block/testing/simulated_disk.h"
#include "block/testing/temporary_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <optional>

namespace godwit::block {
namespace {

using testing::GuestLoad;
using testing::Medium;
using testing::SimulatedDisk;
using testing::SimulatedDiskOptions;

using testing::delta_options_of;
using testing::MediumStorage;
using World = testing::OverlayWorld;

TEST(Overlay, guest_is_right_through_folds_failures_and_power_cuts) {
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
        ASSERT_EQ(testing::run_overlay_scenario(seed), "") << "seed " << seed;
    }
}

TEST(Overlay, small_journal_survives_many_checkpoints) {
    World world(1, 512, 100 * 4096);
    world.open();
    GuestLoad load(*world.device, world.time, world.oracle, {.depth = 3, .requests = 4000});
    bool folded = false;
    while (!load.finished()) {
        ASSERT_TRUE(world.time.step());
        if (world.device->status().waiting > 0 && !folded) {
            folded = true;
            ASSERT_TRUE(world.device->fold([](const Status&) {}).has_value());
        }
    }
    EXPECT_EQ(load.violation(), "");
}

TEST(Overlay, full_delta_holds_writes_and_a_fold_lets_them_go) {
    World world(1, 2000, 60 * 4096);
    world.open({}, {.throttle_max = std::chrono::milliseconds(1)});
    GuestLoad load(*world.device,
                   world.time,
                   world.oracle,
                   {.depth = 2, .requests = 400, .writes_per_hundred = 80});
    while (world.time.step()) {
    }
    EXPECT_FALSE(load.finished());
    EXPECT_EQ(load.errors(), 0U);
    EXPECT_EQ(world.device->status().waiting, 2U);
    EXPECT_EQ(world.pressures, (std::vector{DeltaPressure::high, DeltaPressure::full}));
    EXPECT_EQ(world.base.written_bytes, 0U);
    std::optional<Status> folded;
    ASSERT_TRUE(
        world.device->fold([&](Status status) { folded.emplace(std::move(status)); }).has_value());
    while (!load.finished() || !folded.has_value()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_TRUE(folded->has_value());
    EXPECT_EQ(load.errors(), 0U);
    EXPECT_EQ(load.violation(), "");
    EXPECT_EQ(world.device->status().clusters_mapped, 0U);
}

TEST(Overlay, layers_change_under_a_guest_and_back) {
    World world(1, 512, 200 * 4096);
    const auto layered = GODWIT_MUST(LayeredDevice::create( // Simulated alarms.
        std::make_unique<SimulatedDisk>(world.base, world.time, SimulatedDiskOptions{}),
        world.time,
        {}));
    LayeredDevice& disk = *layered;
    GuestLoad load(disk, world.time, world.oracle, {.depth = 4, .requests = 600});
    while (world.time.steps() < 300) {
        ASSERT_TRUE(world.time.step());
    }
    MediumStorage storage(world.delta);
    DeltaState state = GODWIT_MUST(open_delta(storage, 3)); // Just created.
    OverlayDevice* overlay = nullptr;
    const auto frozen = [&](std::unique_ptr<BlockDevice>& layers) -> Status {
        auto made = GODWIT_MUST(OverlayDevice::create( // Sizes fit; simulated alarms.
            std::move(layers),
            std::make_unique<SimulatedDisk>(world.delta, world.time, SimulatedDiskOptions{}),
            std::move(state),
            world.time,
            {},
            {}));
        overlay = made.get();
        layers = std::move(made);
        return ok();
    };
    std::uint64_t written = 0;
    ASSERT_TRUE(disk.change(frozen,
                            [&](const Status& status) {
                                ASSERT_TRUE(status.has_value());
                                written = world.base.written_bytes;
                            })
                    .has_value());
    while (overlay == nullptr || world.time.steps() < 900) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_EQ(world.base.written_bytes, written); // LS-2, LS-3
    bool whole = false;
    ASSERT_TRUE(overlay
                    ->fold([&](const Status& folded) {
                        ASSERT_TRUE(folded.has_value());
                        whole = true;
                    })
                    .has_value());
    while (!whole) {
        ASSERT_TRUE(world.time.step());
    }
    std::unique_ptr<BlockDevice> left;
    ASSERT_TRUE(disk.change(
                        [&](std::unique_ptr<BlockDevice>& layers) {
                            auto base = overlay->take_base();
                            left = std::exchange(layers, std::move(base));
                            return ok();
                        },
                        [](const Status&) {})
                    .has_value());
    while (!load.finished()) {
        ASSERT_TRUE(world.time.step());
    }
    EXPECT_EQ(load.violation(), "");
    EXPECT_EQ(disk.description(), "simulated disk");
    EXPECT_EQ(world.oracle.check(0, world.base.current, world.oracle.now()), "");
}

// --- the format ---

TEST(DeltaFormat, new_delta_costs_the_same_for_every_disk) {
    std::array<std::uint64_t, 4> written{};
    std::size_t place = 0;
    for (const std::uint64_t disk_bytes : {gib, 16 * gib, 128 * gib, 1024 * gib}) {
        Medium medium(4 * mib);
        MediumStorage storage(medium);
        ASSERT_TRUE(create_delta(storage, {.disk_bytes = disk_bytes}).has_value());
        ASSERT_TRUE(open_delta(storage, 1).has_value());
        written[place++] = storage.written;
    }
    EXPECT_LE(written[0], 16 * kib); // LS-1
    EXPECT_EQ(written[0], written[3]);
}

TEST(DeltaFormat, higher_epoch_refuses_a_stale_owner) {
    Medium medium(mib);
    MediumStorage storage(medium);
    ASSERT_TRUE(create_delta(storage, delta_options_of(mib)).has_value());
    ASSERT_TRUE(open_delta(storage, 7).has_value());
    const auto stale = open_delta(storage, 6);
    ASSERT_FALSE(stale.has_value());
    EXPECT_EQ(stale.error().code(), ErrorCode::conflict);
    EXPECT_EQ(check_delta(storage)->header.epoch, 7U);
}

TEST(DeltaFormat, every_changed_byte_of_a_header_is_noticed) {
    const DeltaBlock block = encode(
        DeltaHeader{.disk_bytes = mib, .slots = 100, .data_offset = mib, .journal_blocks = 18});
    ASSERT_TRUE(decode_delta_header(block).has_value());
    for (std::size_t i = 0; i < block.size(); i += 7) {
        DeltaBlock changed = block;
        changed[i] ^= std::byte{0x10};
        EXPECT_FALSE(decode_delta_header(changed).has_value()) << i;
    }
}

TEST(DeltaFormat, entries_that_lead_astray_are_corrupt) {
    for (const DeltaEntry& entry : {DeltaEntry{.cluster = 256, .slot = 0, .count = 1},
                                    DeltaEntry{.cluster = 0, .slot = 0, .count = 0},
                                    DeltaEntry{.cluster = 255, .slot = 0, .count = 2},
                                    DeltaEntry{.cluster = 0, .slot = 0xfffffffe, .count = 1},
                                    DeltaEntry{.cluster = 1, .slot = 5, .count = 1}}) {
        Medium medium(mib);
        MediumStorage storage(medium);
        ASSERT_TRUE(create_delta(storage, delta_options_of(mib)).has_value());
        const DeltaHeader header = check_delta(storage)->header;
        // Cluster 7 lies in slot 5 already.
        const std::array entries{DeltaEntry{.cluster = 7, .slot = 5, .count = 1}, entry};
        ASSERT_TRUE(storage.write(header.journal_place(0), encode(header, 0, entries)).has_value());
        const auto checked = check_delta(storage);
        ASSERT_FALSE(checked.has_value());
        EXPECT_EQ(checked.error().code(), ErrorCode::corrupt);
    }
}

TEST(DeltaFormat, journal_ends_at_a_torn_block) {
    Medium medium(mib);
    MediumStorage storage(medium);
    ASSERT_TRUE(create_delta(storage, delta_options_of(mib)).has_value());
    const DeltaHeader header = check_delta(storage)->header;
    for (std::uint64_t i = 0; i < 3; ++i) {
        const std::array entries{
            DeltaEntry{.cluster = i, .slot = static_cast<std::uint32_t>(i), .count = 1}};
        ASSERT_TRUE(storage.write(header.journal_place(i), encode(header, i, entries)).has_value());
    }
    EXPECT_EQ(check_delta(storage)->clusters_mapped, 3U);
    medium.current[header.journal_place(1) + 70] ^= std::byte{1};
    EXPECT_EQ(check_delta(storage)->clusters_mapped, 1U);
}

/// Refuses headers, as if the power went before one was there.
class HeaderlessStorage final : public DeltaStorage {
  public:
    explicit HeaderlessStorage(DeltaStorage& below) : below_(below) {}
    Result<std::uint64_t> bytes() override { return below_.bytes(); }
    Status read(std::uint64_t offset, std::span<std::byte> out) override {
        return below_.read(offset, out);
    }
    Status write(std::uint64_t offset, std::span<const std::byte> data) override {
        return offset < delta_journal_offset ? Status(Error(ErrorCode::io, "no power"))
                                             : below_.write(offset, data);
    }
    Status flush() override { return below_.flush(); }

  private:
    DeltaStorage& below_;
};

/// Every second cluster from `first` on, so that none joins another in a checkpoint.
std::vector<DeltaEntry> apart(std::uint32_t first, std::uint32_t count, bool mapped) {
    std::vector<DeltaEntry> entries;
    for (std::uint32_t i = first; i < first + count; ++i) {
        entries.push_back({.cluster = 2ULL * i, .slot = mapped ? i : DeltaMap::none, .count = 1});
    }
    return entries;
}

TEST(DeltaFormat, checkpoint_that_a_crash_left_unnamed_never_counts) {
    Medium medium(4 * mib);
    MediumStorage storage(medium);
    ASSERT_TRUE(create_delta(storage, delta_options_of(4 * mib)).has_value());
    const DeltaHeader header = check_delta(storage)->header;
    std::uint64_t index = 0;
    const auto append = [&](const std::vector<DeltaEntry>& entries) {
        const DeltaBlock block = encode(header, index, entries);
        ASSERT_TRUE(storage.write(header.journal_place(index++), block).has_value());
    };
    append(apart(0, 250, true));
    append(apart(250, 100, true));
    HeaderlessStorage dying(storage);
    ASSERT_FALSE(open_delta(dying, 3).has_value()); // Two blocks of a checkpoint are there.
    append(apart(150, 200, false));
    ASSERT_EQ(check_delta(storage)->clusters_mapped, 150U);
    ASSERT_TRUE(open_delta(storage, 3).has_value()); // Makes one of one block.
    const auto again = open_delta(storage, 3);
    ASSERT_TRUE(again.has_value()) << again.error().to_string();
    EXPECT_EQ(again->map.count(), 150U);
}

TEST(DeltaFormat, damaged_checkpoint_is_corrupt_and_not_an_empty_disk) {
    Medium medium(mib);
    MediumStorage storage(medium);
    ASSERT_TRUE(create_delta(storage, delta_options_of(mib)).has_value());
    DeltaHeader header = check_delta(storage)->header;
    const std::array entries{DeltaEntry{.cluster = 7, .slot = 5, .count = 3}};
    ASSERT_TRUE(storage.write(header.journal_place(0), encode(header, 0, entries)).has_value());
    header = GODWIT_MUST(open_delta(storage, 3)).header; // Just laid out.
    medium.current[header.journal_place(0) + 70] ^= std::byte{1};
    const auto checked = check_delta(storage);
    ASSERT_FALSE(checked.has_value());
    EXPECT_EQ(checked.error().code(), ErrorCode::corrupt);
    EXPECT_FALSE(open_delta(storage, 3).has_value());
}

TEST(DeltaFormat, new_deltas_have_names_of_their_own) {
    std::array<SnapshotId, 2> ids{};
    for (SnapshotId& id : ids) {
        Medium medium(mib);
        MediumStorage storage(medium);
        ASSERT_TRUE(create_delta(storage, delta_options_of(mib)).has_value());
        id = check_delta(storage)->header.snapshot_id;
    }
    EXPECT_NE(ids[0], ids[1]);
    EXPECT_NE(ids[0], SnapshotId{});
}

TEST(DeltaFormat, file_without_room_is_refused_and_one_cut_short_is_corrupt) {
    const auto image = GODWIT_MUST(testing::TemporaryImage::create("/dev/shm", 64 * kib)); // Room.
    const sys::Fd fd = GODWIT_MUST(sys::open(image.path(), O_RDWR));                       // Made.
    DeltaFile small(fd);
    const Status refused = create_delta(small, delta_options_of(mib));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code(), ErrorCode::resource_exhausted);
    ASSERT_EQ(::ftruncate(fd.raw(), static_cast<off_t>(mib)), 0);
    ASSERT_TRUE(create_delta(small, delta_options_of(mib)).has_value());
    ASSERT_TRUE(open_delta(small, 1).has_value() == false); // Epoch 3.
    ASSERT_TRUE(open_delta(small, 3).has_value());
    ASSERT_EQ(::ftruncate(fd.raw(), static_cast<off_t>(512 * kib)), 0);
    EXPECT_EQ(check_delta(small).error().code(), ErrorCode::corrupt);
}

} // namespace
} // namespace godwit::block
