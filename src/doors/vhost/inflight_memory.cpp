#include "doors/vhost/inflight_memory.h"

#include "virtio/blk/blk_config.h"
#include "virtio/virt_queue.h"

#include <string>

namespace godwit::doors::vhost {

namespace {

Status check(const InflightDescription& description) {
    if (description.queues == 0 || description.queues > virtio::blk_queues_max ||
        description.queue_size == 0 || description.queue_size > virtio::queue_size_max) {
        return Error(ErrorCode::corrupt,
                     "in-flight memory for " + std::to_string(description.queues) +
                         " queues of size " + std::to_string(description.queue_size));
    }
    return ok();
}

} // namespace

Result<InflightMemory::Created> InflightMemory::create(std::uint16_t queues,
                                                       std::uint16_t queue_size) {
    const InflightDescription description{.bytes =
                                              virtio::InflightRing::bytes_for(queue_size) * queues,
                                          .offset = 0,
                                          .queues = queues,
                                          .queue_size = queue_size};
    GODWIT_TRY(check(description));
    sys::Fd object = GODWIT_TRY(sys::create_memfd("godwit-inflight", description.bytes));
    return Created{.object = std::move(object), .description = description};
}

Result<InflightMemory> InflightMemory::adopt(const sys::Fd& object,
                                             const InflightDescription& description) {
    GODWIT_TRY(check(description));
    if (description.bytes <
        virtio::InflightRing::bytes_for(description.queue_size) * description.queues) {
        return Error(ErrorCode::corrupt,
                     "in-flight memory of " + std::to_string(description.bytes) +
                         " bytes is too small for its queues");
    }
    sys::PeerMapping mapping = GODWIT_TRY(sys::PeerMapping::create(
        object, {.offset = description.offset, .bytes = description.bytes}));
    return InflightMemory(GODWIT_TRY(object.duplicate()),
                          std::make_shared<sys::PeerMapping>(std::move(mapping)),
                          description);
}

Result<virtio::InflightRing> InflightMemory::ring(std::uint16_t index, std::uint16_t size) const {
    if (index >= description_.queues || size > description_.queue_size) {
        return Error(ErrorCode::corrupt,
                     "in-flight memory has no place for ring " + std::to_string(index) +
                         " of size " + std::to_string(size));
    }
    const std::uint64_t bytes = virtio::InflightRing::bytes_for(description_.queue_size);
    return virtio::InflightRing::open(
        mapping_->bytes().subspan(index * bytes, bytes), size, mapping_);
}

} // namespace godwit::doors::vhost
