#include "virtio/net/net_device.h"

#include "base/log.h"
#include "virtio/net/net_control.h"
#include "virtio/net/net_spec.h"
#include "virtio/net/rx.h"
#include "virtio/net/tx.h"

#include <sys/epoll.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace godwit::virtio {

namespace {
constexpr int control_commands_per_turn = 16;
/// How long a packet waits for a driver that has offered buffers, but too few for it.
constexpr std::chrono::milliseconds held_packet_wait_max{200};
} // namespace

/// One pair of queues at work. Watches are declared after what they watch.
struct NetDevice::Pair {
    std::optional<RxQueue> rx;
    std::optional<TxQueue> tx;
    bool wants_input = false;  ///< There are buffers; packets are awaited.
    bool wants_output = false; ///< A packet waits for room in the port.
    std::uint32_t watched_events = 0;
    sys::EventLoop::Handle port_watch;
    sys::EventLoop::Handle held_timer;
};

struct NetDevice::Active {
    std::uint64_t features = 0;
    std::vector<sys::EventFd> doorbells;
    std::vector<Pair> pairs;
    std::optional<VirtQueue> control;
    std::size_t control_index = 0;
    Chain control_chain;
    bool broken = false; ///< The driver broke a rule; nothing is served until it resets.
    std::vector<sys::EventLoop::Handle> doorbell_watches;
};

// --- making ---

namespace {

Result<NetIdentity> identity_of(const NetDevice::Args& args) {
    const std::size_t pairs = args.port->pairs();
    if (pairs < 1 || pairs > net_queue_pairs_max) {
        return Error(ErrorCode::invalid_argument,
                     std::to_string(pairs) + " queue pairs for a network device: give 1 to " +
                         std::to_string(net_queue_pairs_max));
    }
    return NetIdentity{
        .mac = args.mac, .mtu = args.mtu, .queue_pairs = static_cast<std::uint16_t>(pairs)};
}

} // namespace

Result<std::unique_ptr<NetDevice>> NetDevice::create(Args args) {
    NetState state{.identity = GODWIT_TRY(identity_of(args))};
    state.held.resize(state.identity.queue_pairs);
    return std::unique_ptr<NetDevice>(new NetDevice(std::move(args), std::move(state)));
}

Result<std::unique_ptr<NetDevice>> NetDevice::restore(Args args, const state::Section& saved) {
    NetState state = GODWIT_TRY(load_net(saved, GODWIT_TRY(identity_of(args))));
    return std::unique_ptr<NetDevice>(new NetDevice(std::move(args), std::move(state)));
}

NetDevice::NetDevice(Args args, NetState state)
    : instance_(args.instance), identity_(state.identity), port_(std::move(args.port)),
      loop_(*args.loop), tallies_(state.identity.queue_pairs),
      status_(static_cast<std::uint16_t>(net_s_link_up |
                                         (state.announce_pending ? net_s_announce : 0U))),
      active_pairs_(state.active_pairs), held_(std::move(state.held)) {}

NetDevice::~NetDevice() {
    loop_.run_and_wait([this] {
        stop();
        active_.reset();
    });
}

// --- what the driver sees ---

std::uint64_t NetDevice::features() const noexcept {
    std::uint64_t offered = net_f_csum | net_f_guest_csum | net_f_mac | net_f_guest_tso4 |
                            net_f_guest_tso6 | net_f_guest_ecn | net_f_host_tso4 | net_f_host_tso6 |
                            net_f_host_ecn | net_f_mrg_rxbuf | net_f_status | net_f_ctrl_vq |
                            net_f_guest_announce;
    if (identity_.mtu.has_value()) {
        offered |= net_f_mtu;
    }
    if (identity_.queue_pairs > 1) {
        offered |= net_f_mq;
    }
    return offered;
}

std::vector<std::uint16_t> NetDevice::queue_sizes() const {
    return std::vector<std::uint16_t>(std::size_t{identity_.queue_pairs} * 2 + 1, net_queue_size);
}

void NetDevice::read_config(std::uint32_t offset, std::span<std::byte> out) {
    NetConfig config;
    std::ranges::copy(identity_.mac, config.mac);
    config.status = status_.load(std::memory_order_acquire);
    config.max_virtqueue_pairs = identity_.queue_pairs;
    config.mtu = identity_.mtu.value_or(0);
    const auto bytes = std::as_bytes(std::span(&config, 1));
    std::ranges::fill(out, std::byte{0});
    if (offset < bytes.size()) {
        const std::size_t count = std::min(out.size(), bytes.size() - offset);
        std::ranges::copy(bytes.subspan(offset, count), out.begin());
    }
}

