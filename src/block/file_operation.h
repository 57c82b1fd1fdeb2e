#pragma once

/// One request on its way through a file's io_uring: which operation of the ring comes next.
///
///     begin -> [transfer | change_space | write_zeros] -> [flush] -> done
///                 short transfer, EAGAIN: the rest again
///                 change_space refused: the next method that this image has not refused
///
/// Used by FileDevice alone. Owner thread only.

#include "block/bounce_pool.h"
#include "block/image.h"
#include "sys/file_ring.h"

#include <cstdint>
#include <string>
#include <vector>

namespace godwit::block {

/// How zeros are written; falls from each to the next when the file system refuses one.
enum class ZeroMethod : std::uint8_t { zero_range, punch_hole, write };

/// What the operations of one device share.
struct FileContext {
    std::string name; ///< For messages.
    ImageFacts facts;
    sys::FileRing& ring;
    BouncePool& pool;
    ZeroMethod zero_method = ZeroMethod::zero_range;
    bool punches_holes = true; ///< Until the file system refuses.
};

class FileOperation {
  public:
    enum class Progress : std::uint8_t {
        in_ring,      ///< Call complete() with what comes back.
        needs_buffer, ///< Call resume() when the pool has one.
        done,         ///< Call take_result().
    };
    struct Result {
        BlockRequest* request = nullptr;
        Status status;
    };

    /// Starts `request`. Never done at once: also what is refused completes through the ring.
    [[nodiscard]] Progress begin(BlockRequest& request, std::uint64_t token, FileContext& context);
    [[nodiscard]] Progress resume(FileContext& context) { return issue(context); }
    [[nodiscard]] Progress complete(std::int32_t result, FileContext& context);
    [[nodiscard]] Result take_result() noexcept;

  private:
    enum class Step : std::uint8_t { nothing, transfer, write_zeros, change_space, flush };

    [[nodiscard]] Step first_step(const FileContext& context) const noexcept;
    [[nodiscard]] Progress issue(FileContext& context);
    [[nodiscard]] Progress issue_transfer(FileContext& context);
    void issue_write_zeros(FileContext& context);
    [[nodiscard]] Progress after_transfer(std::uint64_t bytes, FileContext& context);
    [[nodiscard]] Progress after_refused_space_change(FileContext& context);
    [[nodiscard]] Progress after_data(FileContext& context);
    [[nodiscard]] Progress finish(Status status, FileContext& context);
    [[nodiscard]] sys::WriteMode write_mode() const noexcept;

    BlockRequest* request_ = nullptr;
    std::uint64_t token_ = 0;
    Step step_ = Step::nothing;
    /// What was issued: what the image takes may change while it is in the ring.
    sys::SpaceChange change_ = sys::SpaceChange::zero_range;
    std::uint32_t retries_ = 0;
    std::uint64_t moved_bytes_ = 0;
    bool bounced_ = false;
    std::span<std::byte> buffer_; ///< Of the pool, while bouncing.
    std::vector<iovec> part_;     ///< What goes to the ring when it is not all of the request.
    Status status_;
};

} // namespace godwit::block
