#include "virtio/virt_queue.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

namespace godwit::virtio {

namespace {

// Layout of the three areas (virtio 1.2, sections 2.7.5, 2.7.6 and 2.7.8); all little-endian, as
// is every host this runs on.
static_assert(std::endian::native == std::endian::little);

struct Descriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags;
    std::uint16_t next;
};
static_assert(sizeof(Descriptor) == 16);

constexpr std::uint16_t descriptor_next = 1;
constexpr std::uint16_t descriptor_write = 2;
constexpr std::uint16_t descriptor_indirect = 4;

constexpr std::uint16_t available_no_interrupt = 1;
constexpr std::uint16_t used_no_notify = 1;

struct UsedElement {
    std::uint32_t id;
    std::uint32_t length;
};
static_assert(sizeof(UsedElement) == 8);

constexpr std::uint64_t flags_offset = 0;
constexpr std::uint64_t index_offset = 2;
constexpr std::uint64_t ring_offset = 4;

constexpr std::uint64_t descriptor_area_bytes(std::uint16_t size) {
    return sizeof(Descriptor) * size;
}
constexpr std::uint64_t driver_area_bytes(std::uint16_t size) {
    return ring_offset + sizeof(std::uint16_t) * size + sizeof(std::uint16_t);
}
constexpr std::uint64_t device_area_bytes(std::uint16_t size) {
    return ring_offset + sizeof(UsedElement) * size + sizeof(std::uint16_t);
}
constexpr std::uint64_t used_event_offset(std::uint16_t size) {
    return ring_offset + sizeof(std::uint16_t) * size;
}
constexpr std::uint64_t available_event_offset(std::uint16_t size) {
    return ring_offset + sizeof(UsedElement) * size;
}

/// A 16-bit ring field shared with the driver. create() has checked the alignment of its area.
std::atomic_ref<std::uint16_t> field(std::byte* area, std::uint64_t offset) {
    return std::atomic_ref<std::uint16_t>(*std::launder(
        // NOLINTNEXTLINE(bugprone-casting-through-void): an aligned field of guest memory.
        static_cast<std::uint16_t*>(static_cast<void*>(area + offset))));
}

/// One copy of a descriptor. The fence keeps the compiler from reading guest memory a second time
/// after the copy has been tested.
Descriptor read_descriptor(const std::byte* table, std::size_t index) {
    Descriptor descriptor{};
    std::memcpy(&descriptor, table + index * sizeof(Descriptor), sizeof(Descriptor));
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return descriptor;
}

Error broken(const char* rule, std::uint64_t value) {
    return Error(ErrorCode::corrupt,
                 std::string("virtqueue: ") + rule + " (" + std::to_string(value) + ")");
}

} // namespace

std::size_t Chain::copy_out(std::uint64_t offset, std::span<std::byte> out) const {
    std::size_t copied = 0;
    for (const iovec& segment : readable) {
        if (copied == out.size()) {
            break;
        }
        if (offset >= segment.iov_len) {
            offset -= segment.iov_len;
            continue;
        }
        const std::size_t part = std::min(segment.iov_len - offset, out.size() - copied);
        std::memcpy(out.data() + copied, static_cast<std::byte*>(segment.iov_base) + offset, part);
        copied += part;
        offset = 0;
    }
    return copied;
}

std::size_t Chain::copy_in(std::uint64_t offset, std::span<const std::byte> data) const {
    std::size_t copied = 0;
    for (const iovec& segment : writable) {
        if (copied == data.size()) {
            break;
        }
        if (offset >= segment.iov_len) {
            offset -= segment.iov_len;
            continue;
        }
        const std::size_t part = std::min(segment.iov_len - offset, data.size() - copied);
        std::memcpy(static_cast<std::byte*>(segment.iov_base) + offset, data.data() + copied, part);
        copied += part;
        offset = 0;
    }
    return copied;
}

VirtQueue::VirtQueue(std::shared_ptr<memory::GuestMemory> memory,
                     const QueueState& state,
                     Features features)
    : memory_(std::move(memory)), state_(state), features_(features),
      signalled_used_(state.next_used) {}

