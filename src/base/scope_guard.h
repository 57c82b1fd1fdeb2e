#pragma once

/// Runs an undo action at the end of a scope unless commit() was called. Owner thread only.

#include <utility>

namespace godwit {

template <typename Undo>
class [[nodiscard]] ScopeGuard {
  public:
    explicit ScopeGuard(Undo undo) : undo_(std::move(undo)) {}
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;
    ScopeGuard(ScopeGuard&&) = delete;
    ScopeGuard& operator=(ScopeGuard&&) = delete;
    ~ScopeGuard() {
        if (armed_) {
            undo_();
        }
    }
    /// The step succeeded: nothing is undone.
    void commit() noexcept { armed_ = false; }

  private:
    Undo undo_;
    bool armed_ = true;
};

} // namespace godwit
