#pragma once

/// The driver's side of a split virtqueue, for tests: writes descriptors and the available ring as
/// a guest would, and reads the used ring. It can also break every rule. One thread at a time; the
/// device may run on another.
///
///     DriverQueue driver(make_memory(), {});
///     VirtQueue queue = driver.device_side();
///     const Offered request = driver.chain().readable(bytes_of("hi")).writable(512).offer();
///     ... the device works ...
///     const auto used = driver.take_used(); // used->head == request.head

#include "memory/guest_memory.h"
#include "virtio/virt_queue.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::virtio::testing {

inline constexpr std::uint16_t flag_next = 1;
inline constexpr std::uint16_t flag_write = 2;
inline constexpr std::uint16_t flag_indirect = 4;

/// 32 MiB (or more, for layouts with a hole) of zeroed guest RAM.
[[nodiscard]] std::shared_ptr<memory::GuestMemory> make_memory(std::uint64_t bytes = 32 * mib);
[[nodiscard]] std::vector<std::byte> bytes_of(std::string_view text);

struct RawDescriptor {
    std::uint64_t address = 0;
    std::uint32_t length = 0;
    std::uint16_t flags = 0;
    std::uint16_t next = 0;
};

struct Segment {
    Gpa at;
    std::uint32_t bytes = 0;
    bool writable = false;
};

enum class Form : std::uint8_t { direct, indirect };

/// A chain that was made available.
struct Offered {
    std::uint16_t head = 0;
    std::vector<Segment> segments;
    /// The n-th writable segment.
    [[nodiscard]] Gpa writable_at(std::size_t n = 0) const;
};

struct Used {
    std::uint16_t head = 0;
    std::uint32_t written = 0;
};

class DriverQueue {
  public:
    struct Options {
        Gpa rings{0x10'0000}; ///< Page aligned; at most 32 KiB are used from here.
        Gpa data{0x20'0000};  ///< Buffers are taken from here upwards, wrapping at `data_bytes`.
        std::uint64_t data_bytes = 4 * mib;
        std::uint16_t size = 16;
        VirtQueue::Features features{.event_index = false, .indirect = true};
        std::uint16_t first_index = 0; ///< Where both rings start, for wrap-around tests.
    };
    DriverQueue(std::shared_ptr<memory::GuestMemory> memory, Options options);

    /// What the transport would hand to the device.
    [[nodiscard]] QueueState state() const;
    [[nodiscard]] VirtQueue device_side() const;
    [[nodiscard]] const Options& options() const noexcept { return options_; }
    [[nodiscard]] memory::GuestMemory& memory() const noexcept { return *memory_; }
    [[nodiscard]] std::shared_ptr<memory::GuestMemory> shared_memory() const { return memory_; }

    class Builder {
      public:
        explicit Builder(DriverQueue& queue) : queue_(queue) {}
        Builder& readable(std::span<const std::byte> bytes);
        Builder& writable(std::uint32_t bytes);
        /// A segment of any address and length, good or bad.
        Builder& segment(Segment segment);
        Builder& indirect();
        /// Writes the descriptors, makes the chain available and rings `kick` if one is set.
        Offered offer();

      private:
        DriverQueue& queue_;
        std::vector<Segment> segments_;
        Form form_ = Form::direct;
    };
    [[nodiscard]] Builder chain() { return Builder(*this); }

    /// The next element of the used ring; its descriptors become free.
    std::optional<Used> take_used();
    /// How many used elements wait.
    [[nodiscard]] std::uint16_t used_waiting() const;

    /// An EventFd signalled after every offer() while the device wants to be notified.
    void set_doorbell(const sys::EventFd* doorbell) noexcept { doorbell_ = doorbell; }
    /// Whether the device asked to be notified of what was offered last.
    [[nodiscard]] bool doorbell_wanted() const;
    /// NO_INTERRUPT of the available ring (without event index).
    void set_interrupts(bool wanted);
    /// The used index after which the driver wants an interrupt (with event index).
    void set_used_event(std::uint16_t index);

    // The parts, for tests that break rules.
    Gpa place(std::span<const std::byte> bytes);
    Gpa reserve(std::uint64_t bytes);
    [[nodiscard]] std::vector<std::byte> read(Gpa at, std::size_t bytes) const;
    void write_descriptor(std::uint16_t index, const RawDescriptor& descriptor);
    static void write_descriptor(memory::GuestMemory& memory,
                                 Gpa table,
                                 std::size_t index,
                                 const RawDescriptor& descriptor);
    void make_available(std::uint16_t head);
    void set_available_index(std::uint16_t index);
    [[nodiscard]] std::uint16_t available_index() const noexcept { return available_index_; }

  private:
    friend class Builder;
    Offered publish(std::vector<Segment> segments, Form form);
    std::uint16_t write_direct(const std::vector<Segment>& segments);
    std::uint16_t write_indirect(const std::vector<Segment>& segments);
    std::uint16_t take_descriptor();
    [[nodiscard]] std::uint16_t* shared_field(Gpa at) const;

    std::shared_ptr<memory::GuestMemory> memory_;
    Options options_;
    std::uint64_t data_used_ = 0;
    std::uint16_t available_index_;
    std::uint16_t used_index_;
    std::vector<std::uint16_t> free_;
    std::map<std::uint16_t, std::vector<std::uint16_t>> taken_; ///< Descriptors by chain head.
    const sys::EventFd* doorbell_ = nullptr;
};

} // namespace godwit::virtio::testing
