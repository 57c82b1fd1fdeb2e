#include "kvm/kvm.h"

#include "kvm/counted.h"
#include "kvm/ioctl.h"

#include <fcntl.h>

#include <array>
#include <cerrno>

namespace godwit::kvm {

namespace {

struct RequiredCapability {
    unsigned number;
    const char* name;
};

constexpr std::array required_capabilities{
    RequiredCapability{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    RequiredCapability{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    RequiredCapability{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    RequiredCapability{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    RequiredCapability{KVM_CAP_PIT2, "KVM_CAP_PIT2"},
    RequiredCapability{KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2"},
    RequiredCapability{KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    RequiredCapability{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    RequiredCapability{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    RequiredCapability{KVM_CAP_IOEVENTFD_ANY_LENGTH, "KVM_CAP_IOEVENTFD_ANY_LENGTH"},
    RequiredCapability{KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
    RequiredCapability{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    RequiredCapability{KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    RequiredCapability{KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    RequiredCapability{KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    RequiredCapability{KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ"},
    RequiredCapability{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

Error open_error(const std::string& path, const Error& cause) {
    const std::string quoted = "'" + path + "'";
    switch (cause.os_errno()) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return Error(ErrorCode::not_found,
                     "there is no KVM on this host (" + quoted +
                         "): load the module kvm_intel or kvm_amd, and switch virtualization on in "
                         "the firmware setup or, in a virtual machine, nested virtualization");
    case EACCES:
    case EPERM:
        return Error(ErrorCode::permission_denied,
                     "no permission to use " + quoted +
                         ": add yourself to group kvm (usermod -aG kvm NAME) and log in again");
    default:
        return Error(cause).with_context("KVM");
    }
}

constexpr std::size_t cpuid_entries_max = 512;
constexpr std::size_t msr_indices_max = 4096;

} // namespace

Result<Kvm> Kvm::open(const std::string& path) {
    Result<sys::Fd> opened = sys::open(path, O_RDWR);
    if (!opened.has_value()) {
        return open_error(path, opened.error());
    }
    const int version = GODWIT_TRY(call(*opened, KVM_GET_API_VERSION, 0, "KVM_GET_API_VERSION"));
    if (version != KVM_API_VERSION) {
        return Error(ErrorCode::unsupported,
                     "the host's KVM speaks API version " + std::to_string(version) +
                         ", this build " + std::to_string(KVM_API_VERSION));
    }
    const int run_bytes =
        GODWIT_TRY(call(*opened, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"));
    Kvm made(std::move(*opened), static_cast<std::size_t>(run_bytes));
    std::string missing;
    for (const RequiredCapability& capability : required_capabilities) {
        if (made.extension(capability.number) <= 0) {
            missing += missing.empty() ? "" : ", ";
            missing += capability.name;
        }
    }
    if (!missing.empty()) {
        return Error(ErrorCode::unsupported,
                     "the host's KVM lacks " + missing + ": use a newer host kernel");
    }
    return made;
}

int Kvm::extension(unsigned capability) const noexcept {
    const Result<int> answer = call(fd_, KVM_CHECK_EXTENSION, capability, "KVM_CHECK_EXTENSION");
    return answer.has_value() ? *answer : 0;
}

Result<CpuidEntries> Kvm::supported_cpuid() const {
    CpuidBuffer buffer(cpuid_entries_max);
    buffer.header()->count = cpuid_entries_max;
    GODWIT_TRY(call_with(fd_, get_supported_cpuid, buffer.header(), "KVM_GET_SUPPORTED_CPUID"));
    const auto all = buffer.entries().first(buffer.header()->count);
    return CpuidEntries(all.begin(), all.end());
}

Result<std::vector<std::uint32_t>> Kvm::msr_indices() const {
    MsrIndexBuffer buffer(msr_indices_max);
    buffer.header()->count = msr_indices_max;
    GODWIT_TRY(call_with(fd_, get_msr_index_list, buffer.header(), "KVM_GET_MSR_INDEX_LIST"));
    const auto all = buffer.entries().first(buffer.header()->count);
    return std::vector<std::uint32_t>(all.begin(), all.end());
}

Result<Vm> Kvm::create_vm() const {
    sys::Fd vm{GODWIT_TRY(call(fd_, KVM_CREATE_VM, 0, "create a KVM machine (KVM_CREATE_VM)"))};
    return Vm::adopt(std::move(vm), run_bytes_);
}

} // namespace godwit::kvm
