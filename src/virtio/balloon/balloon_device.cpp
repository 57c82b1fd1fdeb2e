#include "virtio/balloon/balloon_device.h"

#include "base/log.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace godwit::virtio {

namespace {

// virtio 1.2, section 5.5.
constexpr std::uint64_t balloon_f_stats_vq = 1ULL << 1U;
constexpr std::uint64_t balloon_f_deflate_on_oom = 1ULL << 2U;
constexpr std::uint64_t balloon_f_page_reporting = 1ULL << 5U;

constexpr std::size_t inflate_queue = 0;
constexpr std::size_t deflate_queue = 1;
constexpr std::size_t third_queue = 2;
/// The specification numbers the reporting queue 4; Linux leaves no number for the queues of
/// features it has not got (virtio_pci_common.c), and uses 3, or 2 without statistics. All of them
/// are there.
constexpr std::size_t queue_count = 5;
constexpr std::uint16_t queue_size = 128;
constexpr int chains_per_turn = 16;
constexpr std::chrono::milliseconds statistics_interval_min{100};

/// Layout of struct virtio_balloon_config as far as our features reach.
struct BalloonConfig {
    std::uint32_t num_pages = 0;
    std::uint32_t actual = 0;
};
static_assert(sizeof(BalloonConfig) == 8);
constexpr std::uint32_t actual_offset = 4;

} // namespace

Result<std::unique_ptr<BalloonDevice>> BalloonDevice::create(Args args) {
    return std::unique_ptr<BalloonDevice>(new BalloonDevice(std::move(args), {}));
}

Result<std::unique_ptr<BalloonDevice>> BalloonDevice::restore(Args args,
                                                              const state::Section& saved) {
    const BalloonState state =
        GODWIT_TRY(load_balloon(saved, args.memory->ram_bytes() / page_size));
    return std::unique_ptr<BalloonDevice>(new BalloonDevice(std::move(args), state));
}

BalloonDevice::BalloonDevice(Args args, const BalloonState& state)
    : instance_(args.instance), memory_(std::move(args.memory)), reporting_(args.reporting),
      loop_(*args.loop), target_pages_(state.target_pages), actual_pages_(state.actual_pages) {}

BalloonDevice::~BalloonDevice() {
    loop_.run_and_wait([this] {
        stop();
        active_.reset();
    });
}

// --- what the operator sees ---

Status BalloonDevice::set_target(std::uint64_t bytes) {
    if (bytes % page_size != 0 || bytes >= memory_->ram_bytes() || bytes / page_size > UINT32_MAX) {
        return Error(ErrorCode::invalid_argument,
                     "a balloon of " + std::to_string(bytes) +
                         " bytes: give a multiple of 4096 below the machine's " +
                         std::to_string(memory_->ram_bytes()) + " bytes of RAM");
    }
    target_pages_.store(static_cast<std::uint32_t>(bytes / page_size), std::memory_order_release);
    loop_.run_and_wait([this] {
        if (active_) {
            host_->notify_config();
        }
    });
    return ok();
}

Status BalloonDevice::set_statistics_interval(std::chrono::milliseconds interval) {
    if (interval.count() != 0 && interval < statistics_interval_min) {
        return Error(ErrorCode::invalid_argument,
                     "statistics every " + std::to_string(interval.count()) +
                         " ms: give 0 (never) or at least " +
                         std::to_string(statistics_interval_min.count()));
    }
    loop_.run_and_wait([&] {
        interval_ = interval;
        arm_statistics_timer();
    });
    return ok();
}

BalloonUsage BalloonDevice::usage() const noexcept {
    return {.target_bytes = std::uint64_t{target_pages_.load()} * page_size,
            .actual_bytes = std::uint64_t{actual_pages_.load()} * page_size,
            .released_bytes = released_bytes_.load(std::memory_order_relaxed),
            .kept_bytes = kept_bytes_.load(std::memory_order_relaxed)};
}

BalloonStatistics BalloonDevice::statistics() const {
    const std::lock_guard lock(mutex_);
    return statistics_;
}

// --- what the driver sees ---

