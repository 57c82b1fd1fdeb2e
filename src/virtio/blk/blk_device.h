#pragma once

/// A virtio disk (virtio 1.2, section 5.2) over a block::BlockDevice: several queues, reads,
/// writes, flushes, discard, write-zeroes, serial number, size changes. Errors of the back end
/// reach the guest as I/O errors and the operator once; malformed chains ask for a reset. Requests
/// for which a disk waits for room do not keep it from coming to rest: they are taken again by
/// wake(), or by the next owner.
///
/// Thread rule: VirtioDevice's, plus refresh() on the control thread. All work happens on the event
/// loop it is given; other threads only hand tasks to it and wait. Those calls must not be made on
/// the loop's own thread.

#include "base/result.h"
#include "block/block_device.h"
#include "sys/event_loop.h"
#include "virtio/blk/blk_config.h"
#include "virtio/blk/blk_request.h"
#include "virtio/blk/blk_state.h"
#include "virtio/virtio_device.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace godwit::virtio {

/// What `godwit info` shows. Read at any time.
struct BlkStatistics {
    std::uint64_t requests = 0; ///< Answered, whatever the answer.
    std::uint64_t read_bytes = 0;
    std::uint64_t written_bytes = 0;
    std::uint64_t errors = 0; ///< Answered with an I/O error of the back end.
};

class BlkDevice final : public VirtioDevice {
  public:
    static constexpr state::SectionType section = blk_section;

    /// Called on the loop's thread when the disk begins to fail, with the reason, and with null
    /// when it works again.
    using HealthChanged = std::function<void(const Error* reason)>;

    struct Args {
        BlkOptions options;
        std::unique_ptr<block::BlockDevice> disk; ///< Lives on `loop`.
        sys::EventLoop& loop;                     ///< Runs during the device's whole life.
        HealthChanged health_changed;             ///< May be empty.
    };

    [[nodiscard]] static Result<std::unique_ptr<BlkDevice>> create(Args args);
    /// From section "virtio-blk"; conflict if the disk is another one than the guest knew.
    [[nodiscard]] static Result<std::unique_ptr<BlkDevice>> restore(Args args,
                                                                    const state::Section& saved);
    ~BlkDevice() override;

    /// Asks the back end for its size and tells the guest if it changed. Gives the size in bytes.
    [[nodiscard]] Result<std::uint64_t> refresh();
    /// Any thread.
    [[nodiscard]] BlkStatistics statistics() const noexcept;
    [[nodiscard]] std::uint64_t capacity_bytes() const;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::block; }
    [[nodiscard]] std::uint64_t features() const noexcept override { return features_; }
    [[nodiscard]] std::vector<std::uint16_t> queue_sizes() const override;
    void read_config(std::uint32_t offset, std::span<std::byte> out) override;
    /// Nothing in it can be written: the cache mode is settled by the FLUSH feature.
    void write_config(std::uint32_t /*offset*/, std::span<const std::byte> /*data*/) override {}
    void attach(DeviceHost& host) override { host_ = &host; }
    [[nodiscard]] Status activate(Activation activation) override;
    void reset() override;
    void wake() override;
    void quiesce() override;
    [[nodiscard]] bool quiesce_until(std::chrono::steady_clock::time_point deadline) override;
    [[nodiscard]] std::vector<std::optional<QueueState>> queue_states() const override;
    /// What is announced is what every build reads; given back requests make it a newer one.
    [[nodiscard]] state::SectionType section_type() const override {
        return {.name = section.name, .version = 1};
    }
    [[nodiscard]] state::SectionId section_id() const override {
        return section.id(options_.instance);
    }
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    struct Queue;
    /// A chain on its way. They live in their queue's pool.
    struct Request {
        block::BlockRequest block;
        Chain chain;
        std::vector<iovec> segments;
        Queue* queue = nullptr;
        BlkDevice* device = nullptr;
    };
    struct Queue {
        Queue(std::uint16_t number, VirtQueue ring, sys::EventFd bell, BlkDevice& device);
        std::uint16_t index;
        VirtQueue virt_queue;
        sys::EventFd doorbell;
        std::vector<Request> requests; ///< As many as the ring holds; never resized.
        std::vector<Request*> free;
        bool notice_due = false;      ///< Something was pushed since the last notify().
        bool unwatched = false;       ///< The doorbell is off: the next pass has to look.
        sys::EventLoop::Handle watch; ///< Last, so that it goes before the descriptor.
    };

    explicit BlkDevice(Args args);
    // All on the loop's thread.
    [[nodiscard]] Status start(Activation activation);
    [[nodiscard]] bool serving() const noexcept { return awake_ && !broken_ && !draining_; }
    /// `patient`: may leave the doorbell off while completions are due that come back here.
    /// True if more may be there than a round takes.
    bool serve(Queue& queue, bool patient = true);
    [[nodiscard]] std::chrono::milliseconds before_wait(bool timed_out);
    [[nodiscard]] bool take_one(Queue& queue);
    static void done(block::BlockRequest& block, Status status) noexcept;
    void complete(Request& request, const Status& status);
    void put_back(Request& request);
    void answer(Request& request, BlkStatus status);
    void note_health(const Status& status);
    void notify(Queue& queue);
    void notify_all();
    void fail(const Error& reason);
    void when_drained();
    /// Any other thread: waits until nothing is in flight and `draining_` or rest keeps it so.
    /// Any thread but the loop's: runs `first` there; the promise is kept when nothing is in
    /// flight.
    [[nodiscard]] std::shared_ptr<std::promise<void>>
    begin_drain(std::move_only_function<void()> first);
    void drain(std::move_only_function<void()> first);
    void work();

    BlkOptions options_;
    sys::EventLoop& loop_;
    HealthChanged health_changed_;
    std::uint64_t features_ = 0;
    DeviceHost* host_ = nullptr;

    mutable std::mutex geometry_mutex_;
    block::BlockGeometry geometry_; ///< Guarded by geometry_mutex_; written on the loop.

    // On the loop's thread only, or at rest.
    std::unique_ptr<block::BlockDevice> disk_;
    std::vector<GivenBack> given_back_; ///< Of a predecessor, until activate().
    BlkRules rules_;
    std::vector<std::unique_ptr<Queue>> queues_; ///< Empty: not activated.
    bool awake_ = false;
    bool broken_ = false;       ///< The driver has to reset.
    bool draining_ = false;     ///< A reset waits for what is in flight.
    bool size_changed_ = false; ///< The guest is to be told at the next wake().
    bool failing_ = false;
    std::uint64_t failures_ = 0; ///< How often the disk began to fail.
    bool submitted_ = false;     ///< Since the last kick of the disk.
    std::uint32_t in_flight_ = 0;
    sys::EventLoop::Handle before_wait_;          ///< While activated.
    std::shared_ptr<std::promise<void>> drained_; ///< Kept when in_flight_ reaches 0.
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true); ///< For tasks left in the loop.

    std::atomic<std::uint64_t> requests_{0};
    std::atomic<std::uint64_t> read_bytes_{0};
    std::atomic<std::uint64_t> written_bytes_{0};
    std::atomic<std::uint64_t> errors_{0};
};

} // namespace godwit::virtio
