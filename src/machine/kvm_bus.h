#pragma once

/// The bus interfaces of device models on KVM: interrupt lines, MSI vectors (irqfd), doorbells
/// (ioeventfd). Thread rules as in bus/bus.h. All refer to a kvm::Vm that outlives them.

#include "bus/bus.h"
#include "kvm/vm.h"
#include "machine/wiring.h"

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

    /// Sets the table with the PC's lines alone.
    [[nodiscard]] static Result<std::unique_ptr<KvmMsiRouter>> create(const kvm::Vm& vm);
    [[nodiscard]] Result<std::unique_ptr<bus::MsiVector>> create_vector() override;

    /// Connects vectors in advance and sets their routes: create_vector() hands them out in order.
    /// Again with another table: only routes change, and vectors are added.
    [[nodiscard]] Status prewire(const std::vector<std::optional<bus::MsiMessage>>& routes);
    /// Once the owners of all vectors have given them up: create_vector() hands out the same again.
    [[nodiscard]] Status begin_again();
    /// From here on routes are only remembered, until commit() sets them all, if they differ from
    /// what is set.
    void hold();
    [[nodiscard]] Status commit();
    [[nodiscard]] std::vector<std::optional<bus::MsiMessage>> routes() const;
    /// What KVM's table holds.
    [[nodiscard]] std::vector<std::optional<bus::MsiMessage>> set_routes() const;

  private:
    class Vector;
    explicit KvmMsiRouter(const kvm::Vm& vm) : vm_(vm) {}
    [[nodiscard]] Status route(std::size_t index, const bus::MsiMessage& message);
    [[nodiscard]] Status set_table();
    [[nodiscard]] Result<sys::EventFd> connected_event(std::size_t index) const;
    void put_back(std::size_t index, sys::EventFd event) noexcept;

    const kvm::Vm& vm_;
    mutable std::mutex mutex_; ///< Guards all below.
    /// Entry i is GSI first_msi_gsi + i; numbers are not reused.
    std::vector<std::optional<bus::MsiMessage>> routes_;
    std::vector<std::optional<bus::MsiMessage>> set_routes_; ///< What KVM's table holds.
    /// Connected; entry i is there unless vector i has it.
    std::vector<std::optional<sys::EventFd>> spare_;
    std::size_t made_ = 0; ///< Vectors handed out.
    bool held_ = false;
};

class KvmDoorbells final : public bus::DoorbellRegistrar {
  public:
    explicit KvmDoorbells(const kvm::Vm& vm) : vm_(vm) {}
    [[nodiscard]] Result<sys::EventFd> create_event() override;
    [[nodiscard]] Status add(Gpa address, const sys::EventFd& event) override;
    void remove(Gpa address, const sys::EventFd& event) noexcept override;
    /// The VM goes, and every doorbell with it: removing them one by one would cost a grace period
    /// each. No vCPU runs any more.
    void end() noexcept { ending_ = true; }

    /// Hangs doorbells up in advance: create_event() hands their events out in order, and add() of
    /// one at its address costs nothing. Again with other addresses: those not in use move.
    [[nodiscard]] Status prewire(const std::vector<std::optional<Gpa>>& addresses);
    /// Once the devices have given all events up: create_event() hands out the same again. What
    /// hangs stays where it is until it is used, or not.
    void begin_again() noexcept;
    /// Takes down what was hung up in advance and is not used.
    void drop_unused() noexcept;
    [[nodiscard]] std::vector<std::optional<Gpa>> addresses() const;
    /// The same, with those hung up in advance.
    [[nodiscard]] std::vector<std::optional<Gpa>> hung() const;

  private:
    /// One per event, in the order of their making.
    struct Doorbell {
        sys::EventFd event;
        int handed_out = -1;         ///< The number of the descriptor the device has.
        std::optional<Gpa> hangs_at; ///< In the kernel.
        bool used = false;           ///< By add().
    };
    [[nodiscard]] Status hang(Doorbell& doorbell, Gpa address);
    void take_down(Doorbell& doorbell) const noexcept;

    const kvm::Vm& vm_;
    std::atomic<bool> ending_{false};
    mutable std::mutex mutex_;
    std::vector<Doorbell> doorbells_; ///< Guarded by mutex_.
    std::size_t made_ = 0;            ///< Events handed out. Guarded by mutex_.
    bool in_advance_ = false;         ///< From prewire() to drop_unused(). Guarded by mutex_.
};

} // namespace godwit::machine
