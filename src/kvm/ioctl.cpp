#include "kvm/ioctl.h"

#include <sys/ioctl.h>

#include <cerrno>

namespace godwit::kvm {

Result<int>
call(const sys::Fd& fd, unsigned long request, std::uintptr_t argument, std::string_view what) {
    int answer = 0;
    do {
        answer = ::ioctl(fd.raw(), request, argument);
    } while (answer < 0 && errno == EINTR);
    if (answer < 0) {
        return Error::from_errno(errno, std::string(what));
    }
    return answer;
}

} // namespace godwit::kvm
