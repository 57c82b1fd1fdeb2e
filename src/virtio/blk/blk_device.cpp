#include "virtio/blk/blk_device.h"

#include "base/log.h"
#include "bus/little_endian.h"
#include "virtio/blk/blk_state.h"

#include <sys/epoll.h>

#include <array>
#include <bit>

namespace godwit::virtio {

namespace {
/// With so many requests in flight the doorbell stays off: the next completion, soon to come, looks
/// at the ring anyway, and the guest is spared an exit per request.
constexpr std::uint32_t busy_requests = 8;
/// How long a request may lie unseen that way if no completion comes.
constexpr std::chrono::milliseconds doorbell_off_max(4);
constexpr std::chrono::milliseconds for_ever(-1);
} // namespace

BlkDevice::Queue::Queue(std::uint16_t number, VirtQueue ring, sys::EventFd bell, BlkDevice& device)
    : index(number), virt_queue(std::move(ring)), doorbell(std::move(bell)),
      requests(virt_queue.size()) {
    free.reserve(requests.size());
    for (Request& request : requests) {
        request.queue = this;
        request.device = &device;
        free.push_back(&request);
    }
}

BlkDevice::BlkDevice(Args args)
    : options_(std::move(args.options)), loop_(args.loop),
      health_changed_(std::move(args.health_changed)),
      features_(blk_features(options_, args.disk->geometry())), geometry_(args.disk->geometry()),
      disk_(std::move(args.disk)) {}

Result<std::unique_ptr<BlkDevice>> BlkDevice::create(Args args) {
    GODWIT_TRY(validate(args.options));
    return std::unique_ptr<BlkDevice>(new BlkDevice(std::move(args)));
}

Result<std::unique_ptr<BlkDevice>> BlkDevice::restore(Args args, const state::Section& saved) {
    const BlkState known = GODWIT_TRY(decode_blk(saved));
    auto device = GODWIT_TRY(create(std::move(args)));
    GODWIT_TRY(
        check_same_disk(known, {.options = device->options_, .geometry = device->geometry_}));
    device->size_changed_ = known.geometry.bytes != device->geometry_.bytes;
    // The guest keeps what it was offered, even if this back end could do more or less: what a
    // driver took and the back end cannot do is refused by the back end, request by request.
    device->geometry_.can_discard = known.geometry.can_discard;
    device->geometry_.can_write_zeroes = known.geometry.can_write_zeroes;
    device->geometry_.logical_block_bytes = known.geometry.logical_block_bytes;
    device->features_ = blk_features(device->options_, device->geometry_);
    device->given_back_ = known.given_back;
    return device;
}

BlkDevice::~BlkDevice() {
    reset();
    loop_.run_and_wait([this] {
        *alive_ = false;
        disk_.reset();
    });
}

std::vector<std::uint16_t> BlkDevice::queue_sizes() const {
    return std::vector<std::uint16_t>(options_.queues, options_.queue_size);
}

void BlkDevice::read_config(std::uint32_t offset, std::span<std::byte> out) {
    const std::lock_guard lock(geometry_mutex_);
    bus::copy_from(blk_config(options_, geometry_), offset, out);
}

Result<std::uint64_t> BlkDevice::refresh() {
    Result<std::uint64_t> bytes(0);
    loop_.run_and_wait([&] {
        const Result<block::BlockGeometry> now = disk_->refresh();
        if (!now.has_value()) {
            bytes = now.error();
            return;
        }
        bytes = now->bytes;
        if (now->bytes == geometry_.bytes) {
            return;
        }
        {
            const std::lock_guard lock(geometry_mutex_);
            geometry_.bytes = now->bytes;
        }
        rules_.geometry.bytes = now->bytes;
        if (awake_) {
            host_->notify_config();
        } else {
            size_changed_ = true;
        }
    });
    return bytes;
}

std::uint64_t BlkDevice::capacity_bytes() const {
    const std::lock_guard lock(geometry_mutex_);
    return geometry_.bytes;
}

BlkStatistics BlkDevice::statistics() const noexcept {
    return {.requests = requests_.load(std::memory_order_relaxed),
            .read_bytes = read_bytes_.load(std::memory_order_relaxed),
            .written_bytes = written_bytes_.load(std::memory_order_relaxed),
            .errors = errors_.load(std::memory_order_relaxed)};
}

// --- life ---

Status BlkDevice::activate(Activation activation) {
    Status started;
    loop_.run_and_wait([&] { started = start(std::move(activation)); });
    return started;
}

Status BlkDevice::start(Activation activation) {
    GODWIT_ASSERT(queues_.empty()); // the transport activates once between resets
    rules_ = {.geometry = geometry_,
              .write_through = (activation.features & blk_feature::flush) == 0,
              .discard = (activation.features & blk_feature::discard) != 0,
              .write_zeroes = (activation.features & blk_feature::write_zeroes) != 0,
              .serial = options_.serial};
    std::vector<std::unique_ptr<Queue>> queues(activation.queues.size());
    for (std::size_t i = 0; i < queues.size(); ++i) {
        if (!activation.queues[i].has_value()) {
            continue;
        }
        std::vector<std::uint16_t> heads;
        for (const GivenBack& each : given_back_) {
            if (each.queue == i) {
                heads.push_back(each.head);
            }
        }
        GODWIT_TRY(activation.queues[i]->take_given_back(heads));
        queues[i] = std::make_unique<Queue>(static_cast<std::uint16_t>(i),
                                            std::move(*activation.queues[i]),
                                            std::move(activation.doorbells[i]),
                                            *this);
        Queue* queue = queues[i].get();
        queue->watch =
            // Edge triggered: it never needs draining, which saves a system call for each kick.
            GODWIT_TRY(loop_.watch(queue->doorbell.fd(),
                                   EPOLLIN | EPOLLET,
                                   [this, queue](std::uint32_t) { serve(*queue); }));
    }
    queues_ = std::move(queues);
    given_back_.clear();
    before_wait_ = loop_.before_wait([this](bool timed_out) { return before_wait(timed_out); });
    for (const auto& queue : queues_) {
        if (queue) {
            serve(*queue);
        }
    }
    return ok();
}

std::shared_ptr<std::promise<void>> BlkDevice::begin_drain(std::move_only_function<void()> first) {
    const auto drained = std::make_shared<std::promise<void>>();
    loop_.post([this, drained, begin = std::move(first)]() mutable {
        begin();
        disk_->set_patience(block::Patience::gives_back);
        drained_ = drained;
        when_drained();
    });
    return drained;
}

void BlkDevice::drain(std::move_only_function<void()> first) {
    begin_drain(std::move(first))->get_future().wait();
}

void BlkDevice::when_drained() {
    if (in_flight_ == 0 && drained_) {
        notify_all();
        std::exchange(drained_, nullptr)->set_value();
    }
}

void BlkDevice::reset() {
    drain([this] { draining_ = true; });
    loop_.run_and_wait([this] {
        before_wait_.reset();
        queues_.clear();
        given_back_.clear();
        broken_ = false;
        draining_ = false;
        disk_->set_patience(awake_ ? block::Patience::waits : block::Patience::gives_back);
    });
}

void BlkDevice::quiesce() {
    drain([this] { awake_ = false; });
}

bool BlkDevice::quiesce_until(std::chrono::steady_clock::time_point deadline) {
    const auto drained = begin_drain([this] { awake_ = false; });
    if (drained->get_future().wait_until(deadline) == std::future_status::ready) {
        return true;
    }
    // Not waited for: it is the disk's thread itself that may hang.
    loop_.post([this, alive = alive_, drained] {
        if (!*alive) {
            return;
        }
        if (drained_ == drained) {
            drained_ = nullptr;
        }
        work();
    });
    return false;
}

void BlkDevice::wake() {
    loop_.run_and_wait([this] { work(); });
}

void BlkDevice::work() {
    awake_ = true;
    disk_->set_patience(block::Patience::waits);
    for (const auto& queue : queues_) {
        if (queue && !broken_) {
            serve(*queue);
            host_->notify_queue(queue->index);
        }
    }
    if (std::exchange(size_changed_, false)) {
        host_->notify_config();
    }
}

std::vector<std::optional<QueueState>> BlkDevice::queue_states() const {
    std::vector<std::optional<QueueState>> states(options_.queues);
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        if (queues_[i]) {
            states[i] = queues_[i]->virt_queue.state();
        }
    }
    return states;
}

