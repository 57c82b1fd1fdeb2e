#pragma once

/// Finds out by which scheme a disk is moved at the least cost ("auto"): watches the guest for a
/// second at most, measures both devices, estimates every scheme. lr is estimated but never chosen:
/// it has to be asked for by name.
///
/// Thread rule: the disk's loop.

#include "block/move/estimate.h"
#include "block/move/moving_device.h"
#include "block/move/speed_probe.h"
#include "sys/alarm.h"

#include <functional>
#include <memory>
#include <optional>
#include <string_view>

namespace godwit::block {

/// What is known of both devices and the guest, and what follows from it.
struct SchemeFindings {
    MoveSituation situation;
    Estimates estimates{};
    SchemeChoice choice;
};

/// How much writing wears the device below an open image: 1 for flash and what is unknown, 0 for
/// memory and turning disks.
[[nodiscard]] double wear_weight_of(const sys::Fd& image);

class SchemeChooser {
  public:
    /// The guest is watched until so many requests of it were seen, or for so long.
    static constexpr std::uint64_t enough_requests = 200;
    static constexpr std::chrono::milliseconds watching_time{1'000};
    static constexpr std::chrono::milliseconds look_period{100};

    struct Args {
        MovingDevice& disk;
        BlockDevice& destination;
        sys::AlarmClock& clock;
        double gamma = 0.5;
        std::uint64_t limit_bytes_per_second = 0;
        double source_wear = 0;
        double destination_wear = 0;
    };
    using Answer = std::move_only_function<void(Result<SchemeFindings>)>;

    explicit SchemeChooser(const Args& args);
    SchemeChooser(const SchemeChooser&) = delete;
    SchemeChooser& operator=(const SchemeChooser&) = delete;
    ~SchemeChooser() = default;

    /// The answer comes on the loop, once, never from within this call.
    [[nodiscard]] Status start(Answer answer);
    /// The answer will be an error, as soon as nothing is on its way.
    void stop();
    /// The devices are about to go; no answer follows.
    void abandon() noexcept;
    /// What it is doing, for people.
    [[nodiscard]] std::string_view phase() const noexcept;

  private:
    enum class Step : std::uint8_t { watching, measuring_destination, measuring_source };
    void look();
    void watched();
    void measured(Result<DeviceSpeed> speed);
    void finish(Result<SchemeFindings> findings);

    Args args_;
    Answer answer_;
    Step step_ = Step::watching;
    bool stopped_ = false;
    MoveSituation situation_;
    GuestTraffic before_;
    sys::Moment watched_since_;
    std::optional<SpeedProbe> probe_;
    std::unique_ptr<sys::Alarm> alarm_;
};

} // namespace godwit::block
