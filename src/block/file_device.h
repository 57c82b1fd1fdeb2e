#pragma once

/// A raw image file or block device as a BlockDevice, through io_uring.
///
/// Requests beyond the queue depth are held back, never refused. Under O_DIRECT, requests whose
/// memory is not aligned go through bounce buffers; all others move straight between the caller's
/// memory and the disk. A flush covers every write that was done() before it was submitted.
/// Thread rule: as BlockDevice; create() and the destructor too run on the loop's thread, or before
/// the loop runs. Not from within done().

#include "block/block_device.h"
#include "block/bounce_pool.h"
#include "block/image.h"
#include "block/request_queue.h"
#include "sys/event_loop.h"
#include "sys/fd.h"
#include "sys/file_ring.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace godwit::block {

class FileOperation;
struct FileContext;

struct FileDeviceOptions {
    std::string name; ///< The image's path, for messages.
    /// Operations given to the kernel at once; more wait.
    std::uint32_t queue_depth = 128;
};

class FileDevice final : public BlockDevice {
  public:
    /// Takes a descriptor from open_image(), this process's or another's. Several devices may have
    /// copies of one descriptor, one per thread.
    [[nodiscard]] static Result<std::unique_ptr<FileDevice>>
    create(sys::Fd image, sys::EventLoop& loop, FileDeviceOptions options);
    FileDevice(const FileDevice&) = delete;
    FileDevice& operator=(const FileDevice&) = delete;
    /// Waits for everything in flight; its done() is called.
    ~FileDevice() override;

    [[nodiscard]] const BlockGeometry& geometry() const noexcept override;
    void submit(BlockRequest& request) override;
    void kick() override;
    [[nodiscard]] std::uint32_t in_flight() const noexcept override { return in_flight_; }
    [[nodiscard]] Result<BlockGeometry> refresh() override;
    [[nodiscard]] std::string description() const override;

    /// For handing the image over: the same open file, with its lock.
    [[nodiscard]] const sys::Fd& image() const noexcept { return image_; }

  private:
    FileDevice(sys::Fd image,
               sys::EventLoop& loop,
               std::unique_ptr<sys::FileRing> ring,
               BouncePool pool,
               std::uint32_t queue_depth);
    void start(BlockRequest& request);
    void complete(const sys::Completion& completion);
    void start_waiting();
    void on_ready();
    void submit_to_kernel();

    sys::Fd image_;
    sys::EventLoop& loop_;
    std::unique_ptr<sys::FileRing> ring_;
    BouncePool pool_;
    std::unique_ptr<FileContext> context_;
    std::vector<FileOperation> operations_; ///< Fixed; an index is the ring's token.
    std::vector<std::uint32_t> idle_;       ///< Indexes of operations without a request.
    std::vector<std::uint32_t> starved_;    ///< Operations that wait for a bounce buffer.
    RequestQueue held_;                     ///< Requests that wait for an operation.
    std::uint32_t in_flight_ = 0;
    sys::EventLoop::Handle watch_;
    sys::EventLoop::Handle retry_; ///< While the kernel does not take what is submitted.
};

} // namespace godwit::block
