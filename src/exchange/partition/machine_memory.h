#pragma once

/// The memory of one machine on its way from the old hypervisor instance to this one, for the
/// destination of its exchange: a list of extents in the shared region, claimed by compare-and-swap
/// (requirements MP-2, MP-3, MP-7). It works on the pool's table and the region alone and sends no
/// message: that is for the instance. The destination's thread only.

#include "exchange/destination.h"
#include "exchange/partition/program_mover.h"

#include <memory>

namespace godwit::exchange::partition {

/// Which machine, and where everything is; descriptors as the instance handed them over.
struct OfferedMachine {
    sys::Fd pool_memory;
    sys::Fd pool_table;
    sys::Fd region;
    std::uint32_t slot = 0;
    std::uint32_t epoch = 0; ///< Of the offer.
};

class MachineMemory final : public ForeignMemory {
  public:
    /// corrupt unless pool and region are sound and belong together.
    [[nodiscard]] static Result<std::unique_ptr<MachineMemory>> create(OfferedMachine offered,
                                                                       const sys::Clock& clock);

    [[nodiscard]] Status check(const machine::MachineSpec& spec) override;
    [[nodiscard]] Status claim() override;
    [[nodiscard]] Status take() override;
    void give_back() noexcept override;

  private:
    MachineMemory(memory::Pool pool, Region region, const News& offer, const sys::Clock& clock)
        : pool_(std::move(pool)), region_(std::move(region)), offer_(offer), clock_(clock) {}
    memory::Pool pool_;
    Region region_;
    News offer_;
    const sys::Clock& clock_;
    std::optional<ProgramMover> mover_; ///< On the two above.
    std::optional<Taken> taken_;
};

} // namespace godwit::exchange::partition
