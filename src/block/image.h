#pragma once

/// Disk images as the host's file system or kernel offers them: opening under a lock, and what the
/// open image can do. Free functions; any thread.

#include "base/result.h"
#include "block/block_device.h"
#include "sys/fd.h"

#include <cstdint>
#include <string>

namespace godwit::block {

struct ImageOptions {
    bool read_only = false;
    /// O_DIRECT: the host's page cache is left out. Refused by some file systems.
    bool direct = true;
};

/// Opens a raw image file or block device and locks it: alone if it may be written, shared with
/// other readers if not. `busy` if someone else has it. The lock belongs to the open file
/// description (F_OFD_SETLK): it goes where the descriptor goes, also to another process, and ends
/// with its last copy.
[[nodiscard]] Result<sys::Fd> open_image(const std::string& path, const ImageOptions& options);

/// What an open image is. Read-only and direct follow from how it was opened.
struct ImageFacts {
    BlockGeometry geometry;
    bool direct = false;
    bool block_device = false;
    /// Length and file offset of each piece that goes to the kernel are multiples of this.
    std::uint32_t transfer_alignment_bytes = 1;
};

/// Asks the kernel about an open image. `name` is for messages.
[[nodiscard]] Result<ImageFacts> inspect_image(const sys::Fd& image, const std::string& name);

} // namespace godwit::block