std::uint64_t BalloonDevice::features() const noexcept {
    return balloon_f_stats_vq | balloon_f_deflate_on_oom |
           (reporting_ == FreePageReporting::on ? balloon_f_page_reporting : 0U);
}

std::vector<std::uint16_t> BalloonDevice::queue_sizes() const {
    return std::vector<std::uint16_t>(queue_count, queue_size);
}

void BalloonDevice::read_config(std::uint32_t offset, std::span<std::byte> out) {
    const BalloonConfig config{.num_pages = target_pages_.load(std::memory_order_acquire),
                               .actual = actual_pages_.load(std::memory_order_acquire)};
    const auto bytes = std::as_bytes(std::span(&config, 1));
    std::ranges::fill(out, std::byte{0});
    if (offset < bytes.size()) {
        const std::size_t count = std::min(out.size(), bytes.size() - offset);
        std::ranges::copy(bytes.subspan(offset, count), out.begin());
    }
}

void BalloonDevice::write_config(std::uint32_t offset, std::span<const std::byte> data) {
    std::uint32_t actual = actual_pages_.load(std::memory_order_acquire);
    const auto bytes = std::as_writable_bytes(std::span(&actual, 1));
    for (std::size_t i = 0; i < data.size(); ++i) {
        const std::uint64_t at = std::uint64_t{offset} + i;
        if (at >= actual_offset && at < actual_offset + sizeof(actual)) {
            bytes[at - actual_offset] = data[i];
        }
    }
    actual_pages_.store(actual, std::memory_order_release);
}

// --- life ---

