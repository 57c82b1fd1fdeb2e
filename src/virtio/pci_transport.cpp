#include "virtio/pci_transport.h"

#include "base/log.h"
#include "bus/little_endian.h"
#include "sys/timed_lock.h"
#include "virtio/pci_transport_state.h"

#include <array>
#include <bit>

namespace godwit::virtio {

namespace {

// The BAR: one page for each structure, so that doorbells share theirs with nothing.
constexpr std::size_t bar_index = 0;
constexpr std::uint32_t common_at = 0x0000;
constexpr std::uint32_t isr_at = 0x1000;
constexpr std::uint32_t device_at = 0x2000;
constexpr std::uint32_t notify_at = 0x3000;
constexpr std::uint32_t table_at = 0x4000;
constexpr std::uint32_t pending_at = 0x5000;
constexpr std::uint32_t bar_bytes = 0x8000;
constexpr std::uint32_t structure_bytes = 0x1000;
/// Each queue has a doorbell address of its own.
constexpr std::uint32_t notify_off_multiplier = 4;
static_assert(transport_queues_max * notify_off_multiplier <= structure_bytes);
static_assert(bus::msix_vectors_max * bus::msix_entry_bytes <= structure_bytes);

// Capability types (section 4.1.4).
constexpr std::uint8_t capability_common = 1;
constexpr std::uint8_t capability_notify = 2;
constexpr std::uint8_t capability_isr = 3;
constexpr std::uint8_t capability_device = 4;
constexpr std::uint8_t capability_pci_access = 5;
// struct virtio_pci_cap, offsets from the capability's start.
constexpr std::uint32_t capability_bar_at = 4;
constexpr std::uint32_t capability_offset_at = 8;
constexpr std::uint32_t capability_length_at = 12;
constexpr std::uint32_t capability_extra_at = 16;

constexpr std::uint8_t isr_queue = 1;
constexpr std::uint8_t isr_config = 2;

constexpr std::uint64_t transport_features =
    feature_version_1 | feature_indirect_descriptors | feature_event_index;

std::uint32_t class_code_of(DeviceType type) {
    switch (type) {
    case DeviceType::network:
        return 0x02'0000; // Ethernet controller
    case DeviceType::block:
        return 0x01'0000; // SCSI storage, as every other VMM says
    case DeviceType::console:
        return 0x07'8000; // other communication controller
    case DeviceType::entropy:
    case DeviceType::balloon:
        return 0x00'ff00; // no class of its own
    }
    return 0x00'ff00;
}

bus::PciIdentity identity_of(DeviceType type) {
    constexpr std::uint16_t vendor = 0x1af4; // section 4.1.2
    const auto number = static_cast<std::uint16_t>(type);
    return {.vendor = vendor,
            .device = static_cast<std::uint16_t>(0x1040 + number),
            .revision = 1,
            .class_code = class_code_of(type),
            .subsystem_vendor = vendor,
            .subsystem = static_cast<std::uint16_t>(0x40 + number)};
}

} // namespace

PciTransport::PciTransport(const Args& args, std::unique_ptr<VirtioDevice> device)
    : memory_(args.memory), bus_(args.bus), registrar_(args.doorbells), slot_(args.slot),
      device_(std::move(device)), config_(device_->features() | transport_features,
                                          device_->queue_sizes(),
                                          device_->queue_sizes().size() + 1),
      function_(identity_of(device_->type()), args.address_space) {}

PciTransport::~PciTransport() {
    {
        const std::lock_guard lock(mutex_);
        move_doorbells(std::nullopt);
        function_.on_bar_moved(nullptr);
        if (in_slot_) {
            bus_.remove(slot_);
        }
    }
    // The device may report to us until it is gone.
    device_.reset();
}

Result<std::unique_ptr<PciTransport>> PciTransport::create(const Args& args,
                                                           std::unique_ptr<VirtioDevice> device) {
    std::unique_ptr<PciTransport> transport(new PciTransport(args, std::move(device)));
    GODWIT_TRY(transport->build(args.msi_router));
    GODWIT_TRY(transport->connect());
    return transport;
}

Result<std::unique_ptr<PciTransport>> PciTransport::restore(const Args& args,
                                                            std::unique_ptr<VirtioDevice> device,
                                                            const state::Section& section) {
    const PciTransportState state = GODWIT_TRY(decode(section));
    std::unique_ptr<PciTransport> transport(new PciTransport(args, std::move(device)));
    GODWIT_TRY(transport->build(args.msi_router));
    GODWIT_TRY(transport->load(state).with_context("section " + section.id.to_string()));
    GODWIT_TRY(transport->connect());
    return transport;
}

Status PciTransport::build(bus::MsiRouter& msi_router) {
    const std::size_t queues = config_.queues().size();
    if (queues == 0 || queues > transport_queues_max) {
        return Error(ErrorCode::resource_exhausted,
                     "a virtio device with " + std::to_string(queues) + " queues");
    }
    for (std::size_t i = 0; i < queues; ++i) {
        doorbells_.push_back(GODWIT_TRY(registrar_.create_event()));
    }
    doorbell_registered_.resize(queues);
    const Gpa bar = GODWIT_TRY(bus_.take_bar_address(bar_bytes));
    GODWIT_TRY(function_.add_bar(bar_index, bar_bytes, bar, *this));
    GODWIT_TRY(function_.add_msix(
        GODWIT_TRY(bus::Msix::create(msi_router, queues + 1)), bar_index, table_at, pending_at));
    GODWIT_TRY(add_capabilities());
    function_.on_bar_moved([this](std::size_t, std::optional<Gpa> address) {
        move_doorbells(address); // Called from function_, under our lock.
    });
    device_->attach(*this);
    return ok();
}

namespace {

/// The body of a struct virtio_pci_cap behind id and next pointer; `extra` is the word after it.
std::array<std::byte, 18>
capability_body(std::uint8_t type, std::uint32_t offset, std::uint32_t length, bool has_extra) {
    std::array<std::byte, 18> body{};
    body[0] = std::byte{static_cast<std::uint8_t>(has_extra ? 20 : 16)};
    body[1] = std::byte{type};
    body[2] = std::byte{bar_index};
    bus::store_little(std::span(body).subspan(capability_offset_at - 2, 4), offset);
    bus::store_little(std::span(body).subspan(capability_length_at - 2, 4), length);
    return body;
}

} // namespace

Status PciTransport::add_capabilities() {
    struct Structure {
        std::uint8_t type;
        std::uint32_t offset;
        std::uint32_t length;
    };
    constexpr std::array structures{Structure{capability_common, common_at, common_config_bytes},
                                    Structure{capability_isr, isr_at, 1},
                                    Structure{capability_device, device_at, structure_bytes}};
    for (const Structure& part : structures) {
        const auto body = capability_body(part.type, part.offset, part.length, false);
        GODWIT_TRY(
            function_.add_capability(bus::capability_vendor_specific, std::span(body).first(14)));
    }
    auto notify = capability_body(capability_notify, notify_at, structure_bytes, true);
    bus::store_little(std::span(notify).subspan(capability_extra_at - 2, 4), notify_off_multiplier);
    GODWIT_TRY(function_.add_capability(bus::capability_vendor_specific, notify));

    auto access = capability_body(capability_pci_access, 0, 0, true);
    std::array<std::byte, 18> writable{};
    writable[capability_bar_at - 2] = std::byte{0xff};
    bus::store_little(std::span(writable).subspan(capability_offset_at - 2, 8), ~0ULL);
    window_capability_ =
        GODWIT_TRY(function_.add_capability(bus::capability_vendor_specific, access, writable));
    return ok();
}

Status PciTransport::connect() {
    GODWIT_TRY(bus_.add(slot_, *this));
    const std::lock_guard lock(mutex_);
    in_slot_ = true;
    function_.connect();
    return ok();
}

// --- configuration space ---

std::optional<std::uint64_t> PciTransport::window_target(std::uint32_t offset,
                                                         std::size_t bytes) const {
    if (offset != window_capability_ + capability_extra_at) {
        return std::nullopt;
    }
    std::array<std::byte, 12> raw{};
    function_.read_config(window_capability_ + capability_bar_at, raw);
    const std::uint64_t bar = bus::load_little(std::span(raw).first(1));
    const std::uint64_t target = bus::load_little(std::span(raw).subspan(4, 4));
    const std::uint64_t length = bus::load_little(std::span(raw).subspan(8, 4));
    if (bar != bar_index || length != bytes || bytes > 4 || target % bytes != 0 ||
        target + bytes > bar_bytes) {
        return std::nullopt;
    }
    return target;
}

void PciTransport::read_config(std::uint32_t offset, std::span<std::byte> out) {
    const std::lock_guard lock(mutex_);
    if (const auto target = window_target(offset, out.size()); target.has_value()) {
        read_locked(*target, out);
        return;
    }
    function_.read_config(offset, out);
}

void PciTransport::write_config(std::uint32_t offset, std::span<const std::byte> data) {
    const std::lock_guard lock(mutex_);
    if (const auto target = window_target(offset, data.size()); target.has_value()) {
        write_locked(*target, data);
        return;
    }
    function_.write_config(offset, data);
}

// --- the BAR ---

void PciTransport::read(std::uint64_t offset, std::span<std::byte> out) {
    const std::lock_guard lock(mutex_);
    read_locked(offset, out);
}

void PciTransport::read_locked(std::uint64_t offset, std::span<std::byte> out) {
    const std::uint64_t within = offset % structure_bytes;
    switch (offset - within) {
    case common_at:
        config_.read(within, out);
        return;
    case isr_at:
        bus::store_little(out, within == 0 ? isr_.exchange(0) : 0);
        return;
    case device_at:
        std::ranges::fill(out, std::byte{0});
        device_->read_config(static_cast<std::uint32_t>(within), out);
        return;
    case table_at:
        function_.msix()->read_table(within, out);
        return;
    case pending_at:
        function_.msix()->read_pending(within, out);
        return;
    default:
        bus::store_little(out, 0);
        return;
    }
}

void PciTransport::write(std::uint64_t offset, std::span<const std::byte> data) {
    // A kick that the kernel did not turn into a signal itself; no lock, it may be frequent.
    if (offset >= notify_at && offset < notify_at + structure_bytes) {
        kick(offset - notify_at);
        return;
    }
    const std::lock_guard lock(mutex_);
    write_locked(offset, data);
}

void PciTransport::write_locked(std::uint64_t offset, std::span<const std::byte> data) {
    const std::uint64_t within = offset % structure_bytes;
    switch (offset - within) {
    case common_at:
        apply(config_.write(within, data));
        return;
    case device_at:
        device_->write_config(static_cast<std::uint32_t>(within), data);
        return;
    case notify_at:
        kick(within);
        return;
    case table_at:
        function_.msix()->write_table(within, data);
        return;
    default:
        return;
    }
}

void PciTransport::kick(std::uint64_t notify_offset) noexcept {
    const std::uint64_t queue = notify_offset / notify_off_multiplier;
    if (queue < doorbells_.size()) {
        doorbells_[queue].signal();
    }
}

// --- what the driver asks for ---

void PciTransport::apply(CommonConfig::Effect effect) {
    switch (effect) {
    case CommonConfig::Effect::none:
        return;
    case CommonConfig::Effect::reset:
        reset_device();
        return;
    case CommonConfig::Effect::activate:
        if (const Status activated = activate(); !activated.has_value()) {
            needs_reset(activated.error());
        }
        return;
    }
}

Status PciTransport::activate() {
    Activation activation;
    activation.features = config_.driver_features();
    const VirtQueue::Features features{
        .event_index = (activation.features & feature_event_index) != 0,
        .indirect = (activation.features & feature_indirect_descriptors) != 0};
    for (std::size_t i = 0; i < config_.queues().size(); ++i) {
        activation.doorbells.push_back(GODWIT_TRY(doorbells_[i].duplicate()));
        const QueueState& state = config_.queues()[i];
        if (state.ready) {
            activation.queues.emplace_back(
                GODWIT_TRY(VirtQueue::create(memory_, state, features)
                               .with_context("queue " + std::to_string(i))));
        } else {
            activation.queues.emplace_back(std::nullopt);
        }
    }
    GODWIT_TRY(device_->activate(std::move(activation)));
    active_ = true;
    move_doorbells(function_.decoded_at(bar_index));
    return ok();
}

void PciTransport::reset_device() {
    device_->reset();
    active_ = false;
    move_doorbells(std::nullopt);
    for (const sys::EventFd& doorbell : doorbells_) {
        doorbell.drain();
    }
    config_.reset();
    isr_ = 0;
}

void PciTransport::move_doorbells(std::optional<Gpa> bar) {
    const auto address = [](Gpa start, std::size_t queue) {
        return Gpa{start.value + notify_at + queue * notify_off_multiplier};
    };
    if (doorbells_at_.has_value()) {
        for (std::size_t i = 0; i < doorbells_.size(); ++i) {
            if (doorbell_registered_[i]) {
                registrar_.remove(address(*doorbells_at_, i), doorbells_[i]);
                doorbell_registered_[i] = false;
            }
        }
        doorbells_at_.reset();
    }
    if (!bar.has_value() || !active_) {
        return;
    }
    doorbells_at_ = bar;
    for (std::size_t i = 0; i < doorbells_.size(); ++i) {
        // Without it the write arrives at our BAR and kicks from there, only slower.
        doorbell_registered_[i] = config_.queues()[i].ready &&
                                  registrar_.add(address(*bar, i), doorbells_[i]).has_value();
    }
}

// --- what the device asks for ---

void PciTransport::notify_queue(std::uint16_t queue) noexcept {
    const std::uint16_t vector = config_.queue_vector(queue);
    if (vector == no_vector) {
        isr_.fetch_or(isr_queue);
        return;
    }
    function_.msix()->signal(vector);
}

void PciTransport::notify_config() noexcept {
    config_.count_config_change();
    isr_.fetch_or(isr_config);
    const std::uint16_t vector = config_.config_vector();
    if (vector != no_vector) {
        function_.msix()->signal(vector);
    }
}

void PciTransport::needs_reset(const Error& reason) noexcept {
    const std::uint8_t before = config_.set_needs_reset();
    if ((before & status_needs_reset) != 0) {
        return;
    }
    // A driver can break the rules, reset and break them again: the 1st, 2nd, 4th ... time is told.
    const std::uint64_t times = ++resets_needed_;
    if (std::has_single_bit(times)) {
        log::warn("virtio_needs_reset",
                  {{"slot", slot_}, {"reason", reason.to_string()}, {"times", times}});
    }
    if ((before & status_driver_ok) != 0) {
        notify_config();
    }
}

// --- rest, saving, loading ---

void PciTransport::wake() {
    const std::lock_guard lock(mutex_);
    device_->wake();
}

void PciTransport::quiesce() {
    const std::lock_guard lock(mutex_);
    device_->quiesce();
}

bool PciTransport::quiesce_until(std::chrono::steady_clock::time_point deadline) {
    const auto lock = sys::lock_until(mutex_, deadline);
    return lock.owns_lock() && device_->quiesce_until(deadline);
}

state::SectionType PciTransport::section_type() const {
    return transport_section;
}

state::SectionId PciTransport::section_id() const {
    return transport_section.id(slot_);
}

state::SectionType PciTransport::DeviceUnit::section_type() const {
    return transport_.device_->section_type();
}

state::SectionId PciTransport::DeviceUnit::section_id() const {
    return transport_.device_->section_id();
}

Result<state::Saved> PciTransport::DeviceUnit::save() const {
    const std::lock_guard lock(transport_.mutex_);
    return transport_.device_->save();
}

std::string PciTransport::DeviceUnit::save_blocker() const {
    const std::lock_guard lock(transport_.mutex_);
    return transport_.device_->save_blocker();
}

Result<state::Saved> PciTransport::save() const {
    const std::lock_guard lock(mutex_);
    PciTransportState state;
    state.device_type = static_cast<std::uint16_t>(device_->type());
    state.config = config_.save();
    if (active_) {
        const auto queues = device_->queue_states();
        for (std::size_t i = 0; i < queues.size(); ++i) {
            if (queues[i].has_value()) {
                state.config.queues[i].queue = *queues[i];
            }
        }
    }
    state.isr = isr_;
    std::array<std::byte, 12> window{};
    function_.read_config(window_capability_ + capability_bar_at, window);
    state.window_bar = std::to_integer<std::uint8_t>(window[0]);
    state.window_offset =
        static_cast<std::uint32_t>(bus::load_little(std::span(window).subspan(4, 4)));
    state.window_length =
        static_cast<std::uint32_t>(bus::load_little(std::span(window).subspan(8, 4)));
    state.function = function_.save();
    return encode(state, slot_);
}

Status PciTransport::load(const PciTransportState& state) {
    const std::lock_guard lock(mutex_);
    if (state.device_type != static_cast<std::uint16_t>(device_->type())) {
        return Error(ErrorCode::corrupt,
                     "it is of a virtio device of type " + std::to_string(state.device_type));
    }
    GODWIT_TRY(config_.load(state.config));
    GODWIT_TRY(function_.load(state.function));
    std::array<std::byte, 12> window{};
    window[0] = std::byte{state.window_bar};
    bus::store_little(std::span(window).subspan(4, 4), state.window_offset);
    bus::store_little(std::span(window).subspan(8, 4), state.window_length);
    function_.write_config(window_capability_ + capability_bar_at, window);
    isr_ = state.isr;
    // A device that waits for its reset serves nothing until then.
    const std::uint8_t status = state.config.status;
    if ((status & status_driver_ok) != 0 && (status & status_needs_reset) == 0) {
        GODWIT_TRY(activate());
    }
    return ok();
}

} // namespace godwit::virtio
