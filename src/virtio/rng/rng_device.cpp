#include "virtio/rng/rng_device.h"

#include "base/log.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>

namespace godwit::virtio {

Result<std::unique_ptr<RngDevice>> RngDevice::create(const Args& args) {
    return std::unique_ptr<RngDevice>(new RngDevice(args));
}

RngDevice::~RngDevice() {
    reset();
    loop_.run_and_wait([this] { period_.reset(); });
}

void RngDevice::read_config(std::uint32_t /*offset*/, std::span<std::byte> out) {
    std::ranges::fill(out, std::byte{0});
}

Status RngDevice::activate(Activation activation) {
    Status started;
    loop_.run_and_wait([&] { started = start(std::move(activation)); });
    return started;
}

Status RngDevice::start(Activation activation) {
    if (activation.queues.size() != 1 || !activation.queues.front().has_value()) {
        return ok(); // A driver without its queue gets nothing, which is what it asked for.
    }
    doorbell_ = std::move(activation.doorbells.front());
    watch_ = GODWIT_TRY(loop_.watch(doorbell_->fd(), EPOLLIN, [this](std::uint32_t) {
        doorbell_->drain();
        serve();
    }));
    queue_ = std::move(activation.queues.front());
    serve();
    return ok();
}

void RngDevice::reset() {
    loop_.run_and_wait([this] {
        watch_.reset();
        queue_.reset();
        doorbell_.reset();
        broken_ = false;
    });
}

void RngDevice::quiesce() {
    // Every chain is answered at once, so nothing is in flight between two tasks of the loop.
    loop_.run_and_wait([this] {
        awake_ = false;
        period_.reset();
    });
}

void RngDevice::wake() {
    loop_.run_and_wait([this] {
        awake_ = true;
        bytes_left_ = rng_bytes_per_period;
        period_.reset();
        if (queue_.has_value() && !broken_) {
            serve();
            host_->notify_queue(0);
        }
    });
}

std::vector<std::optional<QueueState>> RngDevice::queue_states() const {
    return {queue_.has_value() ? std::optional(queue_->state()) : std::nullopt};
}

void RngDevice::serve() {
    if (!awake_ || broken_ || !queue_.has_value()) {
        return;
    }
    queue_->disable_doorbell();
    bool more = true;
    while (more && bytes_left_ > 0) {
        while (bytes_left_ > 0 && serve_one()) {
        }
        more = !broken_ && bytes_left_ > 0 && queue_->enable_doorbell();
    }
    if (!broken_ && bytes_left_ == 0) {
        wait_for_next_period();
    }
    if (queue_->take_notification_due()) {
        host_->notify_queue(0);
    }
}

bool RngDevice::serve_one() {
    const Result<bool> popped = queue_->pop(chain_);
    if (!popped.has_value()) {
        fail(popped.error());
        return false;
    }
    if (!*popped) {
        return false;
    }
    if (chain_.writable_bytes == 0) {
        queue_->undo_pop();
        fail(Error(ErrorCode::corrupt, "virtio-rng: a buffer that cannot be written"));
        return false;
    }
    const std::size_t bytes = fill();
    queue_->push(chain_, bytes);
    // A buffer costs at least a few bytes of the allowance, however small it is.
    bytes_left_ -= std::min(bytes_left_, std::max<std::size_t>(bytes, 64));
    return true;
}

std::size_t RngDevice::fill() {
    std::array<std::byte, rng_bytes_per_chain_max> buffer{};
    const auto part =
        std::span(buffer).first(std::min<std::uint64_t>(chain_.writable_bytes, buffer.size()));
    const Status filled = random_.random_bytes(part);
    if (!filled.has_value()) {
        if (!std::exchange(source_failed_, true)) {
            log::error("entropy_source_failed", {{"reason", filled.error().to_string()}});
        }
        return 0;
    }
    source_failed_ = false;
    return chain_.copy_in(0, part);
}

void RngDevice::wait_for_next_period() {
    auto timer = loop_.schedule(rng_period, std::chrono::nanoseconds(0), [this] {
        bytes_left_ = rng_bytes_per_period;
        serve();
    });
    if (timer.has_value()) {
        period_ = std::move(*timer);
        return;
    }
    // No descriptor for a timer: serve on without the limit rather than leave the guest waiting.
    bytes_left_ = rng_bytes_per_period;
    doorbell_->signal();
}

void RngDevice::fail(const Error& reason) {
    broken_ = true;
    host_->needs_reset(reason);
}

} // namespace godwit::virtio
