#pragma once

/// ioctl(2) as the rest of src/kvm uses it. Any thread.

#include "base/result.h"
#include "sys/fd.h"

#include <cstdint>
#include <string_view>

namespace godwit::kvm {

/// The ioctl's non-negative answer. `what` names the call for the error text ("KVM_SET_REGS").
[[nodiscard]] Result<int>
call(const sys::Fd& fd, unsigned long request, std::uintptr_t argument, std::string_view what);

template <typename T>
[[nodiscard]] Status
call_with(const sys::Fd& fd, unsigned long request, T* argument, std::string_view what) {
    GODWIT_TRY(call(fd, request, reinterpret_cast<std::uintptr_t>(argument), what));
    return ok();
}

} // namespace godwit::kvm