void NetDevice::write_config(std::uint32_t /*offset*/, std::span<const std::byte> /*data*/) {
    // Nothing in it is writable for a driver that accepts VIRTIO_F_VERSION_1.
}

NetCounters NetDevice::counters() const noexcept {
    NetCounters sum;
    const auto add = [](NetDirectionCounters& to, const NetDirectionCounters& from) {
        to.packets += from.packets;
        to.bytes += from.bytes;
        to.dropped += from.dropped;
    };
    for (const Tally& tally : tallies_) {
        add(sum.received, tally.received.read());
        add(sum.sent, tally.sent.read());
    }
    return sum;
}

void NetDevice::announce() {
    loop_.run_and_wait([this] {
        if (active_ && (active_->features & net_f_guest_announce) != 0) {
            status_.fetch_or(net_s_announce, std::memory_order_acq_rel);
            host_->notify_config();
        }
    });
}

// --- life ---

Status NetDevice::activate(Activation activation) {
    Status status;
    loop_.run_and_wait([&] { status = build(std::move(activation)); });
    return status;
}

Status NetDevice::build(Activation activation) {
    const std::size_t queues = queue_sizes().size();
    if (activation.queues.size() != queues || activation.doorbells.size() != queues) {
        return Error(ErrorCode::invalid_argument, "network: activated with another set of queues");
    }
    auto active = std::make_unique<Active>();
    active->features = activation.features;
    active->doorbells = std::move(activation.doorbells);
    // Without VIRTIO_NET_F_MQ the control queue follows the first pair (5.1.2).
    const std::size_t pairs = (activation.features & net_f_mq) != 0 ? identity_.queue_pairs : 1;
    const RxBuffers buffers =
        (activation.features & net_f_mrg_rxbuf) != 0 ? RxBuffers::mergeable : RxBuffers::one_chain;
    active->pairs.resize(pairs);
    active_pairs_ = std::min(active_pairs_, static_cast<std::uint16_t>(pairs));
    for (std::size_t i = 0; i < pairs; ++i) {
        auto& rx = activation.queues[2 * i];
        auto& tx = activation.queues[2 * i + 1];
        if (rx.has_value()) {
            active->pairs[i].rx.emplace(std::move(*rx), buffers, held_[i]);
        }
        if (tx.has_value()) {
            active->pairs[i].tx.emplace(std::move(*tx));
        }
    }
    active->control_index = 2 * pairs;
    active->control = std::move(activation.queues[active->control_index]);
    active_ = std::move(active);
    GODWIT_TRY(apply_to_port());
    if (awake_) {
        awake_ = false;
        start();
    }
    return ok();
}

Status NetDevice::apply_to_port() {
    const auto has = [this](std::uint64_t feature) { return (active_->features & feature) != 0; };
    GODWIT_TRY(port_->set_offloads({.checksum = has(net_f_guest_csum),
                                    .tso4 = has(net_f_guest_tso4),
                                    .tso6 = has(net_f_guest_tso6),
                                    .ecn = has(net_f_guest_ecn)}));
    return port_->set_active_pairs(active_pairs_);
}

void NetDevice::reset() {
    loop_.run_and_wait([this] {
        const bool was_awake = awake_;
        stop();
        active_.reset();
        awake_ = was_awake;
        active_pairs_ = 1;
        held_.assign(identity_.queue_pairs, {});
        status_.fetch_and(static_cast<std::uint16_t>(~net_s_announce), std::memory_order_acq_rel);
    });
}

void NetDevice::wake() {
    loop_.run_and_wait([this] { start(); });
}

void NetDevice::quiesce() {
    loop_.run_and_wait([this] { stop(); });
}

void NetDevice::start() {
    if (std::exchange(awake_, true) || !active_ || active_->broken) {
        return;
    }
    if (const Status status = watch_queues(); !status.has_value()) {
        fail(status.error());
        return;
    }
    for (std::size_t i = 0; i < active_->pairs.size() && !active_->broken; ++i) {
        serve_tx(i);
        serve_rx(i);
    }
    serve_control();
    for (std::size_t i = 0; i <= active_->control_index; ++i) {
        host_->notify_queue(static_cast<std::uint16_t>(i));
    }
    if ((status_.load(std::memory_order_acquire) & net_s_announce) != 0) {
        host_->notify_config(); // The earlier owner's interrupt may be lost.
    }
}

void NetDevice::stop() noexcept {
    awake_ = false;
    if (!active_) {
        return;
    }
    active_->doorbell_watches.clear();
    for (Pair& pair : active_->pairs) {
        pair.port_watch.reset();
        pair.held_timer.reset();
        pair.wants_input = false;
        pair.wants_output = false;
        if (pair.rx.has_value()) {
            pair.rx->give_back();
        }
    }
}

