/// The least a VMM exchange can cost on this host: a bare program stops running vCPUs, reads all
/// of their state, loads it into a KVM machine built beforehand, and enters the guest there.
///
/// One process, no devices but the in-kernel ones, no protocol, no encoding; every step is timed.
/// The guest spins in ring 3. Prints one JSON line: medians, p99 and maxima in microseconds.
///
///     exchange_floor [RUNS] [VCPUS] [RAM-MIB]     by default 40, 2 and 256

#include "base/program.h"
#include "base/result.h"
#include "kvm/kvm.h"
#include "kvm/vcpu_kick.h"
#include "sys/fd.h"
#include "sys/mapping.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace godwit;
using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
}

/// Medians and extremes of each step over all runs.
class Steps {
  public:
    void add(const std::string& name, Clock::duration time) {
        if (!values_.contains(name)) {
            order_.push_back(name);
        }
        values_[name].push_back(microseconds(time));
    }
    [[nodiscard]] nlohmann::ordered_json json() const {
        nlohmann::ordered_json document;
        for (const std::string& name : order_) {
            std::vector<double> sorted = values_.at(name);
            std::ranges::sort(sorted);
            const auto at = [&](double share) {
                return std::round(sorted[static_cast<std::size_t>(
                                      share * static_cast<double>(sorted.size() - 1))] *
                                  10) /
                       10;
            };
            document[name] = {{"median", at(0.5)}, {"p99", at(0.99)}, {"max", sorted.back()}};
        }
        return document;
    }

  private:
    std::vector<std::string> order_;
    std::map<std::string, std::vector<double>> values_;
};

constexpr std::uint64_t tables_at = 0x1000;
constexpr std::uint64_t code_at = 0x20'0000;
/// Of the guest's loop, some milliseconds.
constexpr std::uint64_t turns_between_hops = 10'000'000;

/// `inc qword [0x200800 + 8 * rdi]; jmp`: a counter for each vCPU, with rdi its number.
constexpr std::array<std::uint8_t, 10> loop_code{
    0x48, 0xFF, 0x04, 0xFD, 0x00, 0x08, 0x20, 0x00, 0xEB, 0xF6};

void write_guest(std::byte* ram) {
    constexpr std::uint64_t user_writable = 7;
    constexpr std::uint64_t large = 0x80;
    const auto put = [&](std::uint64_t at, std::uint64_t value) {
        std::memcpy(ram + at, &value, sizeof(value));
    };
    put(tables_at, (tables_at + 0x1000) | user_writable);
    put(tables_at + 0x1000, (tables_at + 0x2000) | user_writable);
    for (std::uint64_t i = 0; i < 512; ++i) {
        put(tables_at + 0x2000 + 8 * i, (i << 21U) | user_writable | large);
    }
    std::memcpy(ram + code_at, loop_code.data(), loop_code.size());
}

Status enter_ring_3(const kvm::Vcpu& vcpu) {
    kvm_sregs2 sregs = GODWIT_TRY(vcpu.sregs());
    const auto segment = [](std::uint16_t selector, std::uint8_t type, bool code) {
        kvm_segment made{};
        made.limit = 0xFFFFFFFF;
        made.selector = selector;
        made.type = type;
        made.present = made.s = made.g = 1;
        made.dpl = 3;
        made.l = code ? 1 : 0;
        made.db = code ? 0 : 1;
        return made;
    };
    sregs.cs = segment(0x33, 0xB, true);
    sregs.ss = sregs.ds = sregs.es = segment(0x2B, 0x3, false);
    sregs.cr3 = tables_at;
    sregs.cr4 = 0x20;
    sregs.cr0 = 0x8005'0033;
    sregs.efer = 0xD00 | 1;
    GODWIT_TRY(vcpu.set_sregs(sregs));
    kvm_regs regs{};
    regs.rip = code_at;
    regs.rflags = 2;
    regs.rdi = vcpu.id();
    return vcpu.set_regs(regs);
}

struct VcpuImage {
    kvm_mp_state mp_state{};
    kvm_regs regs{};
    kvm_sregs2 sregs{};
    kvm_xcrs xcrs{};
    std::vector<std::byte> xsave;
    kvm_debugregs debug{};
    kvm_lapic_state lapic{};
    kvm_vcpu_events events{};
    std::unique_ptr<kvm::MsrBuffer> msrs;
    std::uint64_t tsc_offset = 0;
};

struct VmImage {
    kvm::IrqchipState chips{};
    kvm_pit_state2 pit{};
    kvm_clock_data clock{};
    std::vector<VcpuImage> vcpus;
};

Status read_vcpu(const kvm::Vcpu& vcpu, VcpuImage& image) {
    image.mp_state = GODWIT_TRY(vcpu.mp_state());
    image.regs = GODWIT_TRY(vcpu.regs());
    image.sregs = GODWIT_TRY(vcpu.sregs());
    image.xcrs = GODWIT_TRY(vcpu.xcrs());
    image.xsave.resize(vcpu.traits().xsave_bytes);
    GODWIT_TRY(vcpu.xsave(image.xsave));
    image.debug = GODWIT_TRY(vcpu.debug_registers());
    GODWIT_TRY(vcpu.read_msrs(*image.msrs));
    image.lapic = GODWIT_TRY(vcpu.lapic());
    image.events = GODWIT_TRY(vcpu.events());
    image.tsc_offset = vcpu.tsc_offset().value_or(0);
    return ok();
}

