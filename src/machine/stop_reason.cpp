#include "machine/stop_reason.h"

namespace godwit::machine {

std::string_view name_of(StopReason reason) noexcept {
    switch (reason) {
    case StopReason::powered_off:
        return "powered_off";
    case StopReason::rebooted:
        return "rebooted";
    case StopReason::triple_fault:
        return "triple_fault";
    case StopReason::internal_error:
        return "internal_error";
    }
    return "unknown";
}

} // namespace godwit::machine
