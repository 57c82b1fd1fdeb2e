#include "memory/warm.h"

#include "base/log.h"
#include "machine/machine_impl.h"
#include "machine/resources.h"

namespace godwit::machine {

Result<Machine::Warmth> Machine::warm(std::chrono::milliseconds limit) {
    Impl& m = *impl_;
    if (m.ram_mapping != RamMapping::shared || m.vcpus.empty()) {
        return Error(ErrorCode::conflict, "the machine has no right to its memory yet");
    }
    const sys::Fd& ram = GODWIT_TRY(find_resource(m.resources, ram_resource_name)).get();
    const auto backing =
        GODWIT_TRY(memory::RamBacking::adopt(GODWIT_TRY(ram.duplicate()), m.spec.memory));
    const sys::Moment deadline = m.clock.now() + limit;
    Warmth warmth{.second_level = m.kvm.extension(kvm::cap_pre_fault_memory) > 0};
    warmth.bytes = GODWIT_TRY(memory::warm(*m.memory, backing, [&](memory::WarmStep step) {
        if (warmth.second_level) {
            const Status filled = m.vcpus.front()->vcpu().pre_fault(step.start, step.bytes);
            if (!filled.has_value()) {
                log::info("second_level_not_filled", {{"reason", filled.error().to_string()}});
                warmth.second_level = false;
            }
        }
        return m.clock.now() < deadline;
    }));
    return warmth;
}

} // namespace godwit::machine
