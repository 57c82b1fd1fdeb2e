#include "virtio/testing/driver_queue.h"

#include <atomic>
#include <cstring>

namespace godwit::virtio::testing {

std::shared_ptr<memory::GuestMemory> make_memory(std::uint64_t bytes) {
    // A test that gets no memory has nothing to go on with.
    const memory::RamBacking backing = GODWIT_MUST(memory::RamBacking::create(
        "test", {.bytes = bytes, .kind = memory::RamKind::memfd, .path = {}}));
    return GODWIT_MUST(memory::GuestMemory::map(backing, sys::MapMode::shared));
}

std::vector<std::byte> bytes_of(std::string_view text) {
    std::vector<std::byte> bytes(text.size());
    std::memcpy(bytes.data(), text.data(), text.size());
    return bytes;
}

Gpa Offered::writable_at(std::size_t n) const {
    for (const Segment& segment : segments) {
        if (segment.writable && n-- == 0) {
            return segment.at;
        }
    }
    GODWIT_ASSERT(false && "the chain has not that many writable segments");
    return {};
}

DriverQueue::DriverQueue(std::shared_ptr<memory::GuestMemory> memory, Options options)
    : memory_(std::move(memory)), options_(options), available_index_(options.first_index),
      used_index_(options.first_index) {
    for (std::uint16_t i = options_.size; i > 0; --i) {
        free_.push_back(static_cast<std::uint16_t>(i - 1));
    }
    const std::uint64_t ring_bytes = 16ULL * options_.size + 0x1000 + 8ULL * options_.size + 8;
    const std::vector<std::byte> zeroes(ring_bytes);
    GODWIT_MUST(memory_->write(options_.rings, zeroes)); // the test chose an address in RAM
    set_available_index(available_index_);
    *shared_field(Gpa{state().device_area.value + 2}) = used_index_;
}

QueueState DriverQueue::state() const {
    const std::uint64_t table_bytes = 16ULL * options_.size;
    const std::uint64_t driver = options_.rings.value + table_bytes;
    return {.size = options_.size,
            .ready = true,
            .descriptors = options_.rings,
            .driver_area = Gpa{driver},
            .device_area = Gpa{round_up(driver + 6 + 2ULL * options_.size, 4)},
            .next_available = options_.first_index,
            .next_used = options_.first_index};
}

VirtQueue DriverQueue::device_side() const {
    // The layout this class writes is always a good one.
    return GODWIT_MUST(VirtQueue::create(memory_, state(), options_.features));
}

std::uint16_t* DriverQueue::shared_field(Gpa at) const {
    const auto range = GODWIT_MUST(memory_->mutable_view(at, 2)); // inside our own rings
    return static_cast<std::uint16_t*>(static_cast<void*>(range.data()));
}

DriverQueue::Builder& DriverQueue::Builder::readable(std::span<const std::byte> bytes) {
    return segment({.at = queue_.place(bytes),
                    .bytes = static_cast<std::uint32_t>(bytes.size()),
                    .writable = false});
}

DriverQueue::Builder& DriverQueue::Builder::writable(std::uint32_t bytes) {
    return segment({.at = queue_.reserve(bytes), .bytes = bytes, .writable = true});
}

DriverQueue::Builder& DriverQueue::Builder::segment(Segment segment) {
    segments_.push_back(segment);
    return *this;
}

DriverQueue::Builder& DriverQueue::Builder::indirect() {
    form_ = Form::indirect;
    return *this;
}

Offered DriverQueue::Builder::offer() {
    return queue_.publish(std::move(segments_), form_);
}

Offered DriverQueue::publish(std::vector<Segment> segments, Form form) {
    GODWIT_ASSERT(!segments.empty());
    const std::uint16_t head =
        form == Form::direct ? write_direct(segments) : write_indirect(segments);
    make_available(head);
    if (doorbell_ != nullptr && doorbell_wanted()) {
        doorbell_->signal();
    }
    return {.head = head, .segments = std::move(segments)};
}

std::uint16_t DriverQueue::take_descriptor() {
    GODWIT_ASSERT(!free_.empty() && "the test offers more than the queue holds");
    const std::uint16_t index = free_.back();
    free_.pop_back();
    return index;
}

std::uint16_t DriverQueue::write_direct(const std::vector<Segment>& segments) {
    std::vector<std::uint16_t> indexes;
    indexes.reserve(segments.size());
    for (std::size_t i = 0; i < segments.size(); ++i) {
        indexes.push_back(take_descriptor());
    }
    for (std::size_t i = 0; i < segments.size(); ++i) {
        const bool last = i + 1 == segments.size();
        const auto flags = static_cast<std::uint16_t>((segments[i].writable ? flag_write : 0) |
                                                      (last ? 0 : flag_next));
        write_descriptor(indexes[i],
                         {.address = segments[i].at.value,
                          .length = segments[i].bytes,
                          .flags = flags,
                          .next = last ? std::uint16_t{0} : indexes[i + 1]});
    }
    const std::uint16_t head = indexes.front();
    taken_[head] = std::move(indexes);
    return head;
}

std::uint16_t DriverQueue::write_indirect(const std::vector<Segment>& segments) {
    const Gpa table = reserve(segments.size() * sizeof(RawDescriptor));
    for (std::size_t i = 0; i < segments.size(); ++i) {
        const bool last = i + 1 == segments.size();
        const auto flags = static_cast<std::uint16_t>((segments[i].writable ? flag_write : 0) |
                                                      (last ? 0 : flag_next));
        write_descriptor(*memory_,
                         table,
                         i,
                         {.address = segments[i].at.value,
                          .length = segments[i].bytes,
                          .flags = flags,
                          .next = static_cast<std::uint16_t>(last ? 0 : i + 1)});
    }
    const std::uint16_t head = take_descriptor();
    write_descriptor(head,
                     {.address = table.value,
                      .length = static_cast<std::uint32_t>(segments.size() * sizeof(RawDescriptor)),
                      .flags = flag_indirect,
                      .next = 0});
    taken_[head] = {head};
    return head;
}

std::uint16_t DriverQueue::used_waiting() const {
    // Acquire: pairs with the device's release of the used index.
    const std::uint16_t index = std::atomic_ref(*shared_field(Gpa{state().device_area.value + 2}))
                                    .load(std::memory_order_acquire);
    return static_cast<std::uint16_t>(index - used_index_);
}

std::optional<Used> DriverQueue::take_used() {
    if (used_waiting() == 0) {
        return std::nullopt;
    }
    const std::uint64_t slot = used_index_ & (options_.size - 1U);
    const Gpa element{state().device_area.value + 4 + 8 * slot};
    const auto head = GODWIT_MUST(memory_->load<std::uint32_t>(element)); // our own ring
    const auto written = GODWIT_MUST(memory_->load<std::uint32_t>(Gpa{element.value + 4}));
    ++used_index_;
    const auto chain = taken_.find(static_cast<std::uint16_t>(head));
    if (chain != taken_.end()) {
        free_.insert(free_.end(), chain->second.rbegin(), chain->second.rend());
        taken_.erase(chain);
    }
    return Used{.head = static_cast<std::uint16_t>(head), .written = written};
}

bool DriverQueue::doorbell_wanted() const {
    if (options_.features.event_index) {
        const std::uint16_t event = std::atomic_ref(*shared_field(Gpa{state().device_area.value +
                                                                      4 + 8ULL * options_.size}))
                                        .load(std::memory_order_relaxed);
        return static_cast<std::uint16_t>(available_index_ - event - 1) < 1;
    }
    return (std::atomic_ref(*shared_field(state().device_area)).load(std::memory_order_relaxed) &
            1U) == 0;
}

void DriverQueue::set_interrupts(bool wanted) {
    std::atomic_ref(*shared_field(state().driver_area))
        .store(wanted ? 0 : 1, std::memory_order_seq_cst);
}

void DriverQueue::set_used_event(std::uint16_t index) {
    std::atomic_ref(*shared_field(Gpa{state().driver_area.value + 4 + 2ULL * options_.size}))
        .store(index, std::memory_order_seq_cst);
}

Gpa DriverQueue::place(std::span<const std::byte> bytes) {
    const Gpa at = reserve(bytes.size());
    GODWIT_MUST(memory_->write(at, bytes)); // reserve() stays inside the data area
    return at;
}

Gpa DriverQueue::reserve(std::uint64_t bytes) {
    GODWIT_ASSERT(bytes <= options_.data_bytes);
    if (data_used_ + bytes > options_.data_bytes) {
        data_used_ = 0;
    }
    const Gpa at{options_.data.value + data_used_};
    data_used_ = round_up(data_used_ + bytes, 64);
    return at;
}

std::vector<std::byte> DriverQueue::read(Gpa at, std::size_t bytes) const {
    std::vector<std::byte> out(bytes);
    GODWIT_MUST(memory_->read(at, out)); // the test reads what it placed
    return out;
}

void DriverQueue::write_descriptor(memory::GuestMemory& memory,
                                   Gpa table,
                                   std::size_t index,
                                   const RawDescriptor& descriptor) {
    static_assert(sizeof(RawDescriptor) == 16);
    GODWIT_MUST(memory.store(Gpa{table.value + 16 * index}, descriptor)); // chosen by the test
}

void DriverQueue::write_descriptor(std::uint16_t index, const RawDescriptor& descriptor) {
    write_descriptor(*memory_, options_.rings, index, descriptor);
}

void DriverQueue::make_available(std::uint16_t head) {
    const std::uint64_t slot = available_index_ & (options_.size - 1U);
    std::atomic_ref(*shared_field(Gpa{state().driver_area.value + 4 + 2 * slot}))
        .store(head, std::memory_order_relaxed);
    set_available_index(static_cast<std::uint16_t>(available_index_ + 1));
}

void DriverQueue::set_available_index(std::uint16_t index) {
    available_index_ = index;
    // Pairs with the device's acquire in pop(), and, as a full barrier before the driver looks at
    // the device's wish, with VirtQueue::enable_doorbell().
    std::atomic_ref(*shared_field(Gpa{state().driver_area.value + 2}))
        .exchange(index, std::memory_order_seq_cst);
}

} // namespace godwit::virtio::testing