Status write_vcpu(const kvm::Vcpu& vcpu, const VcpuImage& image) {
    GODWIT_TRY(vcpu.set_sregs(image.sregs));
    GODWIT_TRY(vcpu.set_regs(image.regs));
    GODWIT_TRY(vcpu.set_xcrs(image.xcrs));
    GODWIT_TRY(vcpu.set_xsave(image.xsave));
    GODWIT_TRY(vcpu.set_debug_registers(image.debug));
    GODWIT_TRY(vcpu.write_msrs(*image.msrs));
    discard(vcpu.set_tsc_offset(image.tsc_offset), "not there everywhere");
    GODWIT_TRY(vcpu.set_lapic(image.lapic));
    GODWIT_TRY(vcpu.set_events(image.events));
    return vcpu.set_mp_state(image.mp_state);
}

/// One KVM machine whose vCPUs run, each on its thread, between enter() and stop().
class BareMachine {
  public:
    static Result<std::unique_ptr<BareMachine>>
    build(const kvm::Kvm& kvm, const sys::MappedRegion& ram, std::uint32_t vcpus) {
        kvm::Vm vm = GODWIT_TRY(kvm.create_vm());
        GODWIT_TRY(vm.set_memory_slot(
            {.number = 0, .start = Gpa{0}, .bytes = ram.size(), .host = ram.data()}));
        GODWIT_TRY(vm.create_irqchip());
        GODWIT_TRY(vm.create_pit());
        std::unique_ptr<BareMachine> made(new BareMachine(std::move(vm)));
        const auto cpuid = GODWIT_TRY(kvm.supported_cpuid());
        for (std::uint32_t i = 0; i < vcpus; ++i) {
            made->vcpus_.push_back(GODWIT_TRY(made->vm_.create_vcpu(i)));
            GODWIT_TRY(made->vcpus_.back().set_cpuid(cpuid));
        }
        made->entered_.store(0);
        for (kvm::Vcpu& vcpu : made->vcpus_) {
            made->threads_.emplace_back([raw = made.get(), &vcpu] { raw->body(vcpu); });
        }
        return made;
    }
    BareMachine(const BareMachine&) = delete;
    BareMachine& operator=(const BareMachine&) = delete;
    ~BareMachine() {
        stop();
        go_.store(quit);
        go_.notify_all();
    }

    void enter() {
        go_.store(run);
        go_.notify_all();
    }
    /// When the first vCPU was about to enter the guest.
    [[nodiscard]] Clock::time_point entered_at() const {
        while (entered_.load() == 0) {
            entered_.wait(0);
        }
        return Clock::time_point(Clock::duration(entered_.load()));
    }
    void stop() {
        if (go_.load() != run) {
            return;
        }
        go_.store(idle);
        for (std::size_t i = 0; i < vcpus_.size(); ++i) {
            vcpus_[i].request_exit();
            kvm::kick(threads_[i].native_handle());
        }
        for (auto left = running_.load(); left != 0; left = running_.load()) {
            running_.wait(left);
        }
    }
    [[nodiscard]] std::vector<kvm::Vcpu>& vcpus() { return vcpus_; }
    [[nodiscard]] kvm::Vm& vm() { return vm_; }

  private:
    static constexpr int idle = 0;
    static constexpr int run = 1;
    static constexpr int quit = 2;
    explicit BareMachine(kvm::Vm vm) : vm_(std::move(vm)) {}

    void body(kvm::Vcpu& vcpu) {
        if (!kvm::accept_kicks().has_value()) {
            std::abort();
        }
        for (;;) {
            go_.wait(idle);
            const int order = go_.load();
            if (order == quit) {
                return;
            }
            if (order == idle) {
                continue;
            }
            ++running_;
            Clock::rep none = 0;
            if (entered_.compare_exchange_strong(none, Clock::now().time_since_epoch().count())) {
                entered_.notify_all();
            }
            while (go_.load() == run) {
                if (!vcpu.run().has_value()) {
                    std::fputs("KVM_RUN failed\n", stderr);
                    std::abort();
                }
            }
            --running_;
            running_.notify_all();
        }
    }

    kvm::Vm vm_;
    std::vector<kvm::Vcpu> vcpus_;
    std::atomic<int> go_{idle};
    std::atomic<int> running_{0};
    std::atomic<Clock::rep> entered_{0};
    std::vector<std::jthread> threads_;
};

