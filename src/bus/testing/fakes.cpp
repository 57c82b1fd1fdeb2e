#include "bus/testing/fakes.h"

#include "bus/little_endian.h"

#include <array>

namespace godwit::bus::testing {

Status FakeAddressSpace::add(std::uint64_t start, std::uint64_t bytes, BusDevice& device) {
    const std::lock_guard lock(mutex_);
    for (const auto& [other, range] : ranges_) {
        if (start < other + range.bytes && other < start + bytes) {
            return Error(ErrorCode::already_exists, "the range overlaps another");
        }
    }
    ranges_[start] = {.bytes = bytes, .device = &device};
    return ok();
}

void FakeAddressSpace::remove(std::uint64_t start) {
    const std::lock_guard lock(mutex_);
    GODWIT_ASSERT(ranges_.erase(start) == 1);
}

std::pair<BusDevice*, std::uint64_t> FakeAddressSpace::find(std::uint64_t address,
                                                            std::size_t bytes) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [start, range] : ranges_) {
        if (address >= start && address + bytes <= start + range.bytes) {
            return {range.device, address - start};
        }
    }
    return {nullptr, 0};
}

std::uint64_t FakeAddressSpace::read(std::uint64_t address, std::size_t bytes) {
    std::array<std::byte, 8> out{};
    out.fill(std::byte{0xff});
    const auto part = std::span(out).first(bytes);
    const auto [device, offset] = find(address, bytes);
    if (device != nullptr) {
        device->read(offset, part); // Without the lock: a device may move ranges.
    }
    return load_little(part);
}

void FakeAddressSpace::write(std::uint64_t address, std::size_t bytes, std::uint64_t value) {
    std::array<std::byte, 8> data{};
    store_little(data, value);
    const auto [device, offset] = find(address, bytes);
    if (device != nullptr) {
        device->write(offset, std::span(data).first(bytes));
    }
}

std::size_t FakeAddressSpace::ranges() const {
    const std::lock_guard lock(mutex_);
    return ranges_.size();
}

bool FakeAddressSpace::has(std::uint64_t start) const {
    const std::lock_guard lock(mutex_);
    return ranges_.contains(start);
}

class FakeVector final : public MsiVector {
  public:
    FakeVector(FakeMsiRouter& router, std::shared_ptr<VectorHistory> history)
        : router_(router), history_(std::move(history)) {}

    [[nodiscard]] Status route(const MsiMessage& message) override {
        const std::lock_guard lock(router_.mutex_);
        if (router_.refuse_) {
            return Error(ErrorCode::invalid_argument, "the test refuses routes");
        }
        history_->routed = message;
        ++history_->routes;
        return ok();
    }

    void unroute() override {
        const std::lock_guard lock(router_.mutex_);
        history_->routed.reset();
    }

    void signal() noexcept override {
        const std::lock_guard lock(router_.mutex_);
        ++(history_->routed.has_value() ? history_->signals : history_->lost);
    }

  private:
    FakeMsiRouter& router_;
    std::shared_ptr<VectorHistory> history_;
};

Result<std::unique_ptr<MsiVector>> FakeMsiRouter::create_vector() {
    const std::lock_guard lock(mutex_);
    if (vectors_.size() >= limit_) {
        return Error(ErrorCode::resource_exhausted, "the test has no more vectors");
    }
    vectors_.push_back(std::make_shared<VectorHistory>());
    return std::make_unique<FakeVector>(*this, vectors_.back());
}

VectorHistory FakeMsiRouter::vector(std::size_t index) const {
    const std::lock_guard lock(mutex_);
    GODWIT_ASSERT(index < vectors_.size());
    return *vectors_[index];
}

std::size_t FakeMsiRouter::size() const {
    const std::lock_guard lock(mutex_);
    return vectors_.size();
}

void FakeMsiRouter::refuse_routes(bool refuse) {
    const std::lock_guard lock(mutex_);
    refuse_ = refuse;
}

void FakeMsiRouter::limit_vectors(std::size_t count) {
    const std::lock_guard lock(mutex_);
    limit_ = count;
}

Status FakeDoorbells::add(Gpa address, const sys::EventFd& event) {
    const std::lock_guard lock(mutex_);
    if (refuse_) {
        return Error(ErrorCode::resource_exhausted, "the test has no more doorbells");
    }
    if (bells_.contains(address)) {
        return Error(ErrorCode::already_exists, "a doorbell hangs there");
    }
    bells_.emplace(address, GODWIT_TRY(event.duplicate()));
    return ok();
}

void FakeDoorbells::remove(Gpa address, const sys::EventFd& /*event*/) noexcept {
    const std::lock_guard lock(mutex_);
    bells_.erase(address);
}

bool FakeDoorbells::ring(Gpa address) {
    const std::lock_guard lock(mutex_);
    const auto found = bells_.find(address);
    if (found == bells_.end()) {
        return false;
    }
    found->second.signal();
    return true;
}

std::vector<Gpa> FakeDoorbells::addresses() const {
    const std::lock_guard lock(mutex_);
    std::vector<Gpa> list;
    for (const auto& [address, event] : bells_) {
        list.push_back(address);
    }
    return list;
}

} // namespace godwit::bus::testing
