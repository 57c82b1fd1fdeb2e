#pragma once

/// For decorators: a caller's request sent on as it is, with its completion passing through here
/// first. The pool grows to the most requests that were ever on their way and then allocates no
/// more. Owner thread only.

#include "block/block_device.h"
#include "sys/clock.h"

#include <deque>
#include <vector>

namespace godwit::block {

/// A request on its way, and what it was when it came.
struct Interception {
    BlockRequest* request = nullptr;
    void (*done)(BlockRequest&, Status) noexcept = nullptr; ///< The caller's.
    void* owner = nullptr;                                  ///< The caller's.
    void* device = nullptr;                                 ///< The decorator.
    sys::Moment due;                                        ///< For the decorator.
    Status status;                                          ///< For the decorator.
};

class InterceptionPool {
  public:
    /// Makes `request` complete through `done`, whose request's owner is the Interception.
    Interception&
    intercept(BlockRequest& request, void* device, void (*done)(BlockRequest&, Status) noexcept) {
        if (idle_.empty()) {
            idle_.push_back(&all_.emplace_back());
            idle_.reserve(all_.size());
        }
        Interception& taken = *idle_.back();
        idle_.pop_back();
        taken.request = &request;
        taken.done = request.done;
        taken.owner = request.owner;
        taken.device = device;
        request.done = done;
        request.owner = &taken;
        return taken;
    }
    /// Gives the request back its own completion; the interception is over.
    BlockRequest& restore(Interception& taken) noexcept {
        BlockRequest& request = *taken.request;
        request.done = taken.done;
        request.owner = taken.owner;
        idle_.push_back(&taken);
        return request;
    }
    [[nodiscard]] std::size_t in_flight() const noexcept { return all_.size() - idle_.size(); }

  private:
    std::deque<Interception> all_; ///< Stable addresses.
    std::vector<Interception*> idle_;
};

} // namespace godwit::block