/// Reads what is there now; indices KVM refuses are left out for good.
Result<std::vector<std::uint32_t>> usable_msrs(const kvm::Kvm& kvm, const kvm::Vcpu& vcpu) {
    std::vector<std::uint32_t> indices = GODWIT_TRY(kvm.msr_indices());
    for (;;) {
        kvm::MsrBuffer buffer(indices.size());
        for (std::size_t i = 0; i < indices.size(); ++i) {
            buffer.entries()[i].index = indices[i];
        }
        const std::size_t read = GODWIT_TRY(vcpu.read_msrs(buffer));
        if (read >= indices.size()) {
            return indices;
        }
        indices.erase(indices.begin() + static_cast<std::ptrdiff_t>(read));
    }
}

struct Settings {
    int runs = 40;
    std::uint32_t vcpus = 2;
    std::uint64_t ram_mib = 256;
};

std::uint64_t counter(const sys::MappedRegion& ram, std::size_t vcpu) {
    std::uint64_t value = 0;
    std::memcpy(&value, ram.data() + code_at + 0x800 + 8 * vcpu, sizeof(value));
    return value;
}

Status hop(std::unique_ptr<BareMachine>& source,
           std::unique_ptr<BareMachine> destination,
           VmImage& image,
           Steps& steps) {
    auto last = Clock::now();
    const auto begun = last;
    const auto mark = [&](const char* name) {
        const auto now = Clock::now();
        steps.add(name, now - last);
        last = now;
    };
    source->stop();
    const auto stopped = Clock::now();
    mark("stop");
    for (std::size_t i = 0; i < image.vcpus.size(); ++i) {
        GODWIT_TRY(read_vcpu(source->vcpus()[i], image.vcpus[i]));
    }
    mark("read vCPUs");
    image.chips = GODWIT_TRY(source->vm().irqchips());
    image.pit = GODWIT_TRY(source->vm().pit());
    image.clock = GODWIT_TRY(source->vm().clock());
    mark("read VM");
    GODWIT_TRY(destination->vm().set_irqchips(image.chips));
    GODWIT_TRY(destination->vm().set_pit(image.pit));
    mark("write VM");
    for (std::size_t i = 0; i < image.vcpus.size(); ++i) {
        GODWIT_TRY(write_vcpu(destination->vcpus()[i], image.vcpus[i]));
    }
    mark("write vCPUs");
    image.clock.flags = 0;
    GODWIT_TRY(destination->vm().set_clock(image.clock));
    mark("write clock");
    destination->enter();
    const auto entered = destination->entered_at();
    steps.add("enter", entered - last);
    steps.add("blackout", entered - stopped);
    steps.add("stop to entry", entered - begun);
    source = std::move(destination);
    return ok();
}

Status measure(const Settings& settings, Steps& steps) {
    const kvm::Kvm kvm = GODWIT_TRY(kvm::Kvm::open());
    const std::uint64_t bytes = settings.ram_mib << 20U;
    const sys::Fd memory = GODWIT_TRY(sys::create_memfd("floor", bytes));
    const auto ram = GODWIT_TRY(sys::MappedRegion::create(memory, 0, bytes, sys::MapMode::shared));
    write_guest(ram.data());
    auto machine = GODWIT_TRY(BareMachine::build(kvm, ram, settings.vcpus));
    const auto indices = GODWIT_TRY(usable_msrs(kvm, machine->vcpus().front()));
    VmImage image;
    image.vcpus.resize(settings.vcpus);
    for (VcpuImage& vcpu : image.vcpus) {
        vcpu.msrs = std::make_unique<kvm::MsrBuffer>(indices.size());
        for (std::size_t i = 0; i < indices.size(); ++i) {
            vcpu.msrs->entries()[i].index = indices[i];
        }
    }
    for (kvm::Vcpu& vcpu : machine->vcpus()) {
        GODWIT_TRY(enter_ring_3(vcpu));
    }
    machine->enter();
    for (int run = 0; run < settings.runs; ++run) {
        auto next = GODWIT_TRY(BareMachine::build(kvm, ram, settings.vcpus));
        const std::uint64_t before = counter(ram, 0);
        while (counter(ram, 0) < before + turns_between_hops) {
            std::this_thread::yield();
        }
        GODWIT_TRY(hop(machine, std::move(next), image, steps));
    }
    return ok();
}

int run(int argc, char** argv) {
    Settings settings;
    settings.runs = argc > 1 ? std::atoi(argv[1]) : settings.runs;
    settings.vcpus = argc > 2 ? static_cast<std::uint32_t>(std::atoi(argv[2])) : settings.vcpus;
    settings.ram_mib = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : settings.ram_mib;
    if (settings.runs < 1 || settings.vcpus < 1 || settings.ram_mib < 4) {
        std::fputs("usage: exchange_floor [RUNS] [VCPUS] [RAM-MIB]\n", stderr);
        return 2;
    }
    Steps steps;
    const Status status = measure(settings, steps);
    if (!status.has_value()) {
        std::fprintf(stderr, "exchange_floor: %s\n", status.error().to_string().c_str());
        return 1;
    }
    nlohmann::ordered_json document{
        {"runs", settings.runs}, {"vcpus", settings.vcpus}, {"ram_mib", settings.ram_mib}};
    document["us"] = steps.json();
    std::puts(document.dump().c_str());
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    return run_program("exchange_floor", [&] { return run(argc, argv); });
}
