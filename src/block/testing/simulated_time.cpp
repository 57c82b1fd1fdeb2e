#include "block/testing/simulated_time.h"

#include <optional>
#include <utility>

namespace godwit::block::testing {

class SimulatedTime::SimulatedAlarm final : public sys::Alarm {
  public:
    SimulatedAlarm(SimulatedTime& time, std::move_only_function<void()> ring)
        : time_(time), ring_(std::move(ring)) {}
    SimulatedAlarm(const SimulatedAlarm&) = delete;
    SimulatedAlarm& operator=(const SimulatedAlarm&) = delete;
    ~SimulatedAlarm() override { remove(); }

    void set(sys::Moment when) noexcept override {
        remove();
        place_ =
            time_.set_.emplace(Due{.when = std::max(when, time_.now_), .lot = time_.dice_()}, this);
    }
    void clear() noexcept override { remove(); }
    void ring() {
        remove();
        ring_();
    }

  private:
    void remove() noexcept {
        if (place_.has_value()) {
            time_.set_.erase(*std::exchange(place_, std::nullopt));
        }
    }

    SimulatedTime& time_;
    std::move_only_function<void()> ring_;
    std::optional<std::multimap<Due, SimulatedAlarm*>::iterator> place_;
};

Result<std::unique_ptr<sys::Alarm>>
SimulatedTime::create_alarm(std::move_only_function<void()> ring) {
    return std::unique_ptr<sys::Alarm>(new SimulatedAlarm(*this, std::move(ring)));
}

bool SimulatedTime::step() {
    if (set_.empty()) {
        return false;
    }
    const auto next = set_.begin();
    now_ = std::max(now_, next->first.when);
    ++steps_;
    next->second->ring();
    return true;
}

} // namespace godwit::block::testing
