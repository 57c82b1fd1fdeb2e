#include "virtio/pci_transport_state.h"

#include "bus/pci/pci_state.h"
#include "state/section_codec.h"
#include "state/virtio_pci.pb.h"

#include <limits>

namespace godwit::virtio {

namespace {

using state::bad_section;

template <typename T>
bool fits(std::uint32_t value) {
    return value <= std::numeric_limits<T>::max();
}

bool complete(const state::VirtioQueueState& queue) {
    return queue.has_size() && queue.has_enabled() && queue.has_descriptors() &&
           queue.has_driver_area() && queue.has_device_area() && queue.has_next_available() &&
           queue.has_next_used() && queue.has_vector();
}

bool in_range(const state::VirtioQueueState& queue) {
    return fits<std::uint16_t>(queue.size()) && fits<std::uint16_t>(queue.next_available()) &&
           fits<std::uint16_t>(queue.next_used()) && fits<std::uint16_t>(queue.vector());
}

bool complete(const state::VirtioPciState& saved) {
    return saved.has_device_type() && saved.has_status() && saved.has_driver_features() &&
           saved.has_device_feature_select() && saved.has_driver_feature_select() &&
           saved.has_config_vector() && saved.has_queue_select() && saved.has_config_generation() &&
           saved.has_isr() && saved.has_window_bar() && saved.has_window_offset() &&
           saved.has_window_length() && saved.has_function();
}

bool in_range(const state::VirtioPciState& saved) {
    return fits<std::uint16_t>(saved.device_type()) && fits<std::uint8_t>(saved.status()) &&
           fits<std::uint16_t>(saved.config_vector()) &&
           fits<std::uint16_t>(saved.queue_select()) &&
           fits<std::uint8_t>(saved.config_generation()) && fits<std::uint8_t>(saved.isr()) &&
           fits<std::uint8_t>(saved.window_bar());
}

void encode_queue(const CommonConfigState::Queue& queue, state::VirtioQueueState& out) {
    out.set_size(queue.queue.size);
    out.set_enabled(queue.queue.ready);
    out.set_descriptors(queue.queue.descriptors.value);
    out.set_driver_area(queue.queue.driver_area.value);
    out.set_device_area(queue.queue.device_area.value);
    out.set_next_available(queue.queue.next_available);
    out.set_next_used(queue.queue.next_used);
    out.set_vector(queue.vector);
}

CommonConfigState::Queue decode_queue(const state::VirtioQueueState& saved) {
    return {.queue = {.size = static_cast<std::uint16_t>(saved.size()),
                      .ready = saved.enabled(),
                      .descriptors = Gpa{saved.descriptors()},
                      .driver_area = Gpa{saved.driver_area()},
                      .device_area = Gpa{saved.device_area()},
                      .next_available = static_cast<std::uint16_t>(saved.next_available()),
                      .next_used = static_cast<std::uint16_t>(saved.next_used())},
            .vector = static_cast<std::uint16_t>(saved.vector())};
}

} // namespace

state::Section encode(const PciTransportState& transport, std::uint8_t slot) {
    state::VirtioPciState saved;
    saved.set_device_type(transport.device_type);
    saved.set_status(transport.config.status);
    saved.set_driver_features(transport.config.driver_features);
    saved.set_device_feature_select(transport.config.device_feature_select);
    saved.set_driver_feature_select(transport.config.driver_feature_select);
    saved.set_config_vector(transport.config.config_vector);
    saved.set_queue_select(transport.config.queue_select);
    saved.set_config_generation(transport.config.config_generation);
    saved.set_isr(transport.isr);
    for (const CommonConfigState::Queue& queue : transport.config.queues) {
        encode_queue(queue, *saved.add_queues());
    }
    saved.set_window_bar(transport.window_bar);
    saved.set_window_offset(transport.window_offset);
    saved.set_window_length(transport.window_length);
    bus::encode(transport.function, *saved.mutable_function());
    return state::encode_section(transport_section, slot, saved);
}

Result<PciTransportState> decode(const state::Section& section) {
    const auto saved =
        GODWIT_TRY(state::decode_section<state::VirtioPciState>(transport_section, section));
    if (!complete(saved)) {
        return bad_section(section, "a field is missing");
    }
    if (!in_range(saved)) {
        return bad_section(section, "a field is out of range");
    }
    PciTransportState transport;
    transport.device_type = static_cast<std::uint16_t>(saved.device_type());
    transport.config = {.status = static_cast<std::uint8_t>(saved.status()),
                        .config_generation = static_cast<std::uint8_t>(saved.config_generation()),
                        .driver_features = saved.driver_features(),
                        .device_feature_select = saved.device_feature_select(),
                        .driver_feature_select = saved.driver_feature_select(),
                        .config_vector = static_cast<std::uint16_t>(saved.config_vector()),
                        .queue_select = static_cast<std::uint16_t>(saved.queue_select()),
                        .queues = {}};
    for (const state::VirtioQueueState& queue : saved.queues()) {
        if (!complete(queue) || !in_range(queue)) {
            return bad_section(section, "a queue is incomplete or out of range");
        }
        transport.config.queues.push_back(decode_queue(queue));
    }
    transport.isr = static_cast<std::uint8_t>(saved.isr());
    transport.window_bar = static_cast<std::uint8_t>(saved.window_bar());
    transport.window_offset = saved.window_offset();
    transport.window_length = saved.window_length();
    transport.function = GODWIT_TRY(bus::decode(saved.function()));
    return transport;
}

} // namespace godwit::virtio