Status NetDevice::watch_queues() {
    for (std::size_t i = 0; i < active_->pairs.size(); ++i) {
        GODWIT_TRY(watch_port(i));
    }
    const auto watch = [this](std::size_t queue, void (NetDevice::*serve)(std::size_t)) -> Status {
        const sys::EventFd& doorbell = active_->doorbells[queue];
        active_->doorbell_watches.push_back(
            GODWIT_TRY(loop_.watch(doorbell.fd(), EPOLLIN, [this, queue, serve](std::uint32_t) {
                active_->doorbells[queue].drain();
                (this->*serve)(queue / 2);
            })));
        return ok();
    };
    for (std::size_t i = 0; i < active_->pairs.size(); ++i) {
        GODWIT_TRY(watch(2 * i, &NetDevice::serve_rx));
        GODWIT_TRY(watch(2 * i + 1, &NetDevice::serve_tx));
    }
    active_->doorbell_watches.push_back(GODWIT_TRY(loop_.watch(
        active_->doorbells[active_->control_index].fd(), EPOLLIN, [this](std::uint32_t) {
            active_->doorbells[active_->control_index].drain();
            serve_control();
        })));
    return ok();
}

// --- the port ---

Status NetDevice::watch_port(std::size_t pair) {
    active_->pairs[pair].watched_events = 0;
    active_->pairs[pair].port_watch = GODWIT_TRY(loop_.watch(
        port_->fd(pair), 0, [this, pair](std::uint32_t events) { port_ready(pair, events); }));
    return ok();
}

void NetDevice::port_ready(std::size_t index, std::uint32_t events) {
    Pair& pair = active_->pairs[index];
    if ((events & (EPOLLERR | EPOLLHUP)) != 0 && (events & EPOLLIN & pair.watched_events) == 0) {
        port_is_gone(index); // These two come unasked; nothing but ending the watch stops them.
        return;
    }
    if ((events & EPOLLOUT) != 0) {
        pair.wants_output = false;
        serve_tx(index);
    }
    if ((events & EPOLLIN) != 0) {
        serve_rx(index);
    }
}

/// Tells the loop what is awaited from the port, if that has changed. Nothing is awaited while the
/// driver has no buffers, so a flood costs nothing then.
void NetDevice::update_port_watch(std::size_t index) {
    Pair& pair = active_->pairs[index];
    if (!pair.port_watch.active()) {
        return;
    }
    const std::uint32_t events = (pair.wants_input ? std::uint32_t{EPOLLIN} : 0U) |
                                 (pair.wants_output ? std::uint32_t{EPOLLOUT} : 0U);
    if (events == pair.watched_events) {
        return;
    }
    if (const Status status = loop_.rearm(pair.port_watch, events); !status.has_value()) {
        fail(status.error());
        return;
    }
    pair.watched_events = events;
}

void NetDevice::port_is_gone(std::size_t index) {
    Pair& pair = active_->pairs[index];
    pair.port_watch.reset();
    pair.wants_input = false;
    if ((status_.fetch_and(static_cast<std::uint16_t>(~net_s_link_up)) & net_s_link_up) != 0) {
        log::warn("net_port_gone", {{"device", section_id().to_string()}});
        host_->notify_config();
    }
    if (std::exchange(pair.wants_output, false)) {
        serve_tx(index); // There will never be room: what waited for it is dropped now.
    }
}

// --- queues ---

void NetDevice::serve_rx(std::size_t index) {
    Pair& pair = active_->pairs[index];
    if (active_->broken || !pair.rx.has_value() || !pair.port_watch.active() ||
        index >= active_pairs_) {
        return;
    }
    VirtQueue& queue = pair.rx->queue();
    queue.disable_doorbell();
    const auto stop = pair.rx->receive(port_->fd(index), tallies_[index].received);
    if (queue.take_notification_due()) {
        host_->notify_queue(static_cast<std::uint16_t>(2 * index));
    }
    if (!stop.has_value()) {
        fail(stop.error());
        return;
    }
    pair.wants_input = *stop != RxQueue::Stop::no_buffers;
    if (*stop == RxQueue::Stop::port_gone) {
        port_is_gone(index);
    } else if (*stop == RxQueue::Stop::no_buffers) {
        wait_for_buffers(index);
    }
    if (!pair.rx->holding()) {
        pair.held_timer.reset();
    }
    update_port_watch(index);
}