Result<VirtQueue> VirtQueue::create(std::shared_ptr<memory::GuestMemory> memory,
                                    const QueueState& state,
                                    Features features) {
    if (!state.ready) {
        return Error(ErrorCode::invalid_argument, "virtqueue: not enabled by the driver");
    }
    if (!std::has_single_bit(state.size) || state.size > queue_size_max) {
        return broken("size is not a power of two within the limit", state.size);
    }
    if (state.descriptors.value % 16 != 0) {
        return broken("descriptor area is not aligned to 16", state.descriptors.value);
    }
    if (state.driver_area.value % 2 != 0) {
        return broken("driver area is not aligned to 2", state.driver_area.value);
    }
    if (state.device_area.value % 4 != 0) {
        return broken("device area is not aligned to 4", state.device_area.value);
    }
    VirtQueue queue(std::move(memory), state, features);
    memory::GuestMemory& ram = *queue.memory_;
    queue.descriptors_ =
        GODWIT_TRY(ram.view(state.descriptors, descriptor_area_bytes(state.size))).data();
    queue.available_ =
        GODWIT_TRY(ram.mutable_view(state.driver_area, driver_area_bytes(state.size))).data();
    queue.used_ =
        GODWIT_TRY(ram.mutable_view(state.device_area, device_area_bytes(state.size))).data();
    return queue;
}

void VirtQueue::keep_record(InflightRing record) {
    record_ = std::move(record);
    std::optional<std::vector<std::uint16_t>> unfinished = record_->recover(state_.next_used);
    if (!unfinished.has_value()) {
        return;
    }
    again_.assign(unfinished->rbegin(), unfinished->rend());
    // Chains are taken in the order of the ring: those given back, and those still out.
    state_.next_available = static_cast<std::uint16_t>(state_.next_used + again_.size());
}

void VirtQueue::put_back(const Chain& chain) {
    GODWIT_ASSERT(outstanding_ > 0);
    --outstanding_;
    again_.insert(again_.begin(), chain.head);
}

Status VirtQueue::take_given_back(std::span<const std::uint16_t> heads) {
    if (heads.empty()) {
        return ok(); // What keep_record() has found is not given up for that.
    }
    // Each was taken from the ring and is not used yet.
    const auto out = static_cast<std::uint16_t>(state_.next_available - state_.next_used);
    if (heads.size() > out || out > state_.size) {
        return broken("more chains were given back than the driver has offered", heads.size());
    }
    std::vector<std::uint16_t> sorted(heads.begin(), heads.end());
    std::ranges::sort(sorted);
    if (!sorted.empty() && sorted.back() >= state_.size) {
        return broken("a chain was given back that does not exist", sorted.back());
    }
    if (std::ranges::adjacent_find(sorted) != sorted.end()) {
        return broken("a chain was given back twice", *std::ranges::adjacent_find(sorted));
    }
    again_.assign(heads.rbegin(), heads.rend());
    return ok();
}

bool VirtQueue::has_available() const noexcept {
    if (!again_.empty()) {
        return true;
    }
    // Acquire: pairs with the driver's release of the index after it filled ring and descriptors.
    return field(available_, index_offset).load(std::memory_order_acquire) != state_.next_available;
}

Result<bool> VirtQueue::pop(Chain& chain) {
    popped_again_.reset();
    if (!again_.empty()) {
        chain.head = again_.back();
        GODWIT_TRY(gather(chain));
        again_.pop_back();
        popped_again_ = chain.head;
        ++outstanding_;
        return true;
    }
    // Acquire: pairs with the driver's release of the index after it filled ring and descriptors.
    const std::uint16_t offered = field(available_, index_offset).load(std::memory_order_acquire);
    const auto waiting = static_cast<std::uint16_t>(offered - state_.next_available);
    if (waiting == 0) {
        return false;
    }
    if (waiting > state_.size) {
        return broken("more chains offered than the queue holds", waiting);
    }
    if (outstanding_ >= state_.size) {
        return broken("a descriptor is offered again before it was used", outstanding_);
    }
    const std::uint64_t slot = state_.next_available & (state_.size - 1U);
    chain.head = field(available_, ring_offset + slot * sizeof(std::uint16_t))
                     .load(std::memory_order_relaxed);
    GODWIT_TRY(gather(chain));
    if (record_.has_value()) {
        record_->begin(chain.head);
    }
    last_popped_ = chain.head;
    ++state_.next_available;
    ++outstanding_;
    return true;
}

