#pragma once

/// The place a disk is moved to, or what is written to it from now on: a file that is made for it,
/// or a file or block device that is there already, open under its lock. Control thread.

#include "base/result.h"
#include "sys/fd.h"

#include <cstdint>
#include <span>
#include <string>

namespace godwit::block {

/// An image that is in use already, by the same owner.
struct OwnImage {
    std::string name; ///< "disk0"
    const sys::Fd* image = nullptr;
};

/// What may be there already.
enum class Existing : std::uint8_t { anything, devices, nothing };

struct DestinationWish {
    std::string path;
    std::uint64_t bytes = 0;               ///< Of the disk.
    std::uint32_t logical_block_bytes = 0; ///< That the guest knows.
    bool direct = true;                    ///< O_DIRECT if the place can do it.
    std::span<const OwnImage> own;         ///< Which it must not be.
    Existing existing = Existing::anything;
};

/// Whether both are the same file or block device.
[[nodiscard]] bool is_same_object(const sys::Fd& image, const std::string& path);

class DiskDestination {
  public:
    /// Makes or opens it. Errors say which way the place is wrong; nothing is left behind then.
    [[nodiscard]] static Result<DiskDestination> open(const DestinationWish& wish);

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] const sys::Fd& image() const noexcept { return image_; }
    [[nodiscard]] bool direct() const noexcept { return direct_; }
    [[nodiscard]] bool created() const noexcept { return created_; }
    /// The disk lies there from now on; gives the descriptor.
    [[nodiscard]] sys::Fd keep() && { return std::move(image_); }
    /// Takes the file away if it was made here and its name is still its own.
    void remove();

  private:
    DiskDestination(std::string path, sys::Fd image, bool direct, bool created)
        : path_(std::move(path)), image_(std::move(image)), direct_(direct), created_(created) {}

    std::string path_;
    sys::Fd image_;
    bool direct_;
    bool created_;
};

} // namespace godwit::block
