#pragma once

/// What is served, and through which doors: godwit-blk's command line, and what a successor is
/// told. Values.

#include "doors/exported_disk.h"
#include "virtio/blk/blk_config.h"

#include <string>

namespace godwit::doors {

struct ServeOptions {
    DiskOptions disk;
    std::string vhost_socket; ///< Empty: no such door.
    std::string nbd_address;  ///< Empty: no such door.
    std::string name;         ///< Of the NBD export, and of this one for `godwit`.
    /// Where requests come in; empty: under the run directory, by name.
    std::string control;
    virtio::BlkOptions blk{.instance = 0, .serial = "", .queues = 16, .queue_size = 128};
    /// Lowest level that is logged; here for a successor, which is started with it, too.
    std::string log_level = "info";
};

/// What `godwit` calls the export: its name, or the image's without its ending.
[[nodiscard]] std::string export_name(const ServeOptions& options);

} // namespace godwit::doors
