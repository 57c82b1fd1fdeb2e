#pragma once

/// A virtio entropy device (virtio 1.2, section 5.4). It has one queue and no state worth saving:
/// what a guest was given is gone from here, and what it asked for is still in its ring.
///
/// Thread rule: VirtioDevice's. All work happens on the event loop it is given; other threads hand
/// tasks to it and wait, so those calls must not be made on the loop's own thread.

#include "base/result.h"
#include "sys/entropy.h"
#include "sys/event_loop.h"
#include "virtio/virtio_device.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace godwit::virtio {

inline constexpr std::uint16_t rng_queue_size = 64;
/// A longer buffer is filled up to here.
inline constexpr std::size_t rng_bytes_per_chain_max = 4096;
/// What a guest gets in one period; then it waits for the next. About 2.5 MiB/s.
inline constexpr std::size_t rng_bytes_per_period = 256 * 1024;
inline constexpr std::chrono::milliseconds rng_period{100};

class RngDevice final : public VirtioDevice {
  public:
    static constexpr state::SectionType section{"virtio-rng", state::SectionType::never_written};

    struct Args {
        std::uint32_t instance = 0;
        sys::EventLoop& loop; ///< Runs during the device's whole life.
        sys::RandomSource& random;
    };
    /// Also makes a restored one: there is no section.
    [[nodiscard]] static Result<std::unique_ptr<RngDevice>> create(const Args& args);
    ~RngDevice() override;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::entropy; }
    [[nodiscard]] std::uint64_t features() const noexcept override { return 0; }
    [[nodiscard]] std::vector<std::uint16_t> queue_sizes() const override {
        return {rng_queue_size};
    }
    void read_config(std::uint32_t offset, std::span<std::byte> out) override;
    void write_config(std::uint32_t /*offset*/, std::span<const std::byte> /*data*/) override {}
    void attach(DeviceHost& host) override { host_ = &host; }
    [[nodiscard]] Status activate(Activation activation) override;
    void reset() override;
    void wake() override;
    void quiesce() override;
    [[nodiscard]] std::vector<std::optional<QueueState>> queue_states() const override;
    [[nodiscard]] state::SectionType section_type() const override { return section; }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(instance_); }
    [[nodiscard]] Result<state::Saved> save() const override { return state::NoState{}; }
    [[nodiscard]] std::string save_blocker() const override { return {}; }

  private:
    explicit RngDevice(const Args& args)
        : instance_(args.instance), loop_(args.loop), random_(args.random) {}
    [[nodiscard]] Status start(Activation activation);
    void serve();
    [[nodiscard]] bool serve_one();
    [[nodiscard]] std::size_t fill();
    void wait_for_next_period();
    void fail(const Error& reason);

    const std::uint32_t instance_;
    sys::EventLoop& loop_;
    sys::RandomSource& random_;
    DeviceHost* host_ = nullptr;

    // On the loop's thread only, or at rest.
    std::optional<VirtQueue> queue_;
    std::optional<sys::EventFd> doorbell_;
    sys::EventLoop::Handle watch_;
    sys::EventLoop::Handle period_;
    Chain chain_;
    std::size_t bytes_left_ = rng_bytes_per_period;
    bool awake_ = false;
    bool broken_ = false;
    bool source_failed_ = false; ///< Told once.
};

} // namespace godwit::virtio
