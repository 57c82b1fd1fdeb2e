#pragma once

/// The device's side of one split virtqueue (virtio 1.2, section 2.7): pure ring logic, no
/// notification transport, no I/O. Everything read from guest memory is hostile: a bad index,
/// address, loop or length is an Error, on which the device asks its host for "needs reset".
///
/// Thread rule: one thread at a time, the device's I/O thread; at rest also the control thread.

#include "base/result.h"
#include "base/units.h"
#include "memory/guest_memory.h"
#include "virtio/inflight_ring.h"

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace godwit::virtio {

inline constexpr std::uint16_t queue_size_max = 1024;
/// Descriptors in one chain, direct and indirect together.
inline constexpr std::size_t chain_segments_max = 1024;
/// Bytes of one chain: more than any sane request, less than an overflow.
inline constexpr std::uint64_t chain_bytes_max = 1U << 30U;

/// What a driver has set up and how far both sides have got; this is what is saved.
struct QueueState {
    std::uint16_t size = 0;
    bool ready = false;
    Gpa descriptors;
    Gpa driver_area;                  ///< Available ring.
    Gpa device_area;                  ///< Used ring.
    std::uint16_t next_available = 0; ///< Ring index the device looks at next.
    std::uint16_t next_used = 0;      ///< Ring index the device fills next.
    friend auto operator<=>(const QueueState&, const QueueState&) = default;
};

/// A descriptor chain: what the driver gives to read (`readable`) and to fill (`writable`), in
/// order. Reused between pops so that the hot path does not allocate.
struct Chain {
    std::uint16_t head = 0;
    std::vector<iovec> readable;
    std::vector<iovec> writable;
    std::vector<Gpa> writable_at; ///< Guest address of each writable segment.
    std::uint64_t readable_bytes = 0;
    std::uint64_t writable_bytes = 0;

    /// Copies up to out.size() bytes of the readable part from `offset`; returns how many.
    std::size_t copy_out(std::uint64_t offset, std::span<std::byte> out) const;
    /// Copies `data` into the writable part at `offset`; returns how many bytes fitted.
    std::size_t copy_in(std::uint64_t offset, std::span<const std::byte> data) const;
};

class VirtQueue {
  public:
    /// Checks sizes, alignment and that the three areas lie in RAM. `event_index` and `indirect`
    /// are the negotiated features VIRTIO_F_EVENT_IDX and VIRTIO_F_INDIRECT_DESC.
    struct Features {
        bool event_index = false;
        bool indirect = false;
    };
    [[nodiscard]] static Result<VirtQueue>
    create(std::shared_ptr<memory::GuestMemory> memory, const QueueState& state, Features features);

    /// From now on `record` knows what was popped and not pushed. What it holds from a process that
    /// ended is popped first, again; the index where the queue goes on follows from it. Before
    /// anything else.
    void keep_record(InflightRing record);
    /// Chains that wait to be popped again.
    [[nodiscard]] std::size_t left_over() const noexcept { return again_.size(); }

    /// The next chain the driver offers, into `chain`; false if there is none. An error leaves the
    /// queue as it was; the device stops serving it.
    [[nodiscard]] Result<bool> pop(Chain& chain);
    /// A chain that was popped before and not pushed: it is popped again, after others of that kind
    /// and before what is new. Its successor knows it from given_back().
    void put_back(const Chain& chain);
    /// Heads that wait to be popped again, the next one first.
    [[nodiscard]] std::vector<std::uint16_t> given_back() const {
        return {again_.rbegin(), again_.rend()};
    }
    /// The same of the queue this one continues. Before anything else; corrupt if a driver cannot
    /// have offered them.
    [[nodiscard]] Status take_given_back(std::span<const std::uint16_t> heads);
    /// Puts the last popped chain back; the next pop returns it again. Only before any push of it.
    void undo_pop() noexcept;
    /// True if the driver offers something (cheap look at the available index).
    [[nodiscard]] bool has_available() const noexcept;
    /// Gives a chain back with `written` bytes (at most writable_bytes) filled in its writable
    /// part, from the start, and records them in the write log.
    void push(const Chain& chain, std::uint64_t written);
    /// A chain and how much of it was filled.
    struct Completion {
        const Chain* chain = nullptr;
        std::uint64_t written = 0;
    };
    /// push() of each, in order, but the driver sees all of them at once: a packet over several
    /// buffers (5.1.6.4.1).
    void push_together(std::span<const Completion> completions);
    /// After a batch of push(): whether the driver wants an interrupt.
    [[nodiscard]] bool take_notification_due();
    /// Asks the driver not to / to ring the doorbell. enable returns true if something was offered
    /// meanwhile and must be looked at now (2.7.7.1).
    void disable_doorbell() noexcept;
    [[nodiscard]] bool enable_doorbell() noexcept;

    [[nodiscard]] const QueueState& state() const noexcept { return state_; }
    [[nodiscard]] std::uint16_t size() const noexcept { return state_.size; }
    /// Chains popped and not yet pushed.
    [[nodiscard]] std::uint32_t outstanding() const noexcept { return outstanding_; }

  private:
    VirtQueue(std::shared_ptr<memory::GuestMemory> memory,
              const QueueState& state,
              Features features);
    [[nodiscard]] Status gather(Chain& chain) const;
    void fill_used(const Chain& chain, std::uint64_t written);
    void publish_used();
    [[nodiscard]] Status add_indirect(Chain& chain, Gpa table, std::uint32_t table_bytes) const;
    [[nodiscard]] Status
    add_segment(Chain& chain, Gpa start, std::uint32_t bytes, bool writable) const;

    std::shared_ptr<memory::GuestMemory> memory_;
    QueueState state_;
    Features features_;
    std::uint32_t outstanding_ = 0;
    std::optional<InflightRing> record_;
    std::vector<std::uint16_t> again_;          ///< Heads to be popped again, the next one last.
    std::optional<std::uint16_t> popped_again_; ///< The last pop was of that kind.
    std::uint16_t last_popped_ = 0;             ///< Head of the last pop.
    std::uint16_t signalled_used_ = 0; ///< next_used when an interrupt was last considered.
    // The three areas as this process sees them; valid as long as memory_ lives.
    const std::byte* descriptors_ = nullptr;
    std::byte* available_ = nullptr;
    std::byte* used_ = nullptr;
};

} // namespace godwit::virtio