Status BalloonDevice::activate(Activation activation) {
    if (activation.queues.size() != queue_count || activation.doorbells.size() != queue_count) {
        return Error(ErrorCode::invalid_argument, "balloon: activated with another set of queues");
    }
    auto active = std::make_unique<Active>();
    active->features = activation.features;
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

void BalloonDevice::reset() {
    loop_.run_and_wait([this] {
        rest();
        active_.reset();
        actual_pages_.store(0, std::memory_order_release); // The guest has all its pages again.
    });
}

void BalloonDevice::wake() {
    loop_.run_and_wait([this] { start(); });
}

void BalloonDevice::quiesce() {
    loop_.run_and_wait([this] { stop(); });
}

void BalloonDevice::start() {
    if (std::exchange(awake_, true)) {
        return;
    }
    if (active_ && !active_->broken) {
        if (const Status status = watch(); !status.has_value()) {
            fail(status.error());
            return;
        }
        for (std::size_t i = 0; i < queue_count; ++i) {
            serve(i);
            if (active_->queues[i].has_value()) {
                host_->notify_queue(static_cast<std::uint16_t>(i));
            }
        }
    }
    arm_statistics_timer();
}

void BalloonDevice::stop() noexcept {
    awake_ = false;
    rest();
}

/// Nothing is watched, no timer runs, no buffer is kept.
void BalloonDevice::rest() noexcept {
    statistics_timer_.reset();
    if (!active_) {
        return;
    }
    active_->watches.clear();
    if (std::exchange(active_->has_report, false)) {
        active_->queues[third_queue]->undo_pop();
    }
}

Status BalloonDevice::watch() {
    for (std::size_t i = 0; i < queue_count; ++i) {
        active_->watches.push_back(
            GODWIT_TRY(loop_.watch(active_->doorbells[i].fd(), EPOLLIN, [this, i](std::uint32_t) {
                active_->doorbells[i].drain();
                serve(i);
            })));
    }
    return ok();
}

void BalloonDevice::fail(const Error& reason) {
    rest();
    active_->broken = true;
    host_->needs_reset(reason);
}

// --- queues ---

BalloonDevice::Role BalloonDevice::role_of(std::size_t queue) const noexcept {
    switch (queue) {
    case inflate_queue:
        return Role::inflate;
    case deflate_queue:
        return Role::deflate;
    case third_queue:
        return (active_->features & balloon_f_stats_vq) != 0 ? Role::statistics : Role::reporting;
    default:
        return Role::reporting;
    }
}

void BalloonDevice::serve(std::size_t index) {
    if (active_->broken || !active_->queues[index].has_value()) {
        return;
    }
    VirtQueue& queue = *active_->queues[index];
    const Role role = role_of(index);
    queue.disable_doorbell();
    const auto more = role == Role::statistics ? serve_statistics(queue) : serve_pages(queue, role);
    if (!more.has_value()) {
        fail(more.error());
        return;
    }
    if (queue.take_notification_due()) {
        host_->notify_queue(static_cast<std::uint16_t>(index));
    }
    if (queue.enable_doorbell() || *more) {
        active_->doorbells[index].signal(); // Another turn, after others had theirs.
    }
}

/// True if there may be more.
Result<bool> BalloonDevice::serve_pages(VirtQueue& queue, Role role) {
    for (int turn = 0; turn < chains_per_turn; ++turn) {
        Chain& chain = active_->chain;
        if (!GODWIT_TRY(queue.pop(chain))) {
            return false;
        }
        GODWIT_TRY(obey(chain, role));
        queue.push(chain, 0);
    }
    return true;
}

Status BalloonDevice::obey(const Chain& chain, Role role) {
    if (role == Role::reporting) {
        for (std::size_t i = 0; i < chain.writable.size(); ++i) {
            const std::uint64_t start = round_up(chain.writable_at[i].value, page_size);
            const std::uint64_t end =
                round_down(chain.writable_at[i].value + chain.writable[i].iov_len, page_size);
            if (start < end) {
                release(Gpa{start}, end - start);
            }
        }
        return ok();
    }
    const std::vector<PageRun> runs = GODWIT_TRY(runs_of(chain, *memory_));
    if (role == Role::inflate) {
        for (const PageRun& run : runs) {
            release(start_of(run.first), run.pages * page_size);
        }
    }
    return ok(); // A page taken out of the balloon comes back by being touched.
}

void BalloonDevice::release(Gpa start, std::uint64_t bytes) {
    const Status status = memory_->release(start, bytes);
    if (status.has_value()) {
        released_bytes_.fetch_add(bytes, std::memory_order_relaxed);
        return;
    }
    kept_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    if (!std::exchange(told_kept_, true)) {
        log::warn("balloon_page_kept",
                  {{"device", section_id().to_string()},
                   {"reason", status.error().to_string()},
                   {"hint", "RAM of huge pages cannot be given back in small ones"}});
    }
}

// --- statistics ---

/// Reads a report and keeps its buffer; an earlier one goes back first.
Result<bool> BalloonDevice::serve_statistics(VirtQueue& queue) {
    for (int turn = 0; turn < chains_per_turn; ++turn) {
        if (!queue.has_available()) {
            return false;
        }
        if (std::exchange(active_->has_report, false)) {
            queue.push(active_->report, 0);
        }
        if (!GODWIT_TRY(queue.pop(active_->report))) {
            return false;
        }
        active_->has_report = true;
        const std::lock_guard lock(mutex_);
        GODWIT_TRY(read_statistics(active_->report, statistics_));
    }
    return true;
}

void BalloonDevice::arm_statistics_timer() {
    statistics_timer_.reset();
    if (!awake_ || interval_.count() == 0) {
        return;
    }
    auto timer = loop_.schedule(interval_, interval_, [this] { ask_for_statistics(); });
    if (timer.has_value()) {
        statistics_timer_ = std::move(*timer);
    } else {
        log::warn("balloon_statistics_off", {{"reason", timer.error().to_string()}});
    }
}

/// Giving the buffer back is the question; the driver answers by offering it again.
void BalloonDevice::ask_for_statistics() {
    if (!active_ || active_->broken || !std::exchange(active_->has_report, false)) {
        return;
    }
    VirtQueue& queue = *active_->queues[third_queue];
    queue.push(active_->report, 0);
    if (queue.take_notification_due()) {
        host_->notify_queue(third_queue);
    }
}

// --- saving ---

std::vector<std::optional<QueueState>> BalloonDevice::queue_states() const {
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

Result<state::Saved> BalloonDevice::save() const {
    return state::Saved(save_balloon(
        {.target_pages = target_pages_.load(), .actual_pages = actual_pages_.load()}, instance_));
}

} // namespace godwit::virtio
