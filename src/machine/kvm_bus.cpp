#include "machine/kvm_bus.h"

#include <algorithm>

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
    /// It stays connected: disconnecting would cost a grace period for each vector.
    ~Vector() override { router_.put_back(index_, std::move(event_)); }

    [[nodiscard]] Status route(const bus::MsiMessage& message) override {
        return router_.route(index_, message);
    }
    /// The route stays in the table: masking would otherwise cost a grace period each time.
    void unroute() override {}
    void signal() noexcept override { event_.signal(); }

  private:
    KvmMsiRouter& router_;
    std::size_t index_;
    sys::EventFd event_;
};

Result<std::unique_ptr<KvmMsiRouter>> KvmMsiRouter::create(const kvm::Vm& vm) {
    std::unique_ptr<KvmMsiRouter> made(new KvmMsiRouter(vm));
    GODWIT_TRY(made->set_table());
    return made;
}

Result<sys::EventFd> KvmMsiRouter::connected_event(std::size_t index) const {
    sys::EventFd event = GODWIT_TRY(sys::EventFd::create());
    GODWIT_TRY(vm_.add_irqfd(Gsi{first_msi_gsi + static_cast<std::uint32_t>(index)}, event));
    return event;
}

Result<std::unique_ptr<bus::MsiVector>> KvmMsiRouter::create_vector() {
    const std::scoped_lock lock(mutex_);
    if (made_ >= Wiring::vectors_max) {
        return Error(ErrorCode::resource_exhausted, "no more interrupt vectors");
    }
    const std::size_t index = made_;
    if (index == spare_.size()) {
        spare_.emplace_back(GODWIT_TRY(connected_event(index)));
    }
    ++made_;
    routes_.resize(made_);
    return std::make_unique<Vector>(*this, index, *std::exchange(spare_[index], std::nullopt));
}

Status KvmMsiRouter::prewire(const std::vector<std::optional<bus::MsiMessage>>& routes) {
    const std::scoped_lock lock(mutex_);
    if (made_ != 0 || routes.size() > Wiring::vectors_max) {
        return Error(ErrorCode::conflict, "the machine's interrupt vectors cannot be prepared");
    }
    while (spare_.size() < routes.size()) {
        spare_.emplace_back(GODWIT_TRY(connected_event(spare_.size())));
    }
    routes_ = routes;
    const Status set = routes_ == set_routes_ ? ok() : set_table();
    routes_.clear();
    return set;
}

void KvmMsiRouter::put_back(std::size_t index, sys::EventFd event) noexcept {
    const std::scoped_lock lock(mutex_);
    spare_[index] = std::move(event);
}

Status KvmMsiRouter::begin_again() {
    const std::scoped_lock lock(mutex_);
    if (!std::ranges::all_of(spare_, [](const auto& event) { return event.has_value(); })) {
        return Error(ErrorCode::conflict, "a device still has its interrupt vectors");
    }
    made_ = 0;
    routes_.clear();
    return ok();
}

std::vector<std::optional<bus::MsiMessage>> KvmMsiRouter::routes() const {
    const std::scoped_lock lock(mutex_);
    return routes_;
}

std::vector<std::optional<bus::MsiMessage>> KvmMsiRouter::set_routes() const {
    const std::scoped_lock lock(mutex_);
    return set_routes_;
}

void KvmMsiRouter::hold() {
    const std::scoped_lock lock(mutex_);
    held_ = true;
}

