#include "sim/fiber.h"

#include "base/result.h"

#include <cstdint>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace godwit::sim {

namespace {

constexpr std::size_t stack_bytes = 256U << 10U;
constexpr std::size_t stacks_kept_max = 64;

/// Stacks that are not in use: a simulation makes and drops fibers by the thousand.
std::vector<std::unique_ptr<std::byte[]>>& free_stacks() {
    thread_local std::vector<std::unique_ptr<std::byte[]>> stacks;
    return stacks;
}

std::unique_ptr<std::byte[]> take_stack() {
    auto& stacks = free_stacks();
    if (stacks.empty()) {
        return std::make_unique_for_overwrite<std::byte[]>(stack_bytes);
    }
    auto stack = std::move(stacks.back());
    stacks.pop_back();
    return stack;
}

} // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)), stack_(take_stack()) {
    GODWIT_ASSERT(::getcontext(&own_) == 0);
    own_.uc_stack.ss_sp = stack_.get();
    own_.uc_stack.ss_size = stack_bytes;
    own_.uc_link = nullptr;
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    // makecontext(3) passes ints only.
    ::makecontext(&own_,
                  reinterpret_cast<void (*)()>(&Fiber::enter),
                  2,
                  static_cast<unsigned>(self >> 32U),
                  static_cast<unsigned>(self));
#if defined(__SANITIZE_THREAD__)
    own_shadow_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
    GODWIT_ASSERT(finished_ || !started_);
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(own_shadow_);
#endif
    if (free_stacks().size() < stacks_kept_max) {
        free_stacks().push_back(std::move(stack_));
    }
}

void Fiber::enter(unsigned high, unsigned low) {
    const auto self = static_cast<std::uintptr_t>(high) << 32U | low;
    reinterpret_cast<Fiber*>(self)->run();
}

void Fiber::resume() {
    GODWIT_ASSERT(!finished_);
    started_ = true;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&resumer_shadow_, stack_.get(), stack_bytes);
#elif defined(__SANITIZE_THREAD__)
    resumer_shadow_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(own_shadow_, 0);
#endif
    GODWIT_ASSERT(::swapcontext(&resumer_, &own_) == 0);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(resumer_shadow_, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
    // A fiber that ends leaves its shadow behind: null frees it.
    __sanitizer_start_switch_fiber(
        finished_ ? nullptr : &own_shadow_, resumer_stack_, resumer_stack_bytes_);
#elif defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(resumer_shadow_, 0);
#endif
    GODWIT_ASSERT(::swapcontext(&own_, &resumer_) == 0);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own_shadow_, &resumer_stack_, &resumer_stack_bytes_);
#endif
}

void Fiber::run() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &resumer_stack_, &resumer_stack_bytes_);
#endif
    body_();
    body_ = nullptr;
    finished_ = true;
    suspend();
}

} // namespace godwit::sim
