#include "memory/warm.h"

#include "base/log.h"
#include "machine/machine_impl.h"
#include "machine/resources.h"

namespace godwit::machine {

namespace {

/// The object behind RAM, through a descriptor of its own.
Result<memory::RamBacking> backing_of(const Resources& resources, const memory::RamSpec& spec) {
    const sys::Fd& ram = GODWIT_TRY(find_resource(resources, ram_resource_name)).get();
    return memory::RamBacking::adopt(GODWIT_TRY(ram.duplicate()), spec);
}

} // namespace

Result<Machine::Warmth> Machine::warm(std::chrono::milliseconds limit) {
    Impl& m = *impl_;
    if (m.ram_mapping != RamMapping::shared || m.vcpus.empty()) {
        return Error(ErrorCode::conflict, "the machine has no right to its memory yet");
    }
    const auto backing = GODWIT_TRY(backing_of(m.resources, m.spec.memory));
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

Result<Machine::Fetch> Machine::prepare_fetch(std::chrono::milliseconds limit) const {
    const Impl& m = *impl_;
    if (m.ram_mapping != RamMapping::shared) {
        return Error(ErrorCode::conflict, "the machine has no right to its memory");
    }
    return Fetch([memory = m.memory,
                  clock = &m.clock,
                  limit,
                  backing = GODWIT_TRY(backing_of(m.resources, m.spec.memory))] {
        const sys::Moment deadline = clock->now() + limit;
        return memory::warm(
            *memory, backing, [&](memory::WarmStep) { return clock->now() < deadline; });
    });
}

} // namespace godwit::machine