Result<state::Saved> BlkDevice::save() const {
    BlkState state{.options = options_, .geometry = geometry_, .given_back = given_back_};
    for (const auto& queue : queues_) {
        for (const std::uint16_t head :
             queue ? queue->virt_queue.given_back() : std::vector<std::uint16_t>()) {
            state.given_back.push_back({.queue = queue->index, .head = head});
        }
    }
    return encode(state, options_.instance);
}

// --- work, on the loop's thread ---

bool BlkDevice::serve(Queue& queue, bool patient) {
    if (!serving()) {
        return false;
    }
    queue.unwatched = true;
    queue.virt_queue.disable_doorbell();
    // A round is bounded, so that one busy queue does not keep the loop from the others.
    std::size_t budget = queue.requests.size();
    bool more = true;
    while (more && budget > 0) {
        while (budget > 0 && take_one(queue)) {
            --budget;
        }
        if (!serving() || budget == 0 || (patient && in_flight_ >= busy_requests)) {
            break; // Unwatched: before_wait() sees to it.
        }
        // The last look after asking for the doorbell catches what came in between.
        more = queue.virt_queue.enable_doorbell();
        queue.unwatched = more;
    }
    if (std::exchange(submitted_, false)) {
        disk_->kick();
    }
    return budget == 0;
}

