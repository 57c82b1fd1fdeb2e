#pragma once

/// The memory in which the rings of a session record what is in flight. The front end keeps its
/// descriptor while this process is killed and started again.
///
/// Thread rule: a value; the session's thread. The rings it opens keep the mapping.

#include "base/result.h"
#include "doors/vhost/protocol.h"
#include "sys/fd.h"
#include "sys/peer_mapping.h"
#include "virtio/inflight_ring.h"

#include <cstdint>
#include <memory>

namespace godwit::doors::vhost {

class InflightMemory {
  public:
    /// Fresh memory for so many queues, and how to describe it to the front end.
    struct Created;
    [[nodiscard]] static Result<Created> create(std::uint16_t queues, std::uint16_t queue_size);
    /// What the front end brings, from us or from a predecessor.
    [[nodiscard]] static Result<InflightMemory> adopt(const sys::Fd& object,
                                                      const InflightDescription& description);

    [[nodiscard]] Result<virtio::InflightRing> ring(std::uint16_t index, std::uint16_t size) const;
    [[nodiscard]] bool torn() const noexcept { return mapping_->torn(); }
    /// For a successor.
    [[nodiscard]] const sys::Fd& object() const noexcept { return object_; }
    [[nodiscard]] const InflightDescription& description() const noexcept { return description_; }

  private:
    InflightMemory(sys::Fd object,
                   std::shared_ptr<sys::PeerMapping> mapping,
                   const InflightDescription& description)
        : object_(std::move(object)), mapping_(std::move(mapping)), description_(description) {}
    sys::Fd object_;
    std::shared_ptr<sys::PeerMapping> mapping_;
    InflightDescription description_;
};

struct InflightMemory::Created {
    sys::Fd object;
    InflightDescription description;
};

} // namespace godwit::doors::vhost
