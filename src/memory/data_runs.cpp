#include "memory/data_runs.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace godwit::memory {

Result<DataRun> next_data(const sys::Fd& fd, std::uint64_t from, std::uint64_t end) {
    const off_t start = ::lseek(fd.raw(), static_cast<off_t>(from), SEEK_DATA);
    if (start < 0) {
        if (errno == ENXIO) {
            return DataRun{.start = end, .end = end};
        }
        if (errno == EINVAL) {
            return DataRun{.start = from, .end = end};
        }
        return Error::from_errno(errno, "look for data in a RAM file");
    }
    const off_t hole = ::lseek(fd.raw(), start, SEEK_HOLE);
    if (hole < 0) {
        return Error::from_errno(errno, "look for a hole in a RAM file");
    }
    return DataRun{.start = std::min(static_cast<std::uint64_t>(start), end),
                   .end = std::min(static_cast<std::uint64_t>(hole), end)};
}

} // namespace godwit::memory
