#pragma once

/// The virtio console (virtio 1.2, section 5.3): one port, with a terminal size.
///
/// Output goes to a callback as it comes, straight out of guest memory. Input is taken as far as
/// guest buffers and a small pending buffer reach; the pending bytes are part of the saved state,
/// so nothing typed is lost when the owner changes. At rest no input is taken.
///
/// Thread rule: as VirtioDevice; queues and callbacks run on the loop given. input(): any thread.
/// set_size(): control thread.

#include "base/result.h"
#include "sys/event_loop.h"
#include "virtio/console/console_state.h"
#include "virtio/virtio_device.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace godwit::virtio {

class ConsoleDevice final : public VirtioDevice {
  public:
    static constexpr state::SectionType section = console_section;

    struct Args {
        std::uint32_t instance = 0;
        ConsoleSize size{}; ///< A restored device keeps its own.
        /// What the guest writes, on the loop's thread. The bytes are the guest's memory: they live
        /// only during the call. May not block.
        std::function<void(std::span<const std::byte>)> output;
        /// There is room again after input() took less than it was offered. On the loop's thread;
        /// may call input(). May be empty.
        std::function<void()> ready;
        sys::EventLoop* loop = nullptr;
    };
    [[nodiscard]] static Result<std::unique_ptr<ConsoleDevice>> create(Args args);
    [[nodiscard]] static Result<std::unique_ptr<ConsoleDevice>>
    restore(Args args, const state::Section& saved);
    ~ConsoleDevice() override;

    /// Offers input for the guest; returns how many bytes were taken, from the start. If that is
    /// not all, `ready` is called when more can be taken.
    [[nodiscard]] std::size_t input(std::span<const std::byte> bytes);
    /// The operator's terminal changed its size.
    void set_size(ConsoleSize size);

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::console; }
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
    /// What activate() brings and reset() takes away. Watches are declared after what they watch.
    struct Active {
        std::vector<std::optional<VirtQueue>> queues;
        std::vector<sys::EventFd> doorbells;
        Chain chain;
        bool broken = false; ///< The driver broke a rule; nothing is served until it resets.
        std::vector<sys::EventLoop::Handle> watches;
    };

    ConsoleDevice(Args args, ConsoleState state, sys::EventFd input_event);
    [[nodiscard]] static Result<std::unique_ptr<ConsoleDevice>> make(Args args, ConsoleState state);
    // All below on the loop's thread.
    void start();
    void stop() noexcept;
    [[nodiscard]] Status watch();
    void serve_input();
    [[nodiscard]] Result<bool> give_input(VirtQueue& queue);
    void tell_ready();
    void serve_output();
    [[nodiscard]] Result<bool> take_output(VirtQueue& queue);
    void notify_if_due(std::uint16_t queue);
    void fail(const Error& reason);

    const std::uint32_t instance_;
    const std::function<void(std::span<const std::byte>)> output_;
    const std::function<void()> ready_;
    sys::EventLoop& loop_;
    sys::EventFd input_event_; ///< There is pending input.
    DeviceHost* host_ = nullptr;
    std::atomic<std::uint32_t> size_; ///< cols in the low half, rows in the high half.

    mutable std::mutex mutex_;
    std::string pending_;    ///< Guarded by mutex_; at most console_pending_bytes_max.
    bool accepting_ = false; ///< Guarded by mutex_; false at rest.
    bool refused_ = false;   ///< Guarded by mutex_; `ready` is owed.

    // Loop thread only.
    bool awake_ = false;
    std::unique_ptr<Active> active_;
};

} // namespace godwit::virtio