/// Once for everything the loop had at hand: one submission and one interrupt for all of it.
std::chrono::milliseconds BlkDevice::before_wait(bool timed_out) {
    bool unwatched = false;
    bool unfinished = false;
    for (const auto& queue : queues_) {
        if (queue && queue->unwatched && serving()) {
            unfinished = serve(*queue, !timed_out) || unfinished;
            unwatched = unwatched || queue->unwatched;
        }
    }
    notify_all();
    if (unfinished) {
        return std::chrono::milliseconds(0);
    }
    return unwatched ? doorbell_off_max : for_ever;
}

bool BlkDevice::take_one(Queue& queue) {
    if (!serving()) {
        return false;
    }
    if (queue.free.empty()) {
        if (queue.virt_queue.has_available()) {
            fail(Error(ErrorCode::corrupt, "virtio-blk: more requests than the queue holds"));
        }
        return false;
    }
    Request& request = *queue.free.back();
    const Result<bool> popped = queue.virt_queue.pop(request.chain);
    if (!popped.has_value()) {
        fail(popped.error());
        return false;
    }
    if (!*popped) {
        return false;
    }
    const auto answered = read_blk_request(request.chain, rules_, request.block, request.segments);
    if (!answered.has_value()) {
        queue.virt_queue.undo_pop();
        fail(answered.error());
        return false;
    }
    queue.free.pop_back();
    if (answered->has_value()) {
        answer(request, **answered);
        return true;
    }
    request.block.done = &BlkDevice::done;
    request.block.owner = &request;
    ++in_flight_;
    submitted_ = true;
    disk_->submit(request.block);
    return true;
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): the interface passes it by value.
void BlkDevice::done(block::BlockRequest& block, Status status) noexcept {
    Request& request = *static_cast<Request*>(block.owner);
    request.device->complete(request, status);
}

void BlkDevice::complete(Request& request, const Status& status) {
    --in_flight_;
    if (!status.has_value() && status.error().code() == ErrorCode::cancelled && !serving()) {
        put_back(request);
        return;
    }
    note_health(status);
    const block::BlockRequest& block = request.block;
    if (status.has_value()) {
        auto& counter =
            block.operation == block::BlockOperation::read ? read_bytes_ : written_bytes_;
        const bool moves = block.operation == block::BlockOperation::read ||
                           block.operation == block::BlockOperation::write;
        counter.fetch_add(moves ? block.bytes : 0, std::memory_order_relaxed);
    }
    Queue& queue = *request.queue;
    answer(request, status.has_value() ? BlkStatus::ok : BlkStatus::io_error);
    if (in_flight_ == 0) {
        // Nothing else can follow in this batch: do not let a lone request wait.
        notify(queue);
        when_drained();
    }
}

/// The disk was told to wait for nobody, and would have.
void BlkDevice::put_back(Request& request) {
    request.queue->virt_queue.put_back(request.chain);
    request.queue->free.push_back(&request);
    when_drained();
}

void BlkDevice::answer(Request& request, BlkStatus status) {
    const auto byte = static_cast<std::byte>(status);
    request.chain.copy_in(request.chain.writable_bytes - 1, std::span(&byte, 1));
    Queue& queue = *request.queue;
    queue.virt_queue.push(request.chain, request.chain.writable_bytes);
    queue.notice_due = true;
    queue.free.push_back(&request);
    requests_.fetch_add(1, std::memory_order_relaxed);
}

void BlkDevice::note_health(const Status& status) {
    if (!status.has_value()) {
        errors_.fetch_add(1, std::memory_order_relaxed);
    }
    if (failing_ == !status.has_value()) {
        return;
    }
    failing_ = !status.has_value();
    failures_ += failing_ ? 1 : 0;
    // A disk that comes and goes, like an image on a full file system, is told of the 1st, 2nd,
    // 4th, 8th ... time.
    if (!std::has_single_bit(failures_)) {
        return;
    }
    if (failing_) {
        log::error("disk_failed",
                   {{"disk", disk_->description()},
                    {"reason", status.error().to_string()},
                    {"times", failures_}});
    } else {
        log::info("disk_works_again", {{"disk", disk_->description()}});
    }
    if (health_changed_) {
        health_changed_(failing_ ? &status.error() : nullptr);
    }
}

void BlkDevice::notify(Queue& queue) {
    if (std::exchange(queue.notice_due, false) && queue.virt_queue.take_notification_due()) {
        host_->notify_queue(queue.index);
    }
}

void BlkDevice::notify_all() {
    for (const auto& queue : queues_) {
        if (queue) {
            notify(*queue);
        }
    }
}

void BlkDevice::fail(const Error& reason) {
    broken_ = true;
    host_->needs_reset(reason);
}

} // namespace godwit::virtio
