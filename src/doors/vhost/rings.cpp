#include "doors/vhost/rings.h"

#include "base/log.h"
#include "sys/stream.h"

#include <string>

namespace godwit::doors::vhost {

Rings::Rings(virtio::VirtioDevice& device)
    : device_(device), rings_(device.queue_sizes().size()), signals_(rings_.size()) {
    device_.attach(*this);
}

Rings::~Rings() {
    rest();
}

Result<Rings::Ring*> Rings::find(std::uint32_t index) {
    if (index >= rings_.size()) {
        return Error(ErrorCode::corrupt,
                     "ring " + std::to_string(index) + " of " + std::to_string(rings_.size()));
    }
    return &rings_[index];
}

void Rings::rest() {
    if (running_) {
        device_.quiesce();
        note_rest();
    }
}

bool Rings::rest_until(sys::Moment deadline) {
    if (running_ && !device_.quiesce_until(deadline)) {
        return false;
    }
    if (running_) {
        note_rest();
    }
    return true;
}

void Rings::note_rest() {
    const auto states = device_.queue_states();
    for (std::size_t i = 0; i < states.size(); ++i) {
        if (states[i].has_value()) {
            rings_[i].next_available = states[i]->next_available;
        }
    }
    device_.reset();
    running_ = false;
}

Result<virtio::VirtQueue> Rings::open(const Ring& ring,
                                      const std::shared_ptr<memory::GuestMemory>& memory,
                                      const Surroundings& surroundings) {
    if (!ring.addresses.has_value()) {
        return Error(ErrorCode::corrupt, "it was started before its addresses were set");
    }
    const MemoryTable& table = surroundings.memory;
    virtio::QueueState state{
        .size = ring.size,
        .ready = true,
        .descriptors = GODWIT_TRY(table.guest_address(ring.addresses->descriptors)),
        .driver_area = GODWIT_TRY(table.guest_address(ring.addresses->available)),
        .device_area = GODWIT_TRY(table.guest_address(ring.addresses->used)),
        .next_available = ring.next_available,
        .next_used = 0};
    // The driver knows how far we got from the index in its memory, and so do we.
    constexpr std::uint64_t index_offset = 2;
    state.next_used =
        GODWIT_TRY(memory->load<std::uint16_t>(Gpa{state.device_area.value + index_offset}));
    return virtio::VirtQueue::create(
        memory,
        state,
        {.event_index = (surroundings.features & virtio::feature_event_index) != 0,
         .indirect = (surroundings.features & virtio::feature_indirect_descriptors) != 0});
}

Status Rings::keep_record(virtio::VirtQueue& queue,
                          std::uint16_t index,
                          const Ring& ring,
                          const InflightMemory& inflight) {
    queue.keep_record(GODWIT_TRY(inflight.ring(index, ring.size)));
    if (queue.left_over() > 0) {
        log::info("requests_taken_up_again", {{"ring", index}, {"requests", queue.left_over()}});
    }
    return ok();
}

Status Rings::check(const Surroundings& surroundings) const {
    std::shared_ptr<memory::GuestMemory> memory;
    for (std::size_t i = 0; i < rings_.size(); ++i) {
        const Ring& ring = rings_[i];
        if (!ring.kick.has_value() || !ring.enabled) {
            continue;
        }
        if (!memory) {
            memory = GODWIT_TRY(surroundings.memory.memory());
        }
        GODWIT_TRY(open(ring, memory, surroundings).with_context("ring " + std::to_string(i)));
        if (surroundings.inflight != nullptr) {
            GODWIT_TRY(surroundings.inflight->ring(static_cast<std::uint16_t>(i), ring.size));
        }
    }
    return ok();
}

Status Rings::run(const Surroundings& surroundings) {
    virtio::Activation activation{.features = surroundings.features};
    activation.queues.resize(rings_.size());
    std::vector<std::optional<sys::EventFd>> doorbells(rings_.size());
    std::shared_ptr<memory::GuestMemory> memory;
    for (std::size_t i = 0; i < rings_.size() && !running_; ++i) {
        const Ring& ring = rings_[i];
        if (!ring.kick.has_value() || !ring.enabled) {
            continue;
        }
        if (!memory) {
            memory = GODWIT_TRY(surroundings.memory.memory());
        }
        virtio::VirtQueue queue =
            GODWIT_TRY(open(ring, memory, surroundings).with_context("ring " + std::to_string(i)));
        if (surroundings.inflight != nullptr) {
            GODWIT_TRY(
                keep_record(queue, static_cast<std::uint16_t>(i), ring, *surroundings.inflight)
                    .with_context("ring " + std::to_string(i)));
        }
        activation.queues[i] = std::move(queue);
        doorbells[i] = GODWIT_TRY(ring.kick->duplicate());
    }
    if (!memory) {
        return ok();
    }
    for (auto& doorbell : doorbells) {
        activation.doorbells.push_back(doorbell.has_value() ? std::move(*doorbell)
                                                            : sys::EventFd(sys::Fd()));
    }
    const Status activated = device_.activate(std::move(activation));
    if (!activated.has_value()) {
        device_.reset();
        return activated;
    }
    running_ = true;
    device_.wake();
    return ok();
}

Status Rings::set_size(const RingState& size) {
    Ring* const ring = GODWIT_TRY(find(size.index));
    if (size.number == 0 || size.number > virtio::queue_size_max) {
        return Error(ErrorCode::corrupt, "a ring of size " + std::to_string(size.number));
    }
    rest();
    ring->size = static_cast<std::uint16_t>(size.number);
    return ok();
}

Status Rings::set_base(const RingState& base) {
    Ring* const ring = GODWIT_TRY(find(base.index));
    if (base.number > 0xffff) {
        return Error(ErrorCode::corrupt, "a ring index of " + std::to_string(base.number));
    }
    rest();
    ring->next_available = static_cast<std::uint16_t>(base.number);
    return ok();
}

Status Rings::set_addresses(const RingAddresses& addresses) {
    Ring* const ring = GODWIT_TRY(find(addresses.index));
    if (addresses.flags != 0) {
        return Error(ErrorCode::unsupported, "a ring whose writes are to be logged");
    }
    rest();
    ring->addresses = addresses;
    return ok();
}

Status Rings::start(std::uint32_t index, sys::EventFd kick) {
    Ring* const ring = GODWIT_TRY(find(index));
    rest();
    ring->kick = std::move(kick);
    return ok();
}

Status Rings::enable(std::uint32_t index, std::uint32_t wanted) {
    Ring* const ring = GODWIT_TRY(find(index));
    if (wanted > 1) {
        return Error(ErrorCode::corrupt, "a ring is neither enabled nor disabled");
    }
    rest();
    ring->enabled = wanted == 1;
    return ok();
}

Result<RingState> Rings::stop(std::uint32_t index) {
    Ring* const ring = GODWIT_TRY(find(index));
    rest();
    ring->kick.reset();
    return RingState{.index = index, .number = ring->next_available};
}

Status Rings::set_call(std::uint32_t index, std::optional<sys::EventFd> call) {
    GODWIT_TRY(find(index));
    {
        const std::lock_guard lock(signals_mutex_);
        signals_[index].call = std::move(call);
    }
    // What was signalled meanwhile may have gone to the old one.
    notify_queue(static_cast<std::uint16_t>(index));
    return ok();
}

Status Rings::set_error(std::uint32_t index, std::optional<sys::EventFd> error) {
    GODWIT_TRY(find(index));
    const std::lock_guard lock(signals_mutex_);
    signals_[index].error = std::move(error);
    return ok();
}

void Rings::set_backend_channel(sys::Fd socket) {
    const std::lock_guard lock(signals_mutex_);
    backend_channel_ = std::move(socket);
}

Result<std::vector<Rings::Saved>> Rings::save() {
    const auto copy = [](const std::optional<sys::EventFd>& event) -> Result<sys::Fd> {
        return event.has_value() ? event->fd().duplicate() : sys::Fd();
    };
    std::vector<Saved> all;
    const std::lock_guard lock(signals_mutex_);
    for (std::size_t i = 0; i < rings_.size(); ++i) {
        const Ring& ring = rings_[i];
        all.push_back({.size = ring.size,
                       .next_available = ring.next_available,
                       .addresses = ring.addresses,
                       .enabled = ring.enabled,
                       .kick = GODWIT_TRY(copy(ring.kick)),
                       .call = GODWIT_TRY(copy(signals_[i].call)),
                       .error = GODWIT_TRY(copy(signals_[i].error))});
    }
    return all;
}

Result<sys::Fd> Rings::copy_backend_channel() {
    const std::lock_guard lock(signals_mutex_);
    return backend_channel_.valid() ? backend_channel_.duplicate() : sys::Fd();
}

Status Rings::restore(std::vector<Saved> saved) {
    if (saved.size() != rings_.size()) {
        return Error(ErrorCode::conflict,
                     std::to_string(saved.size()) + " rings for a disk of " +
                         std::to_string(rings_.size()));
    }
    const auto adopt = [](sys::Fd fd) -> Result<std::optional<sys::EventFd>> {
        if (!fd.valid()) {
            return std::optional<sys::EventFd>();
        }
        return std::optional(GODWIT_TRY(sys::EventFd::adopt(std::move(fd))));
    };
    const std::lock_guard lock(signals_mutex_);
    for (std::size_t i = 0; i < saved.size(); ++i) {
        if (saved[i].size > virtio::queue_size_max) {
            return Error(ErrorCode::corrupt, "a ring of size " + std::to_string(saved[i].size));
        }
        rings_[i] = {.size = saved[i].size,
                     .next_available = saved[i].next_available,
                     .addresses = saved[i].addresses,
                     .kick = GODWIT_TRY(adopt(std::move(saved[i].kick))),
                     .enabled = saved[i].enabled};
        signals_[i] = {.call = GODWIT_TRY(adopt(std::move(saved[i].call))),
                       .error = GODWIT_TRY(adopt(std::move(saved[i].error)))};
    }
    return ok();
}

void Rings::enable_all() {
    for (Ring& ring : rings_) {
        ring.enabled = true;
    }
}

void Rings::notify_queue(std::uint16_t queue) noexcept {
    const std::lock_guard lock(signals_mutex_);
    if (signals_[queue].call.has_value()) {
        signals_[queue].call->signal();
    }
}

void Rings::notify_config() noexcept {
    const std::lock_guard lock(signals_mutex_);
    if (!backend_channel_.valid()) {
        return;
    }
    const Header header{.request = backend_config_change, .flags = flag_version, .bytes = 0};
    // Non-blocking: a front end that does not read loses the notice, and only that.
    discard(sys::write_some(backend_channel_, std::as_bytes(std::span(&header, 1))),
            "the front end may read the configuration at any time");
}

void Rings::needs_reset(const Error& reason) noexcept {
    log::warn("guest_driver_broken", {{"reason", reason.to_string()}});
    const std::lock_guard lock(signals_mutex_);
    for (const Signals& signals : signals_) {
        if (signals.error.has_value()) {
            signals.error->signal();
        }
    }
}

} // namespace godwit::doors::vhost
