#include "machine/kvm_bus.h"

namespace godwit::machine {

void KvmIrqLine::set(bool asserted) noexcept {
    const std::scoped_lock lock(mutex_);
    if (asserted == asserted_) {
        return;
    }
    asserted_ = asserted;
    discard(vm_.set_irq_line(gsi_, asserted ? kvm::Vm::LineLevel::high : kvm::Vm::LineLevel::low),
            "with an in-kernel irqchip and a pin that exists KVM_IRQ_LINE does not fail");
}

/// Keeps its irqfd connected for life: what is not routed is not signalled by its owner.
class KvmMsiRouter::Vector final : public bus::MsiVector {
  public:
    Vector(KvmMsiRouter& router, std::size_t index, sys::EventFd event)
        : router_(router), index_(index), event_(std::move(event)) {}
    Vector(const Vector&) = delete;
    Vector& operator=(const Vector&) = delete;
    /// Closing the eventfd disconnects it. Asking KVM to would cost a grace period for each vector.
    ~Vector() override = default;

    [[nodiscard]] Status connect() { return router_.vm_.add_irqfd(gsi(), event_); }
    [[nodiscard]] Status route(const bus::MsiMessage& message) override {
        return router_.route(index_, message);
    }
    /// The route stays in the table: masking would otherwise cost a grace period each time.
    void unroute() override {}
    void signal() noexcept override { event_.signal(); }

  private:
    [[nodiscard]] Gsi gsi() const {
        return Gsi{first_msi_gsi + static_cast<std::uint32_t>(index_)};
    }
    KvmMsiRouter& router_;
    std::size_t index_;
    sys::EventFd event_;
};

Result<std::unique_ptr<KvmMsiRouter>> KvmMsiRouter::create(const kvm::Vm& vm) {
    std::unique_ptr<KvmMsiRouter> made(new KvmMsiRouter(vm));
    GODWIT_TRY(made->set_table());
    return made;
}

Result<std::unique_ptr<bus::MsiVector>> KvmMsiRouter::create_vector() {
    sys::EventFd event = GODWIT_TRY(sys::EventFd::create());
    std::size_t index = 0;
    {
        const std::scoped_lock lock(mutex_);
        if (routes_.size() >= vectors_max) {
            return Error(ErrorCode::resource_exhausted, "no more interrupt vectors");
        }
        index = routes_.size();
        routes_.emplace_back();
    }
    auto vector = std::make_unique<Vector>(*this, index, std::move(event));
    GODWIT_TRY(vector->connect());
    return vector;
}

void KvmMsiRouter::hold() {
    const std::scoped_lock lock(mutex_);
    held_ = true;
}

Status KvmMsiRouter::commit() {
    const std::scoped_lock lock(mutex_);
    held_ = false;
    return set_table();
}

Status KvmMsiRouter::route(std::size_t index, const bus::MsiMessage& message) {
    const std::scoped_lock lock(mutex_);
    if (routes_[index] == message) {
        return ok();
    }
    routes_[index] = message;
    return held_ ? ok() : set_table();
}

namespace {

constexpr std::uint32_t pic_pins = 8;
constexpr std::uint32_t ioapic_pins = 24;
constexpr std::size_t legacy_routes = 2 * pic_pins + ioapic_pins;

kvm_irq_routing_entry line_to(std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin;
    return entry;
}

/// The PC's wiring: lines 0..15 reach both PICs and the IOAPIC, where line 0 is pin 2.
std::size_t write_legacy_routes(std::span<kvm_irq_routing_entry> entries) {
    std::size_t next = 0;
    for (std::uint32_t gsi = 0; gsi < 2 * pic_pins; ++gsi) {
        const std::uint32_t chip = gsi < pic_pins ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
        entries[next++] = line_to(gsi, chip, gsi % pic_pins);
    }
    for (std::uint32_t gsi = 0; gsi < ioapic_pins; ++gsi) {
        if (gsi != 2) {
            entries[next++] = line_to(gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi);
        }
    }
    return next;
}

kvm_irq_routing_entry msi_to(std::uint32_t gsi, const bus::MsiMessage& message) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<std::uint32_t>(message.address);
    entry.u.msi.address_hi = static_cast<std::uint32_t>(message.address >> 32U);
    entry.u.msi.data = message.data;
    return entry;
}

} // namespace

Status KvmMsiRouter::set_table() const {
    kvm::RoutingTable table(legacy_routes + routes_.size());
    const auto entries = table.entries();
    std::size_t next = write_legacy_routes(entries);
    for (std::size_t i = 0; i < routes_.size(); ++i) {
        if (routes_[i].has_value()) {
            entries[next++] = msi_to(first_msi_gsi + static_cast<std::uint32_t>(i), *routes_[i]);
        }
    }
    table.header()->count = static_cast<std::uint32_t>(next);
    return vm_.set_routing(table);
}

Status KvmDoorbells::add(Gpa address, const sys::EventFd& event) {
    return vm_.add_ioeventfd(address, event);
}

void KvmDoorbells::remove(Gpa address, const sys::EventFd& event) noexcept {
    if (ending_) {
        return;
    }
    vm_.remove_ioeventfd(address, event);
}

} // namespace godwit::machine
