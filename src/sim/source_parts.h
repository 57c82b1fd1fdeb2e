#pragma once

/// What the real engine is given in a simulation: a machine, carriers and a destination that take
/// simulated time, fail by seed and touch nothing once their process is dead. One run each.

#include "handover/engine.h"
#include "sim/vmm.h"

namespace godwit::sim {

/// Takes time and may fail, as the seed says; fails at once in a process that is dead.
[[nodiscard]] Status take_step(World& world, const Process& process, const VmmFaults& faults);

class SimulatedMachine final : public handover::SourceMachine {
  public:
    SimulatedMachine(World& world, Process& process, const VmmFaults& faults)
        : world_(world), process_(process), faults_(faults) {}
    [[nodiscard]] std::vector<std::string> blockers() const override { return {}; }
    Status quiesce(std::chrono::milliseconds limit) override;
    Status pause(std::chrono::milliseconds limit) override;
    Status resume() override;
    [[nodiscard]] sys::Moment stopped_at() const override { return stopped_at_; }

  private:
    World& world_;
    Process& process_;
    const VmmFaults& faults_;
    sys::Moment stopped_at_;
};

class SimulatedCarrier final : public handover::Carrier {
  public:
    SimulatedCarrier(World& world, Process& process, const VmmFaults& faults)
        : world_(world), process_(process), faults_(faults),
          rounds_(world.executor().dice().below(4)) {}
    [[nodiscard]] std::string_view resource() const noexcept override { return "memory"; }
    [[nodiscard]] std::vector<std::string> blockers() const override { return {}; }
    Status prepare() override { return take_step(world_, process_, faults_); }
    Result<handover::Remaining> sync() override;
    Status carry_at_rest() override { return take_step(world_, process_, faults_); }
    Status carry_paused() override { return take_step(world_, process_, faults_); }
    Status settle() override { return take_step(world_, process_, faults_); }
    void abort() noexcept override {}
    [[nodiscard]] handover::CarriedResource carried() const override {
        return {.resource = "memory", .carrier = "pointer"};
    }

  private:
    World& world_;
    Process& process_;
    const VmmFaults& faults_;
    std::uint64_t rounds_;
};

/// The other end of the link, as the engine sees it.
class SimulatedDestination final : public handover::Destination {
  public:
    SimulatedDestination(World& world, Process& process, LinkEnd& link, std::uint32_t epoch)
        : world_(world), process_(process), link_(link), epoch_(epoch) {}
    Status introduce(std::vector<std::string>& blockers,
                     std::chrono::milliseconds timeout) override;
    [[nodiscard]] std::string build_id() const override { return "simulated"; }
    Status prepare(std::chrono::milliseconds timeout) override;
    Status offer() override;
    Result<handover::Resumed> await_resumed(std::chrono::milliseconds timeout) override;
    Result<handover::Settled> settle(std::chrono::milliseconds timeout) override;
    void abort(const Error& reason) noexcept override;

  private:
    Status send(Packet packet);

    World& world_;
    Process& process_;
    LinkEnd& link_;
    const std::uint32_t epoch_;
    handover::InstanceId peer_;
};

} // namespace godwit::sim
