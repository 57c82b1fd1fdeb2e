#pragma once

/// Requests that a device holds back, first in, first out. The links are the requests' own
/// next_held, so a queue never allocates and never is full. Owner thread only.

#include "block/block_device.h"

#include <utility>

namespace godwit::block {

class RequestQueue {
  public:
    [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
    void push(BlockRequest& request) noexcept {
        request.next_held = nullptr;
        (first_ == nullptr ? first_ : last_->next_held) = &request;
        last_ = &request;
    }
    /// The oldest request, or null.
    [[nodiscard]] BlockRequest* try_pop() noexcept {
        BlockRequest* const request = first_;
        if (request != nullptr) {
            first_ = std::exchange(request->next_held, nullptr);
        }
        return request;
    }

  private:
    BlockRequest* first_ = nullptr;
    BlockRequest* last_ = nullptr; ///< Only valid if first_ is not null.
};

} // namespace godwit::block
