#pragma once

/// A block device in memory that remembers what it was asked, for tests: it completes on its loop,
/// or holds requests back until told, or fails them. Made anywhere; the settings may be changed
/// from any thread, the rest is the loop's.

#include "block/block_device.h"
#include "sys/event_loop.h"

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace godwit::virtio::testing {

/// Outlives the disk, so that a test keeps hold of it.
class MemoryDiskControl {
  public:
    struct Seen {
        block::BlockOperation operation;
        std::uint64_t offset;
        std::uint64_t bytes;
        bool force_unit_access;
        bool may_unmap;
    };
    [[nodiscard]] std::vector<Seen> seen() const;
    [[nodiscard]] std::uint32_t kicks() const;
    void fail_with(int os_errno); ///< 0: works again.
    /// Requests stay in flight until release() or until hold(false).
    void hold(bool held);
    void release();
    /// Waits until `count` requests have arrived in all; false after ten seconds.
    [[nodiscard]] bool wait_for_requests(std::size_t count);
    void resize(std::uint64_t bytes);
    /// What is held waits for somebody: told to be impatient, the disk gives it back.
    void hold_for_room();

  private:
    friend class MemoryDisk;
    mutable std::mutex mutex_;
    std::condition_variable arrived_;
    std::vector<Seen> seen_; ///< All below guarded by mutex_.
    std::uint32_t kicks_ = 0;
    int os_errno_ = 0;
    bool held_ = false;
    bool for_room_ = false;
    std::uint64_t bytes_ = 0;
    class MemoryDisk* disk_ = nullptr;
    sys::EventLoop* loop_ = nullptr;
};

class MemoryDisk final : public block::BlockDevice {
  public:
    MemoryDisk(sys::EventLoop& loop,
               block::BlockGeometry geometry,
               std::shared_ptr<MemoryDiskControl> control);
    ~MemoryDisk() override;

    [[nodiscard]] const block::BlockGeometry& geometry() const noexcept override {
        return geometry_;
    }
    void submit(block::BlockRequest& request) override;
    void kick() override;
    [[nodiscard]] std::uint32_t in_flight() const noexcept override {
        return static_cast<std::uint32_t>(waiting_.size());
    }
    [[nodiscard]] Result<block::BlockGeometry> refresh() override;
    void set_patience(block::Patience patience) override;
    [[nodiscard]] std::string description() const override { return "memory"; }
    void complete_all();

  private:
    [[nodiscard]] Status perform(const block::BlockRequest& request);
    sys::EventLoop& loop_;
    block::BlockGeometry geometry_;
    std::shared_ptr<MemoryDiskControl> control_;
    std::vector<std::byte> content_;
    std::vector<block::BlockRequest*> waiting_;
};

} // namespace godwit::virtio::testing