void NetDevice::wait_for_buffers(std::size_t index) {
    Pair& pair = active_->pairs[index];
    if (pair.rx->queue().enable_doorbell()) {
        active_->doorbells[2 * index].signal(); // Offered just now: another turn.
        return;
    }
    if (!pair.rx->holding() || pair.held_timer.active()) {
        return;
    }
    auto timer = loop_.schedule(held_packet_wait_max, {}, [this, index] {
        Pair& late = active_->pairs[index];
        late.held_timer.reset();
        late.rx->drop_held(tallies_[index].received);
        serve_rx(index);
    });
    if (timer.has_value()) {
        pair.held_timer = std::move(*timer);
    } else {
        pair.rx->drop_held(tallies_[index].received);
        active_->doorbells[2 * index].signal();
    }
}

void NetDevice::serve_tx(std::size_t index) {
    Pair& pair = active_->pairs[index];
    if (active_->broken || !pair.tx.has_value() || pair.wants_output) {
        return;
    }
    VirtQueue& queue = pair.tx->queue();
    queue.disable_doorbell();
    const auto stop = pair.tx->transmit(port_->fd(index), tallies_[index].sent);
    if (queue.take_notification_due()) {
        host_->notify_queue(static_cast<std::uint16_t>(2 * index + 1));
    }
    if (!stop.has_value()) {
        fail(stop.error());
        return;
    }
    // A spent budget, or a chain offered just now: another turn, after the others had theirs.
    if (*stop == TxQueue::Stop::turn_over ||
        (*stop == TxQueue::Stop::no_packets && queue.enable_doorbell())) {
        active_->doorbells[2 * index + 1].signal();
    }
    pair.wants_output = *stop == TxQueue::Stop::no_room;
    update_port_watch(index);
}

void NetDevice::serve_control() {
    if (active_->broken || !active_->control.has_value()) {
        return;
    }
    VirtQueue& queue = *active_->control;
    for (int turn = 0; turn < control_commands_per_turn; ++turn) {
        const auto popped = queue.pop(active_->control_chain);
        if (!popped.has_value()) {
            fail(popped.error());
            return;
        }
        if (!*popped) {
            break;
        }
        const Chain& chain = active_->control_chain;
        const auto command = parse_net_command(chain, active_->features);
        if (!command.has_value()) {
            fail(command.error());
            return;
        }
        const auto answer = std::byte{obey(*command)};
        queue.push(chain, chain.copy_in(0, std::span(&answer, 1)));
    }
    if (queue.take_notification_due()) {
        host_->notify_queue(static_cast<std::uint16_t>(active_->control_index));
    }
    if (queue.enable_doorbell()) {
        active_->doorbells[active_->control_index].signal();
    }
}

std::uint8_t NetDevice::obey(const NetCommand& command) {
    if (std::holds_alternative<NetAnnounceAck>(command)) {
        status_.fetch_and(static_cast<std::uint16_t>(~net_s_announce), std::memory_order_acq_rel);
        return net_ok;
    }
    const auto* wanted = std::get_if<NetSetPairs>(&command);
    if (wanted == nullptr || wanted->pairs < 1 || wanted->pairs > active_->pairs.size()) {
        return net_err;
    }
    if (const Status status = port_->set_active_pairs(wanted->pairs); !status.has_value()) {
        log::warn("net_pairs_refused", {{"reason", status.error().to_string()}});
        return net_err;
    }
    active_pairs_ = wanted->pairs;
    for (std::size_t i = 0; i < active_->pairs.size(); ++i) {
        active_->doorbells[2 * i].signal(); // Each receive queue looks at what it may do now.
    }
    return net_ok;
}

void NetDevice::fail(const Error& reason) {
    const bool was_awake = awake_;
    stop();
    awake_ = was_awake;
    active_->broken = true;
    host_->needs_reset(reason);
}

// --- saving ---

std::vector<std::optional<QueueState>> NetDevice::queue_states() const {
    std::vector<std::optional<QueueState>> states(queue_sizes().size());
    loop_.run_and_wait([&] {
        if (!active_) {
            return;
        }
        for (std::size_t i = 0; i < active_->pairs.size(); ++i) {
            const Pair& pair = active_->pairs[i];
            if (pair.rx.has_value()) {
                states[2 * i] = pair.rx->queue().state();
            }
            if (pair.tx.has_value()) {
                states[2 * i + 1] = pair.tx->queue().state();
            }
        }
        if (active_->control.has_value()) {
            states[active_->control_index] = active_->control->state();
        }
    });
    return states;
}

Result<state::Saved> NetDevice::save() const {
    NetState state{.identity = identity_};
    loop_.run_and_wait([&] {
        state.active_pairs = active_pairs_;
        state.announce_pending = (status_.load() & net_s_announce) != 0;
        state.held = held_;
        for (std::size_t i = 0; active_ && i < active_->pairs.size(); ++i) {
            if (active_->pairs[i].rx.has_value()) {
                state.held[i] = active_->pairs[i].rx->held();
            }
        }
    });
    return state::Saved(save_net(state, instance_));
}

} // namespace godwit::virtio