Status VirtQueue::gather(Chain& chain) const {
    chain.readable.clear();
    chain.writable.clear();
    chain.writable_at.clear();
    chain.readable_bytes = 0;
    chain.writable_bytes = 0;
    std::uint16_t index = chain.head;
    // A chain without a loop visits each descriptor at most once.
    for (std::uint32_t visited = 0; visited < state_.size; ++visited) {
        if (index >= state_.size) {
            return broken("descriptor number beyond the table", index);
        }
        const Descriptor descriptor = read_descriptor(descriptors_, index);
        if ((descriptor.flags & descriptor_indirect) != 0) {
            if (!features_.indirect) {
                return broken("indirect descriptor without the feature", index);
            }
            if ((descriptor.flags & descriptor_next) != 0) {
                return broken("indirect descriptor with a successor", index);
            }
            return add_indirect(chain, Gpa{descriptor.address}, descriptor.length);
        }
        GODWIT_TRY(add_segment(chain,
                               Gpa{descriptor.address},
                               descriptor.length,
                               (descriptor.flags & descriptor_write) != 0));
        if ((descriptor.flags & descriptor_next) == 0) {
            return ok();
        }
        index = descriptor.next;
    }
    return broken("descriptor chain has a loop", chain.head);
}

Status VirtQueue::add_indirect(Chain& chain, Gpa table, std::uint32_t table_bytes) const {
    const std::size_t entries = table_bytes / sizeof(Descriptor);
    if (table_bytes % sizeof(Descriptor) != 0 || entries == 0 || entries > chain_segments_max) {
        return broken("indirect table of a bad length", table_bytes);
    }
    const auto bytes = GODWIT_TRY(memory_->view(table, table_bytes));
    std::size_t index = 0;
    for (std::size_t visited = 0; visited < entries; ++visited) {
        if (index >= entries) {
            return broken("descriptor number beyond the indirect table", index);
        }
        const Descriptor descriptor = read_descriptor(bytes.data(), index);
        if ((descriptor.flags & descriptor_indirect) != 0) {
            return broken("indirect descriptor inside an indirect table", index);
        }
        GODWIT_TRY(add_segment(chain,
                               Gpa{descriptor.address},
                               descriptor.length,
                               (descriptor.flags & descriptor_write) != 0));
        if ((descriptor.flags & descriptor_next) == 0) {
            return ok();
        }
        index = descriptor.next;
    }
    return broken("indirect descriptor chain has a loop", table.value);
}

Status VirtQueue::add_segment(Chain& chain, Gpa start, std::uint32_t bytes, bool writable) const {
    if (bytes == 0) {
        return broken("descriptor of no length", start.value);
    }
    if (chain.readable.size() + chain.writable.size() >= chain_segments_max) {
        return broken("chain of too many descriptors", chain_segments_max);
    }
    if (chain.readable_bytes + chain.writable_bytes + bytes > chain_bytes_max) {
        return broken("chain of too many bytes", chain.readable_bytes + chain.writable_bytes);
    }
    const auto range = GODWIT_TRY(memory_->mutable_view(start, bytes));
    const iovec segment{.iov_base = range.data(), .iov_len = range.size()};
    if (writable) {
        chain.writable.push_back(segment);
        chain.writable_at.push_back(start);
        chain.writable_bytes += bytes;
        return ok();
    }
    if (!chain.writable.empty()) {
        return broken("readable descriptor after a writable one", start.value);
    }
    chain.readable.push_back(segment);
    chain.readable_bytes += bytes;
    return ok();
}

