#pragma once

/// The virtio memory balloon (virtio 1.2, section 5.5): inflate and deflate, memory statistics,
/// free page reporting. Free page hinting is not offered.
///
/// Pages given up go back to the host (GuestMemory::release). Where the host cannot take a single
/// 4 KiB page (RAM of reserved huge pages) the page stays and is counted as kept.
///
/// Thread rule: as VirtioDevice; queues and the statistics timer run on the loop given.
/// set_target(), set_statistics_interval(): control thread. usage(), statistics(): any thread.

#include "base/result.h"
#include "memory/guest_memory.h"
#include "sys/event_loop.h"
#include "virtio/balloon/balloon_pages.h"
#include "virtio/balloon/balloon_state.h"
#include "virtio/balloon/balloon_statistics.h"
#include "virtio/virtio_device.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace godwit::virtio {

enum class FreePageReporting : std::uint8_t { off, on };

/// What the balloon has done since this process took it, and what it is at.
struct BalloonUsage {
    std::uint64_t target_bytes = 0;   ///< What the operator asks the guest to give up.
    std::uint64_t actual_bytes = 0;   ///< What the driver says it has given up.
    std::uint64_t released_bytes = 0; ///< Given back to the host, reported pages included.
    std::uint64_t kept_bytes = 0;     ///< Given up by the guest, but not released by the host.
};

class BalloonDevice final : public VirtioDevice {
  public:
    static constexpr state::SectionType section = balloon_section;

    struct Args {
        std::uint32_t instance = 0;
        std::shared_ptr<memory::GuestMemory> memory;
        FreePageReporting reporting = FreePageReporting::on;
        sys::EventLoop* loop = nullptr;
    };
    [[nodiscard]] static Result<std::unique_ptr<BalloonDevice>> create(Args args);
    [[nodiscard]] static Result<std::unique_ptr<BalloonDevice>>
    restore(Args args, const state::Section& saved);
    ~BalloonDevice() override;

    /// Asks the guest to give up `bytes` in all (a multiple of 4096, less than its RAM).
    [[nodiscard]] Status set_target(std::uint64_t bytes);
    /// How often the guest is asked for statistics; zero (as at first): never. At least 100 ms.
    [[nodiscard]] Status set_statistics_interval(std::chrono::milliseconds interval);
    [[nodiscard]] BalloonUsage usage() const noexcept;
    [[nodiscard]] BalloonStatistics statistics() const;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::balloon; }
    [[nodiscard]] std::uint64_t features() const noexcept override;
    [[nodiscard]] std::vector<std::uint16_t> queue_sizes() const override;
    void read_config(std::uint32_t offset, std::span<std::byte> out) override;
    void write_config(std::uint32_t offset, std::span<const std::byte> data) override;
    void attach(DeviceHost& host) override { host_ = &host; }
    [[nodiscard]] Status activate(Activation activation) override;
    void reset() override;
    void wake() override;
    void quiesce() override;
    [[nodiscard]] std::vector<std::optional<QueueState>> queue_states() const override;
    [[nodiscard]] state::SectionType section_type() const override { return section; }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(instance_); }
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    enum class Role : std::uint8_t { inflate, deflate, statistics, reporting };
    /// What activate() brings and reset() takes away. Watches are declared after what they watch.
    struct Active {
        std::uint64_t features = 0;
        std::vector<std::optional<VirtQueue>> queues;
        std::vector<sys::EventFd> doorbells;
        Chain chain;
        /// The buffer of the statistics queue, kept until the next report is wanted (5.5.6.3).
        Chain report;
        bool has_report = false;
        bool broken = false; ///< The driver broke a rule; nothing is served until it resets.
        std::vector<sys::EventLoop::Handle> watches;
    };

    BalloonDevice(Args args, const BalloonState& state);
    // All below on the loop's thread.
    [[nodiscard]] Role role_of(std::size_t queue) const noexcept;
    void start();
    void stop() noexcept;
    void rest() noexcept;
    [[nodiscard]] Status watch();
    void arm_statistics_timer();
    void ask_for_statistics();
    void serve(std::size_t queue);
    [[nodiscard]] Result<bool> serve_pages(VirtQueue& queue, Role role);
    [[nodiscard]] Result<bool> serve_statistics(VirtQueue& queue);
    [[nodiscard]] Status obey(const Chain& chain, Role role);
    void release(Gpa start, std::uint64_t bytes);
    void fail(const Error& reason);

    const std::uint32_t instance_;
    const std::shared_ptr<memory::GuestMemory> memory_;
    const FreePageReporting reporting_;
    sys::EventLoop& loop_;
    DeviceHost* host_ = nullptr;
    std::atomic<std::uint32_t> target_pages_;
    std::atomic<std::uint32_t> actual_pages_; ///< Written by vCPU threads, one at a time.
    std::atomic<std::uint64_t> released_bytes_{0};
    std::atomic<std::uint64_t> kept_bytes_{0};

    mutable std::mutex mutex_;
    BalloonStatistics statistics_; ///< Guarded by mutex_.

    // Loop thread only.
    bool awake_ = false;
    bool told_kept_ = false;
    std::chrono::milliseconds interval_{0};
    std::unique_ptr<Active> active_;
    sys::EventLoop::Handle statistics_timer_;
};

} // namespace godwit::virtio
