#pragma once

/// The bus interfaces of device models on KVM: interrupt lines, MSI vectors (irqfd), doorbells
/// (ioeventfd). Thread rules as in bus/bus.h. All refer to a kvm::Vm that outlives them.

#include "bus/bus.h"
#include "kvm/vm.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace godwit::machine {

class KvmIrqLine final : public bus::IrqLine {
  public:
    KvmIrqLine(const kvm::Vm& vm, Gsi gsi) : vm_(vm), gsi_(gsi) {}
    void set(bool asserted) noexcept override;

  private:
    const kvm::Vm& vm_;
    Gsi gsi_;
    std::mutex mutex_; ///< Held over the ioctl, so that two changes cannot overtake each other.
    bool asserted_ = false; ///< Guarded by mutex_.
};

/// The machine's one table of interrupt routes: the PC's lines and all MSI vectors. Setting it
/// costs an SRCU grace period, so a restore holds changes back and sets the table once.
class KvmMsiRouter final : public bus::MsiRouter {
  public:
    static constexpr std::uint32_t first_msi_gsi = 24; ///< After the IOAPIC's pins.
    static constexpr std::size_t vectors_max = 2048;

    /// Sets the table with the PC's lines alone.
    [[nodiscard]] static Result<std::unique_ptr<KvmMsiRouter>> create(const kvm::Vm& vm);
    [[nodiscard]] Result<std::unique_ptr<bus::MsiVector>> create_vector() override;

    /// From here on routes are only remembered, until commit() sets them all.
    void hold();
    [[nodiscard]] Status commit();

  private:
    class Vector;
    explicit KvmMsiRouter(const kvm::Vm& vm) : vm_(vm) {}
    [[nodiscard]] Status route(std::size_t index, const bus::MsiMessage& message);
    [[nodiscard]] Status set_table() const;

    const kvm::Vm& vm_;
    std::mutex mutex_;
    /// Entry i is GSI first_msi_gsi + i; numbers are not reused. Guarded by mutex_.
    std::vector<std::optional<bus::MsiMessage>> routes_;
    bool held_ = false; ///< Guarded by mutex_.
};

class KvmDoorbells final : public bus::DoorbellRegistrar {
  public:
    explicit KvmDoorbells(const kvm::Vm& vm) : vm_(vm) {}
    [[nodiscard]] Status add(Gpa address, const sys::EventFd& event) override;
    void remove(Gpa address, const sys::EventFd& event) noexcept override;
    /// The VM goes, and every doorbell with it: removing them one by one would cost a grace period
    /// each. No vCPU runs any more.
    void end() noexcept { ending_ = true; }

  private:
    const kvm::Vm& vm_;
    std::atomic<bool> ending_{false};
};

} // namespace godwit::machine
