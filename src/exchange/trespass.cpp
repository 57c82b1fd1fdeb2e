#include "exchange/trespass.h"

#include "sys/refusal.h"

#include <sys/mman.h>
#include <sys/mount.h>

#include <fcntl.h>

#include <cerrno>

namespace godwit::exchange {

namespace {

Status
outcome(bool succeeded, int os_errno, sys::Trespass what, std::uint64_t at, std::string text) {
    if (succeeded) {
        return Error(ErrorCode::internal, text + " was not refused");
    }
    sys::note_trespass(what, at);
    return Error(ErrorCode::permission_denied,
                 text + " was refused: " + Error::from_errno(os_errno, "it").to_string());
}

Result<sys::Fd> ram_of(const machine::Machine& machine) {
    machine::Resources resources = GODWIT_TRY(machine.duplicate_resources());
    if (resources.size() != 1) {
        return Error(ErrorCode::internal, "the successor holds more than guest memory");
    }
    return std::move(resources.front().fd);
}

Status map_writable(const sys::Fd& ram) {
    void* const address =
        ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, ram.raw(), 0);
    const int os_errno = errno;
    return outcome(address != MAP_FAILED,
                   os_errno,
                   sys::Trespass::memory_mapped,
                   0,
                   "mmap of guest memory for writing");
}

Status protect_writable(std::byte* host) {
    const int result = ::mprotect(host, page_size, PROT_READ | PROT_WRITE);
    const int os_errno = errno;
    return outcome(result == 0,
                   os_errno,
                   sys::Trespass::memory_protected,
                   reinterpret_cast<std::uintptr_t>(host),
                   "mprotect of guest memory for writing");
}

Status open_writable(const std::string& path, sys::Trespass what, const std::string& text) {
    const Result<sys::Fd> opened = sys::open(path, O_RDWR);
    return outcome(
        opened.has_value(), opened.has_value() ? 0 : opened.error().os_errno(), what, 0, text);
}

} // namespace

Status trespass(std::string_view what, machine::Machine& machine) {
    if (what.empty()) {
        return ok();
    }
    const sys::Fd ram = GODWIT_TRY(ram_of(machine));
    std::byte* const host = machine.memory().regions().front().host;
    if (what == "write") {
        *const_cast<volatile std::byte*>(host) = std::byte{0xee};
        return Error(ErrorCode::internal, "a write to guest memory was not refused");
    }
    if (what == "map") {
        return map_writable(ram);
    }
    if (what == "protect") {
        return protect_writable(host);
    }
    if (what == "reopen") {
        return open_writable("/proc/self/fd/" + std::to_string(ram.raw()),
                             sys::Trespass::memory_reopened,
                             "open of guest memory for writing");
    }
    if (what == "disk" && !machine.spec().disks.empty()) {
        const std::string& path = machine.spec().disks.front().path;
        return open_writable(path, sys::Trespass::file_opened, "open of disk '" + path + "'");
    }
    if (what == "mount") { // Refused by the filter, which tells by itself.
        const int result = ::mount("none", "/", "tmpfs", 0, nullptr);
        return result == 0
                   ? Error(ErrorCode::internal, "mount was not refused")
                   : Error(ErrorCode::permission_denied,
                           "mount was refused: " + Error::from_errno(errno, "it").to_string());
    }
    return Error(ErrorCode::invalid_argument, "there is no such trespass");
}

} // namespace godwit::exchange
