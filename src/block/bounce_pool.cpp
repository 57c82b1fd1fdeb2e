#include "block/bounce_pool.h"

namespace godwit::block {

Result<BouncePool> BouncePool::create() {
    constexpr std::uint64_t total = (bounce_buffers_max + 1) * bounce_bytes;
    const sys::Fd file = GODWIT_TRY(sys::create_memfd("godwit-bounce", total));
    return BouncePool(GODWIT_TRY(sys::MappedRegion::create(file, 0, total, sys::MapMode::shared)));
}

BouncePool::BouncePool(sys::MappedRegion memory) : memory_(std::move(memory)) {
    free_.reserve(bounce_buffers_max);
    for (std::size_t i = 0; i < bounce_buffers_max; ++i) {
        free_.push_back(memory_.bytes().subspan(i * bounce_bytes, bounce_bytes));
    }
}

std::span<std::byte> BouncePool::try_take() noexcept {
    if (free_.empty()) {
        return {};
    }
    const std::span<std::byte> buffer = free_.back();
    free_.pop_back();
    return buffer;
}

void BouncePool::give_back(std::span<std::byte> buffer) noexcept {
    GODWIT_ASSERT(free_.size() < bounce_buffers_max);
    free_.push_back(buffer);
}

std::span<std::byte> BouncePool::zeros() const noexcept {
    return memory_.bytes().last(bounce_bytes);
}

} // namespace godwit::block