Status KvmMsiRouter::commit() {
    const std::scoped_lock lock(mutex_);
    held_ = false;
    return routes_ == set_routes_ ? ok() : set_table();
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

Status KvmMsiRouter::set_table() {
    kvm::RoutingTable table(legacy_routes + routes_.size());
    const auto entries = table.entries();
    std::size_t next = write_legacy_routes(entries);
    for (std::size_t i = 0; i < routes_.size(); ++i) {
        if (routes_[i].has_value()) {
            entries[next++] = msi_to(first_msi_gsi + static_cast<std::uint32_t>(i), *routes_[i]);
        }
    }
    table.header()->count = static_cast<std::uint32_t>(next);
    GODWIT_TRY(vm_.set_routing(table));
    set_routes_ = routes_;
    return ok();
}

Result<sys::EventFd> KvmDoorbells::create_event() {
    const std::scoped_lock lock(mutex_);
    if (made_ == doorbells_.size()) {
        doorbells_.push_back({.event = GODWIT_TRY(sys::EventFd::create())});
    }
    sys::EventFd event = GODWIT_TRY(doorbells_[made_].event.duplicate());
    doorbells_[made_++].handed_out = event.fd().raw();
    return event;
}

Status KvmDoorbells::hang(Doorbell& doorbell, Gpa address) {
    if (doorbell.hangs_at == address) {
        return ok();
    }
    take_down(doorbell);
    // One that was hung up in advance where another belongs by now.
    for (Doorbell& other : doorbells_) {
        if (!other.used && other.hangs_at == address) {
            take_down(other);
        }
    }
    GODWIT_TRY(vm_.add_ioeventfd(address, doorbell.event));
    doorbell.hangs_at = address;
    return ok();
}

void KvmDoorbells::take_down(Doorbell& doorbell) const noexcept {
    if (doorbell.hangs_at.has_value() && !ending_) {
        vm_.remove_ioeventfd(*doorbell.hangs_at, doorbell.event);
    }
    doorbell.hangs_at.reset();
}

Status KvmDoorbells::add(Gpa address, const sys::EventFd& event) {
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(doorbells_, event.fd().raw(), &Doorbell::handed_out);
    if (found == doorbells_.end()) {
        return Error(ErrorCode::invalid_argument, "a doorbell needs an event of its registrar");
    }
    GODWIT_TRY(hang(*found, address));
    found->used = true;
    return ok();
}

void KvmDoorbells::remove(Gpa, const sys::EventFd& event) noexcept {
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(doorbells_, event.fd().raw(), &Doorbell::handed_out);
    if (found != doorbells_.end()) {
        if (!in_advance_) {
            take_down(*found);
        }
        found->used = false;
    }
}

Status KvmDoorbells::prewire(const std::vector<std::optional<Gpa>>& addresses) {
    const std::scoped_lock lock(mutex_);
    if (made_ != 0 || addresses.size() > Wiring::doorbells_max) {
        return Error(ErrorCode::conflict, "the machine's doorbells cannot be prepared");
    }
    in_advance_ = true;
    while (doorbells_.size() < addresses.size()) {
        doorbells_.push_back({.event = GODWIT_TRY(sys::EventFd::create())});
    }
    // All that move first: one may go where another hung.
    for (std::size_t i = 0; i < doorbells_.size(); ++i) {
        if (i >= addresses.size() || doorbells_[i].hangs_at != addresses[i]) {
            take_down(doorbells_[i]);
        }
    }
    for (std::size_t i = 0; i < addresses.size(); ++i) {
        if (addresses[i].has_value()) {
            GODWIT_TRY(hang(doorbells_[i], *addresses[i]));
        }
    }
    return ok();
}

void KvmDoorbells::begin_again() noexcept {
    const std::scoped_lock lock(mutex_);
    for (Doorbell& doorbell : doorbells_) {
        doorbell.handed_out = -1;
    }
    made_ = 0;
}

void KvmDoorbells::drop_unused() noexcept {
    const std::scoped_lock lock(mutex_);
    in_advance_ = false;
    for (Doorbell& doorbell : doorbells_) {
        if (!doorbell.used) {
            take_down(doorbell);
        }
    }
}

std::vector<std::optional<Gpa>> KvmDoorbells::addresses() const {
    const std::scoped_lock lock(mutex_);
    std::vector<std::optional<Gpa>> addresses;
    for (const Doorbell& doorbell : doorbells_) {
        addresses.push_back(doorbell.used ? doorbell.hangs_at : std::nullopt);
    }
    return addresses;
}

std::vector<std::optional<Gpa>> KvmDoorbells::hung() const {
    const std::scoped_lock lock(mutex_);
    std::vector<std::optional<Gpa>> addresses;
    for (const Doorbell& doorbell : doorbells_) {
        addresses.push_back(doorbell.hangs_at);
    }
    return addresses;
}

} // namespace godwit::machine
