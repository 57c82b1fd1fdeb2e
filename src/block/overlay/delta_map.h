#pragma once

/// Where the clusters of a disk lie in its delta: cluster to slot, in leaves that are taken when
/// first needed, so that a new map costs nothing for the size of the disk but 8 bytes per 1024
/// clusters. Owner thread only. Indexes beyond the size are our own mistake.

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace godwit::block {

class DeltaMap {
  public:
    static constexpr std::uint32_t none = 0xffffffff;

    explicit DeltaMap(std::uint64_t clusters)
        : clusters_(clusters), leaves_((clusters + leaf_size - 1) / leaf_size) {}

    /// The slot, or none.
    [[nodiscard]] std::uint32_t slot(std::uint64_t cluster) const noexcept {
        const std::uint32_t value = at(cluster);
        return value == none ? none : value & ~volatile_bit;
    }
    /// Whether a journal names it.
    [[nodiscard]] bool is_durable(std::uint64_t cluster) const noexcept {
        return (at(cluster) & volatile_bit) == 0;
    }
    enum class Durable : std::uint8_t { no, yes };
    void set(std::uint64_t cluster, std::uint32_t slot, Durable durable);
    void clear(std::uint64_t cluster) noexcept;
    [[nodiscard]] std::uint64_t clusters() const noexcept { return clusters_; }
    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    /// The first mapped cluster from `from` on; clusters() if there is none.
    [[nodiscard]] std::uint64_t next(std::uint64_t from) const noexcept;

  private:
    static constexpr std::uint64_t leaf_size = 1024;
    static constexpr std::uint32_t volatile_bit = std::uint32_t{1} << 31U;
    using Leaf = std::array<std::uint32_t, leaf_size>;

    [[nodiscard]] std::uint32_t at(std::uint64_t cluster) const noexcept {
        const Leaf* const leaf = leaves_[cluster / leaf_size].get();
        return leaf == nullptr ? none : (*leaf)[cluster % leaf_size];
    }

    std::uint64_t clusters_;
    std::uint64_t count_ = 0;
    std::vector<std::unique_ptr<Leaf>> leaves_;
};

} // namespace godwit::block
