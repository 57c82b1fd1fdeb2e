#pragma once

/// The layers of one disk: its base, which may be moved, and deltas over it, each with what was
/// written since the one below was frozen.
///
///     virtio disk -> LayeredDevice -> OverlayDevice (youngest) -> .. -> MovingDevice -> image
///
/// Deltas are opened by the disk's first request, or open(): a successor must not touch them before
/// the guest is its own. Each opening stamps the delta with the next epoch and refuses one that
/// somebody else has opened meanwhile.
///
/// Thread rule: the disk's loop, but for what says "any thread".

#include "block/overlay/layered_device.h"
#include "block/overlay/overlay_device.h"
#include "machine/devices/delta_place.h"
#include "machine/machine.h"
#include "sys/alarm.h"
#include "sys/event_loop.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace godwit::machine {

/// A delta, for people and programs.
struct DeltaUse {
    std::string path;
    std::string snapshot;
    std::optional<block::OverlayStatus> status; ///< Empty: not open yet.
    std::uint64_t cluster_bytes = 0;
};
/// One JSON array, the oldest first.
[[nodiscard]] std::string to_json(const std::vector<DeltaUse>& deltas);

[[nodiscard]] std::string_view name_of(block::DeltaPressure pressure) noexcept;

class DiskLayers {
  public:
    /// Everything outlives the layers.
    struct Args {
        std::size_t index = 0;
        sys::EventLoop& loop;
        sys::AlarmClock& clock;
        const MachineEvents& events;
        std::uint32_t queue_depth = 128;
    };
    /// `images`: of each delta of `disk`, the oldest first. Reads headers only. Errors say which
    /// delta is not what the document says.
    [[nodiscard]] static Result<std::unique_ptr<DiskLayers>>
    create(const Args& args,
           const DiskSpec& disk,
           std::unique_ptr<block::BlockDevice> base,
           std::vector<sys::Fd> images);
    DiskLayers(const DiskLayers&) = delete;
    DiskLayers& operator=(const DiskLayers&) = delete;
    /// Once the device is gone, or with it.
    ~DiskLayers() = default;

    /// What lies under the guest. It may go before the layers, after abandon().
    [[nodiscard]] std::unique_ptr<block::BlockDevice> take_device() { return std::move(owned_); }
    [[nodiscard]] bool taken() const noexcept { return owned_ == nullptr; }
    /// Opens the deltas from the loop, if they are not.
    void open();
    /// The device is about to go: nothing is told any more.
    void abandon() noexcept;

    /// How long the guest's requests waited.
    using Frozen = std::move_only_function<void(Result<sys::Nanoseconds>)>;
    /// Freezes what there is; `disk` is how the document says it from now on, with the new delta.
    /// `frozen` comes on the loop.
    [[nodiscard]] Status freeze(const DiskSpec& disk, DeltaPlace& delta, Frozen frozen);
    [[nodiscard]] bool opened() const noexcept { return layered_->opened(); }
    /// The oldest first, once they are open.
    [[nodiscard]] const std::vector<block::OverlayDevice*>& overlays() const noexcept {
        return overlays_;
    }
    /// Takes all deltas away, which have been folded; `disk` is what the document says from then
    /// on. `changed` comes on the loop.
    [[nodiscard]] Status take_all_away(const DiskSpec& disk, Frozen changed);
    /// The journals say all that was written. `committed` comes on the loop, perhaps at once.
    void commit(std::move_only_function<void(Status)> committed);

    /// Any thread.
    [[nodiscard]] std::vector<DeltaUse> deltas() const;

  private:
    /// A delta that is not open.
    struct Closed {
        DeltaSpec spec;
        sys::Fd image;
        std::uint64_t epoch = 0; ///< That it has to have.
        std::optional<block::DeltaState> state;
    };
    explicit DiskLayers(const Args& args);
    [[nodiscard]] Status add_closed(const DiskSpec& disk, std::vector<sys::Fd> images);
    [[nodiscard]] Status open_all(std::unique_ptr<block::BlockDevice>& layers);
    [[nodiscard]] Status open_state(Closed& closed) const;
    [[nodiscard]] Result<std::unique_ptr<block::OverlayDevice>>
    overlay_of(const DeltaSpec& spec, const sys::Fd& image, block::DeltaState state);
    void tried(const Status& status);
    void pressure(const std::string& path, block::DeltaPressure now);
    [[nodiscard]] Status note(const DiskSpec& disk) const;
    void publish();

    Args args_;
    std::string name_;
    block::BlockGeometry geometry_;
    std::unique_ptr<block::LayeredDevice> owned_; ///< Until it is taken.
    block::LayeredDevice* layered_ = nullptr;
    std::vector<Closed> closed_;
    std::vector<block::OverlayDevice*> overlays_; ///< The oldest first.
    std::vector<DeltaSpec> specs_;                ///< Of `overlays_`.
    bool told_closed_ = false;
    bool abandoned_ = false;

    mutable std::mutex mutex_;
    std::vector<DeltaUse> published_; ///< Guarded by mutex_.

    std::unique_ptr<sys::Alarm> alarm_; ///< Last: it calls into this.
};

} // namespace godwit::machine
