#include "block/testing/block_oracle.h"

#include <algorithm>
#include <cstring>

namespace godwit::block::testing {

namespace {

constexpr std::size_t word_bytes = sizeof(std::uint64_t);

std::uint64_t word_of(std::span<const std::byte> data, std::size_t index) noexcept {
    std::uint64_t word = 0;
    std::memcpy(&word, data.data() + index * word_bytes, word_bytes);
    return word;
}

/// Word 0 is the write's number plus one, word 1 the block, the rest word 0 again.
std::uint64_t content(std::size_t index, std::uint64_t number, std::uint64_t block) noexcept {
    return index == 1 ? block : number + 1;
}

bool is_zero(std::span<const std::byte> data) noexcept {
    return std::ranges::all_of(data, [](std::byte byte) { return byte == std::byte{0}; });
}

} // namespace

BlockOracle::Number BlockOracle::begin(Change change, BlockRange range) {
    events_.push_back({.change = change, .range = range, .begun = ++tick_});
    for (std::uint64_t block = range.first; block < range.end; ++block) {
        versions_[block].push_back(events_.size() - 1);
    }
    return events_.size() - 1;
}

void BlockOracle::fill(Number number, std::span<std::byte> out) const {
    const BlockRange range = events_[number].range;
    for (std::uint64_t block = range.first; block < range.end; ++block) {
        const auto place = out.subspan((block - range.first) * block_bytes_, block_bytes_);
        for (std::size_t i = 0; i < block_bytes_ / word_bytes; ++i) {
            const std::uint64_t word = content(i, number, block);
            std::memcpy(place.data() + i * word_bytes, &word, word_bytes);
        }
    }
}

void BlockOracle::end(Number number, bool succeeded, Durable durable) {
    Event& event = events_[number];
    event.ended = ++tick_;
    event.strong = succeeded && event.change != Change::discard;
    if (event.strong) {
        event.durable = durable == Durable::yes;
        if (!event.durable) {
            volatile_.push_back(number);
        }
    }
}

void BlockOracle::flushed(std::uint64_t since) {
    ++tick_;
    std::erase_if(volatile_, [&](Number number) {
        Event& event = events_[number];
        event.durable = event.ended < since;
        event.flushed = event.durable ? tick_ : 0;
        return event.durable;
    });
}

void BlockOracle::flush_failed(std::uint64_t since) noexcept {
    volatile_.clear();
    for (Event& event : events_) {
        event.durable = event.durable && event.flushed <= since;
    }
}

/// `version` null: the zeros of the beginning.
bool BlockOracle::possible(const Event* version,
                           std::uint64_t block,
                           std::uint64_t since,
                           By by) const {
    const std::uint64_t ended = version == nullptr ? 0 : version->ended;
    return std::ranges::none_of(versions_[block], [&](Number number) {
        const Event& other = events_[number];
        return other.strong && other.begun > ended &&
               (by == By::end ? other.ended < since : other.durable);
    });
}

std::string BlockOracle::check_block(std::uint64_t block,
                                     std::span<const std::byte> data,
                                     std::uint64_t since,
                                     By by) const {
    const auto name = [&] { return "block " + std::to_string(block) + ": "; };
    if (is_zero(data)) {
        const bool fine = possible(nullptr, block, since, by) ||
                          std::ranges::any_of(versions_[block], [&](Number number) {
                              return events_[number].change != Change::write &&
                                     possible(&events_[number], block, since, by);
                          });
        return fine ? std::string() : name() + "zeros, but a write is lost";
    }
    const std::uint64_t number = word_of(data, 0) - 1;
    for (std::size_t i = 0; i < data.size() / word_bytes; ++i) {
        if (word_of(data, i) != content(i, number, block)) {
            return name() + "no write's contents at word " + std::to_string(i);
        }
    }
    if (number >= events_.size() || !BlockRange{block, block + 1}.overlaps(events_[number].range)) {
        return name() + "contents of elsewhere";
    }
    if (!possible(&events_[number], block, since, by)) {
        return name() + "stale: write " + std::to_string(number) + " has been overwritten";
    }
    return {};
}

std::string BlockOracle::check(std::uint64_t first,
                               std::span<const std::byte> data,
                               std::uint64_t since) const {
    for (std::uint64_t i = 0; i < data.size() / block_bytes_; ++i) {
        std::string wrong =
            check_block(first + i, data.subspan(i * block_bytes_, block_bytes_), since, By::end);
        if (!wrong.empty()) {
            return wrong;
        }
    }
    return {};
}

std::string BlockOracle::check_after_crash(std::span<const std::byte> disk) const {
    for (std::uint64_t block = 0; block < versions_.size(); ++block) {
        std::string wrong = check_block(
            block, disk.subspan(block * block_bytes_, block_bytes_), never, By::durability);
        if (!wrong.empty()) {
            return wrong;
        }
    }
    return {};
}

bool BlockOracle::settled(std::uint64_t block) const {
    return std::ranges::all_of(versions_[block],
                               [&](Number number) { return events_[number].strong; });
}

} // namespace godwit::block::testing
