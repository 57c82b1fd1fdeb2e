#include "virtio/console/console_device.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

namespace godwit::virtio {

namespace {

// virtio 1.2, section 5.3.
constexpr std::uint64_t console_f_size = 1ULL << 0U;
constexpr std::uint16_t receive_queue = 0;
constexpr std::uint16_t transmit_queue = 1;
constexpr std::size_t queue_count = 2;
constexpr std::uint16_t queue_size = 64;

/// Layout of struct virtio_console_config.
struct ConsoleConfig {
    std::uint16_t cols = 0;
    std::uint16_t rows = 0;
    std::uint32_t max_nr_ports = 0;
    std::uint32_t emerg_wr = 0;
};
static_assert(sizeof(ConsoleConfig) == 12);

constexpr int chains_per_turn = 64;
/// More in one go is no console output; serving it would stall the loop.
constexpr std::uint64_t output_chain_bytes_max = 1U << 20U;

constexpr std::uint32_t packed(ConsoleSize size) noexcept {
    return size.cols | (std::uint32_t{size.rows} << 16U);
}
constexpr ConsoleSize unpacked(std::uint32_t size) noexcept {
    return {.cols = static_cast<std::uint16_t>(size & 0xFFFFU),
            .rows = static_cast<std::uint16_t>(size >> 16U)};
}

} // namespace

Result<std::unique_ptr<ConsoleDevice>> ConsoleDevice::create(Args args) {
    const ConsoleState state{.size = args.size};
    return make(std::move(args), state);
}

Result<std::unique_ptr<ConsoleDevice>> ConsoleDevice::restore(Args args,
                                                              const state::Section& saved) {
    ConsoleState state = GODWIT_TRY(load_console(saved));
    return make(std::move(args), std::move(state));
}

Result<std::unique_ptr<ConsoleDevice>> ConsoleDevice::make(Args args, ConsoleState state) {
    sys::EventFd event = GODWIT_TRY(sys::EventFd::create());
    return std::unique_ptr<ConsoleDevice>(
        new ConsoleDevice(std::move(args), std::move(state), std::move(event)));
}

ConsoleDevice::ConsoleDevice(Args args, ConsoleState state, sys::EventFd input_event)
    : instance_(args.instance), output_(std::move(args.output)), ready_(std::move(args.ready)),
      loop_(*args.loop), input_event_(std::move(input_event)), size_(packed(state.size)),
      pending_(std::move(state.pending_input)) {}

ConsoleDevice::~ConsoleDevice() {
    loop_.run_and_wait([this] {
        stop();
        active_.reset();
    });
}

std::size_t ConsoleDevice::input(std::span<const std::byte> bytes) {
    std::size_t taken = 0;
    {
        const std::lock_guard lock(mutex_);
        if (accepting_) {
            taken = std::min(bytes.size(), console_pending_bytes_max - pending_.size());
        }
        for (const std::byte byte : bytes.first(taken)) {
            pending_.push_back(std::to_integer<char>(byte));
        }
        refused_ = refused_ || taken < bytes.size();
    }
    if (taken > 0) {
        input_event_.signal();
    }
    return taken;
}

void ConsoleDevice::set_size(ConsoleSize size) {
    if (size_.exchange(packed(size), std::memory_order_acq_rel) == packed(size)) {
        return;
    }
    loop_.run_and_wait([this] {
        if (active_) {
            host_->notify_config();
        }
    });
}

// --- what the driver sees ---

std::uint64_t ConsoleDevice::features() const noexcept {
    return console_f_size;
}

std::vector<std::uint16_t> ConsoleDevice::queue_sizes() const {
    return std::vector<std::uint16_t>(queue_count, queue_size);
}

void ConsoleDevice::read_config(std::uint32_t offset, std::span<std::byte> out) {
    const ConsoleSize size = unpacked(size_.load(std::memory_order_acquire));
    const ConsoleConfig config{.cols = size.cols, .rows = size.rows};
    const auto bytes = std::as_bytes(std::span(&config, 1));
    std::ranges::fill(out, std::byte{0});
    if (offset < bytes.size()) {
        const std::size_t count = std::min(out.size(), bytes.size() - offset);
        std::ranges::copy(bytes.subspan(offset, count), out.begin());
    }
}

void ConsoleDevice::write_config(std::uint32_t /*offset*/, std::span<const std::byte> /*data*/) {
    // emerg_wr is writable only with VIRTIO_CONSOLE_F_EMERG_WRITE, which is not offered.
}

// --- life ---

Status ConsoleDevice::activate(Activation activation) {
    if (activation.queues.size() != queue_count || activation.doorbells.size() != queue_count) {
        return Error(ErrorCode::invalid_argument, "console: activated with another set of queues");
    }
    auto active = std::make_unique<Active>();
    active->queues = std::move(activation.queues);
    active->doorbells = std::move(activation.doorbells);
    loop_.run_and_wait([&] {
        active_ = std::move(active);
        if (std::exchange(awake_, false)) {
            start();
        }
    });
    return ok();
}

void ConsoleDevice::reset() {
    loop_.run_and_wait([this] {
        if (active_) {
            active_->watches.clear();
        }
        active_.reset();
    });
}

void ConsoleDevice::wake() {
    loop_.run_and_wait([this] { start(); });
}

void ConsoleDevice::quiesce() {
    loop_.run_and_wait([this] { stop(); });
}

void ConsoleDevice::start() {
    if (std::exchange(awake_, true)) {
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        accepting_ = true;
    }
    if (active_ && !active_->broken) {
        if (const Status status = watch(); !status.has_value()) {
            fail(status.error());
            return;
        }
        serve_output();
        serve_input();
        host_->notify_queue(receive_queue);
        host_->notify_queue(transmit_queue);
    }
    tell_ready();
}

void ConsoleDevice::stop() noexcept {
    awake_ = false;
    {
        const std::lock_guard lock(mutex_);
        accepting_ = false;
    }
    if (active_) {
        active_->watches.clear();
    }
}

Status ConsoleDevice::watch() {
    auto& watches = active_->watches;
    watches.push_back(GODWIT_TRY(
        loop_.watch(active_->doorbells[receive_queue].fd(), EPOLLIN, [this](std::uint32_t) {
            active_->doorbells[receive_queue].drain();
            serve_input();
        })));
    watches.push_back(GODWIT_TRY(loop_.watch(input_event_.fd(), EPOLLIN, [this](std::uint32_t) {
        input_event_.drain();
        serve_input();
    })));
    watches.push_back(GODWIT_TRY(
        loop_.watch(active_->doorbells[transmit_queue].fd(), EPOLLIN, [this](std::uint32_t) {
            active_->doorbells[transmit_queue].drain();
            serve_output();
        })));
    return ok();
}

void ConsoleDevice::notify_if_due(std::uint16_t queue) {
    if (active_->queues[queue]->take_notification_due()) {
        host_->notify_queue(queue);
    }
}

void ConsoleDevice::fail(const Error& reason) {
    active_->watches.clear();
    active_->broken = true;
    host_->needs_reset(reason);
}

// --- input ---

void ConsoleDevice::serve_input() {
    if (active_->broken || !active_->queues[receive_queue].has_value()) {
        return;
    }
    VirtQueue& queue = *active_->queues[receive_queue];
    queue.disable_doorbell();
    const auto left = give_input(queue);
    if (!left.has_value()) {
        fail(left.error());
        return;
    }
    notify_if_due(receive_queue);
    // Only with input waiting does it matter when the driver adds a buffer.
    if (*left && queue.enable_doorbell()) {
        active_->doorbells[receive_queue].signal();
    }
    tell_ready();
}

/// Moves pending bytes into guest buffers; true if some are left.
Result<bool> ConsoleDevice::give_input(VirtQueue& queue) {
    const std::lock_guard lock(mutex_);
    for (int turn = 0; turn < chains_per_turn && !pending_.empty(); ++turn) {
        Chain& chain = active_->chain;
        if (!GODWIT_TRY(queue.pop(chain))) {
            break;
        }
        if (chain.writable_bytes == 0) {
            return Error(ErrorCode::corrupt, "console: a receive buffer of no bytes");
        }
        const std::size_t count = chain.copy_in(0, std::as_bytes(std::span(pending_)));
        queue.push(chain, count);
        pending_.erase(0, count);
    }
    return !pending_.empty();
}

void ConsoleDevice::tell_ready() {
    {
        const std::lock_guard lock(mutex_);
        if (!refused_ || !accepting_ || pending_.size() == console_pending_bytes_max) {
            return;
        }
        refused_ = false;
    }
    if (ready_) {
        ready_();
    }
}

// --- output ---

void ConsoleDevice::serve_output() {
    if (active_->broken || !active_->queues[transmit_queue].has_value()) {
        return;
    }
    VirtQueue& queue = *active_->queues[transmit_queue];
    queue.disable_doorbell();
    const auto more = take_output(queue);
    if (!more.has_value()) {
        fail(more.error());
        return;
    }
    notify_if_due(transmit_queue);
    if (*more || queue.enable_doorbell()) {
        active_->doorbells[transmit_queue].signal(); // Another turn, after others had theirs.
    }
}

/// Hands on what the guest has written; true if there may be more.
Result<bool> ConsoleDevice::take_output(VirtQueue& queue) {
    for (int turn = 0; turn < chains_per_turn; ++turn) {
        Chain& chain = active_->chain;
        if (!GODWIT_TRY(queue.pop(chain))) {
            return false;
        }
        if (chain.readable_bytes > output_chain_bytes_max) {
            return Error(ErrorCode::corrupt,
                         "console: " + std::to_string(chain.readable_bytes) +
                             " bytes of output in one buffer");
        }
        for (const iovec& segment : chain.readable) {
            output_({static_cast<const std::byte*>(segment.iov_base), segment.iov_len});
        }
        queue.push(chain, 0);
    }
    return true;
}

// --- saving ---

std::vector<std::optional<QueueState>> ConsoleDevice::queue_states() const {
    std::vector<std::optional<QueueState>> states(queue_count);
    loop_.run_and_wait([&] {
        for (std::size_t i = 0; active_ && i < queue_count; ++i) {
            if (active_->queues[i].has_value()) {
                states[i] = active_->queues[i]->state();
            }
        }
    });
    return states;
}

Result<state::Saved> ConsoleDevice::save() const {
    ConsoleState state{.size = unpacked(size_.load(std::memory_order_acquire))};
    {
        const std::lock_guard lock(mutex_);
        state.pending_input = pending_;
    }
    return state::Saved(save_console(state, instance_));
}

} // namespace godwit::virtio