void VirtQueue::undo_pop() noexcept {
    GODWIT_ASSERT(outstanding_ > 0);
    --outstanding_;
    if (popped_again_.has_value()) {
        again_.push_back(*popped_again_);
        return;
    }
    if (record_.has_value()) {
        record_->revoke(last_popped_);
    }
    --state_.next_available;
}

void VirtQueue::push(const Chain& chain, std::uint64_t written) {
    if (record_.has_value()) {
        record_->prepare_end(chain.head);
    }
    fill_used(chain, written);
    publish_used();
    if (record_.has_value()) {
        record_->end(chain.head, state_.next_used);
    }
}

void VirtQueue::push_together(std::span<const Completion> completions) {
    GODWIT_ASSERT(!record_.has_value()); // a record knows batches of one only
    for (const Completion& completion : completions) {
        fill_used(*completion.chain, completion.written);
    }
    publish_used();
}

/// Writes the next used element; the driver does not look at it before publish_used().
void VirtQueue::fill_used(const Chain& chain, std::uint64_t written) {
    GODWIT_ASSERT(outstanding_ > 0 && written <= chain.writable_bytes);
    std::uint64_t left = written;
    for (std::size_t i = 0; left > 0; ++i) {
        const std::uint64_t part = std::min<std::uint64_t>(left, chain.writable[i].iov_len);
        memory_->note_written(chain.writable_at[i], part);
        left -= part;
    }
    const std::uint64_t slot = state_.next_used & (state_.size - 1U);
    const std::uint64_t offset = ring_offset + slot * sizeof(UsedElement);
    const UsedElement element{.id = chain.head, .length = static_cast<std::uint32_t>(written)};
    std::memcpy(used_ + offset, &element, sizeof(element));
    ++state_.next_used;
    --outstanding_;
    memory_->note_written(Gpa{state_.device_area.value + offset}, sizeof(element));
}

void VirtQueue::publish_used() {
    // Release: pairs with the driver's acquire of the index before it reads element and buffers.
    field(used_, index_offset).store(state_.next_used, std::memory_order_release);
    memory_->note_written(Gpa{state_.device_area.value + index_offset}, sizeof(std::uint16_t));
}

bool VirtQueue::take_notification_due() {
    const std::uint16_t before = signalled_used_;
    const std::uint16_t now = state_.next_used;
    if (before == now) {
        return false;
    }
    signalled_used_ = now;
    // Full barrier between our index and the driver's wish: pairs with the driver's barrier between
    // writing its wish and reading our index (2.7.7.2). A read-modify-write of our own index rather
    // than a fence, which the thread sanitizer does not know.
    field(used_, index_offset).fetch_add(0, std::memory_order_seq_cst);
    if (!features_.event_index) {
        const std::uint16_t flags = field(available_, flags_offset).load(std::memory_order_relaxed);
        return (flags & available_no_interrupt) == 0;
    }
    const std::uint16_t event =
        field(available_, used_event_offset(state_.size)).load(std::memory_order_relaxed);
    return static_cast<std::uint16_t>(now - event - 1) < static_cast<std::uint16_t>(now - before);
}

void VirtQueue::disable_doorbell() noexcept {
    if (features_.event_index) {
        return; // An event index that stays behind is never crossed: no more kicks.
    }
    field(used_, flags_offset).store(used_no_notify, std::memory_order_relaxed);
    memory_->note_written(Gpa{state_.device_area.value + flags_offset}, sizeof(std::uint16_t));
}

bool VirtQueue::enable_doorbell() noexcept {
    const std::uint64_t offset =
        features_.event_index ? available_event_offset(state_.size) : flags_offset;
    const std::uint16_t value = features_.event_index ? state_.next_available : std::uint16_t{0};
    // Full barrier between our wish and the available index: pairs with the driver's barrier
    // between its index and reading our wish (2.7.10).
    field(used_, offset).exchange(value, std::memory_order_seq_cst);
    memory_->note_written(Gpa{state_.device_area.value + offset}, sizeof(std::uint16_t));
    return has_available();
}

} // namespace godwit::virtio
