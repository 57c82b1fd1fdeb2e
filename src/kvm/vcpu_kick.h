#pragma once

/// Getting a vCPU thread out of KVM_RUN: a signal with an empty handler, sent to that thread alone.
/// Together with Vcpu::request_exit() no kick is ever lost: the request is seen by the next entry.

#include "base/result.h"

#include <pthread.h>

namespace godwit::kvm {

/// Called once on each vCPU thread: installs the handler and lets the signal in.
[[nodiscard]] Status accept_kicks();
/// Any thread; `thread` must not have been joined.
void kick(pthread_t thread) noexcept;

} // namespace godwit::kvm
