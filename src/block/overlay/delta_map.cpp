#include "block/overlay/delta_map.h"

#include <algorithm>

namespace godwit::block {

void DeltaMap::set(std::uint64_t cluster, std::uint32_t slot, Durable durable) {
    std::unique_ptr<Leaf>& leaf = leaves_[cluster / leaf_size];
    if (!leaf) {
        leaf = std::make_unique<Leaf>();
        leaf->fill(none);
    }
    std::uint32_t& value = (*leaf)[cluster % leaf_size];
    count_ += value == none ? 1 : 0;
    value = slot | (durable == Durable::yes ? 0 : volatile_bit);
}

void DeltaMap::clear(std::uint64_t cluster) noexcept {
    Leaf* const leaf = leaves_[cluster / leaf_size].get();
    if (leaf != nullptr && (*leaf)[cluster % leaf_size] != none) {
        (*leaf)[cluster % leaf_size] = none;
        --count_;
    }
}

std::uint64_t DeltaMap::next(std::uint64_t from) const noexcept {
    while (from < clusters_) {
        if (leaves_[from / leaf_size] == nullptr) {
            from = (from / leaf_size + 1) * leaf_size;
        } else if (at(from) == none) {
            ++from;
        } else {
            return from;
        }
    }
    return clusters_;
}

} // namespace godwit::block
