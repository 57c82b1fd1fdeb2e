#include "sys/file_lock.h"

#include <sys/file.h>

#include <fcntl.h>

#include <cerrno>

namespace godwit::sys {

Result<FileLock> FileLock::acquire(const std::string& path) {
    Fd fd = GODWIT_TRY(open(path, O_RDWR | O_CREAT, 0600));
    if (::flock(fd.raw(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            return Error(ErrorCode::busy, "'" + path + "' is locked by another process");
        }
        return Error::from_errno(errno, "lock '" + path + "'");
    }
    return FileLock(std::move(fd));
}

Result<FileLock> FileLock::inherit(Fd fd) {
    // The lock belongs to the open file, so that asking for what is held already succeeds.
    if (::flock(fd.raw(), LOCK_EX | LOCK_NB) != 0) {
        return Error::from_errno(errno, "go on with the lock handed over");
    }
    return FileLock(std::move(fd));
}

} // namespace godwit::sys
