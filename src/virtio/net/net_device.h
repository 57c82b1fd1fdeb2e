#pragma once

/// The virtio network device (virtio 1.2, section 5.1): 1 to 8 queue pairs over a NetPort, and a
/// control queue for the number of pairs in use and for announcements.
///
/// Checksum and segmentation offloads pass through to the port in both directions, so large
/// segments cross whole. What the port delivers is not filtered by address: the bridge behind a tap
/// does that, and VIRTIO_NET_F_CTRL_RX is not offered. After a takeover announce() asks the driver
/// to send gratuitous packets; a driver without VIRTIO_NET_F_GUEST_ANNOUNCE is left alone.
///
/// Thread rule: as VirtioDevice; everything runs on the loop given, whose thread runs during the
/// whole life of the device. announce() and counters(): control thread.

#include "base/result.h"
#include "sys/event_loop.h"
#include "virtio/net/net_control.h"
#include "virtio/net/net_counters.h"
#include "virtio/net/net_port.h"
#include "virtio/net/net_state.h"
#include "virtio/virtio_device.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::virtio {

class NetDevice final : public VirtioDevice {
  public:
    static constexpr state::SectionType section = net_section;

    struct Args {
        std::uint32_t instance = 0;
        MacAddress mac{};
        std::optional<std::uint16_t> mtu;
        std::unique_ptr<NetPort> port; ///< As many pairs as it has, the device has.
        sys::EventLoop* loop = nullptr;
    };
    [[nodiscard]] static Result<std::unique_ptr<NetDevice>> create(Args args);
    /// The device of a saved section; MAC, MTU and pairs must be those of `args`.
    [[nodiscard]] static Result<std::unique_ptr<NetDevice>> restore(Args args,
                                                                    const state::Section& saved);
    ~NetDevice() override;

    /// Asks the driver to announce itself to the network (after a takeover), if it can.
    void announce();
    [[nodiscard]] NetCounters counters() const noexcept;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::network; }
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
    struct Pair;
    struct Active;
    struct Tally {
        NetDirectionTally received;
        NetDirectionTally sent;
    };

    NetDevice(Args args, NetState state);
    // All below on the loop's thread.
    [[nodiscard]] Status build(Activation activation);
    [[nodiscard]] Status apply_to_port();
    void start();
    void stop() noexcept;
    [[nodiscard]] Status watch_queues();
    [[nodiscard]] Status watch_port(std::size_t pair);
    void port_ready(std::size_t pair, std::uint32_t events);
    void update_port_watch(std::size_t pair);
    void serve_rx(std::size_t pair);
    void serve_tx(std::size_t pair);
    void serve_control();
    [[nodiscard]] std::uint8_t obey(const NetCommand& command);
    void wait_for_buffers(std::size_t pair);
    void port_is_gone(std::size_t pair);
    void fail(const Error& reason);

    const std::uint32_t instance_;
    const NetIdentity identity_;
    const std::unique_ptr<NetPort> port_;
    sys::EventLoop& loop_;
    DeviceHost* host_ = nullptr;
    std::vector<Tally> tallies_;
    std::atomic<std::uint16_t> status_; ///< As in configuration space; read by vCPU threads.

    // Loop thread only.
    std::uint16_t active_pairs_;
    std::vector<std::string> held_; ///< Carried into the next activation.
    bool awake_ = false;
    std::unique_ptr<Active> active_; ///< Between activate() and reset().
};

} // namespace godwit::virtio
