#pragma once

/// The block interface: asynchronous requests with scatter lists. Images, overlays, mirrors,
/// throttles and fault injectors all are BlockDevices.
///
/// Thread rule: a device belongs to one thread, the one that runs its sys::EventLoop: all calls are
/// made there and all completions come there, never from inside submit(). A request belongs to the
/// caller; it and its segments stay untouched until done() is called.

#include "base/result.h"

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>

namespace godwit::block {

inline constexpr std::uint32_t segments_max = 1024; // IOV_MAX
/// Bytes of one read or write; the kernel moves less than 2 GiB at once (MAX_RW_COUNT).
inline constexpr std::uint64_t transfer_bytes_max = std::uint64_t{1} << 30U;

enum class BlockOperation : std::uint8_t { read, write, flush, discard, write_zeroes };

/// Whether it may change what later reads give.
[[nodiscard]] constexpr bool changes_data(BlockOperation operation) noexcept {
    return operation == BlockOperation::write || operation == BlockOperation::discard ||
           operation == BlockOperation::write_zeroes;
}

struct BlockRequest {
    BlockOperation operation = BlockOperation::read;
    /// Write-through: durable before done() (FUA).
    bool force_unit_access = false;
    /// write_zeroes may deallocate.
    bool may_unmap = false;
    std::uint64_t offset = 0;        ///< Bytes, a multiple of the logical block size.
    std::uint64_t bytes = 0;         ///< Bytes, a multiple of the logical block size; 0 for flush.
    std::span<const iovec> segments; ///< For read and write: exactly `bytes` in total.
    /// Called exactly once on the device's thread.
    void (*done)(BlockRequest& request, Status status) noexcept = nullptr;
    void* owner = nullptr; ///< For the caller.
    /// For the device that holds the request, from submit() to done(); null otherwise.
    BlockRequest* next_held = nullptr;
};

struct BlockGeometry {
    std::uint64_t bytes = 0;
    std::uint32_t logical_block_bytes = 512;
    std::uint32_t physical_block_bytes = 4096;
    bool read_only = false;
    bool can_discard = false;
    bool can_write_zeroes = false;
    /// Alignment in memory that avoids bouncing (O_DIRECT); requests may ignore it.
    std::uint32_t memory_alignment_bytes = 1;
};

/// What a device does with a request that cannot go on before somebody outside makes room for it.
enum class Patience : std::uint8_t {
    waits,
    gives_back, ///< Done with ErrorCode::cancelled: not, or in part, and to be asked for again.
};

class BlockDevice {
  public:
    BlockDevice() = default;
    BlockDevice(const BlockDevice&) = delete;
    BlockDevice& operator=(const BlockDevice&) = delete;
    virtual ~BlockDevice() = default;

    [[nodiscard]] virtual const BlockGeometry& geometry() const noexcept = 0;
    /// Takes a request. It may be held back until kick(). Bad ranges fail through done().
    virtual void submit(BlockRequest& request) = 0;
    /// Hands everything submitted so far to the layer below.
    virtual void kick() = 0;
    /// Requests submitted and not yet done.
    [[nodiscard]] virtual std::uint32_t in_flight() const noexcept = 0;
    /// Asks the layer below whether the size has changed and returns the new geometry.
    [[nodiscard]] virtual Result<BlockGeometry> refresh() = 0;
    /// At first a device waits. One that waits for nothing but its own storage has nothing to give
    /// back, whatever it is told.
    virtual void set_patience(Patience /*patience*/) {}
    /// For people: "file /srv/web1.raw".
    [[nodiscard]] virtual std::string description() const = 0;
};

/// Ok if the request lies within the device, is aligned to its logical blocks, has segments that
/// fit its length, and does not change a read-only device.
[[nodiscard]] Status validate(const BlockRequest& request, const BlockGeometry& geometry);

} // namespace godwit::block
