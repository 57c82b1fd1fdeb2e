#include "base/error.h"

#include <cerrno>
#include <system_error>

namespace godwit {

std::string_view name_of(ErrorCode code) noexcept {
    switch (code) {
    case ErrorCode::invalid_argument:
        return "invalid_argument";
    case ErrorCode::not_found:
        return "not_found";
    case ErrorCode::already_exists:
        return "already_exists";
    case ErrorCode::permission_denied:
        return "permission_denied";
    case ErrorCode::busy:
        return "busy";
    case ErrorCode::resource_exhausted:
        return "resource_exhausted";
    case ErrorCode::corrupt:
        return "corrupt";
    case ErrorCode::unsupported:
        return "unsupported";
    case ErrorCode::timeout:
        return "timeout";
    case ErrorCode::cancelled:
        return "cancelled";
    case ErrorCode::peer_closed:
        return "peer_closed";
    case ErrorCode::io:
        return "io";
    case ErrorCode::conflict:
        return "conflict";
    case ErrorCode::internal:
        return "internal";
    }
    return "unknown";
}

Error::Error(ErrorCode code, std::string message, std::source_location where)
    : code_(code), message_(std::move(message)), where_(where) {}

namespace {

ErrorCode code_of_errno(int os_errno) noexcept {
    switch (os_errno) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return ErrorCode::not_found;
    case EEXIST:
        return ErrorCode::already_exists;
    case EACCES:
    case EPERM:
    case EROFS:
        return ErrorCode::permission_denied;
    case EBUSY:
    case EAGAIN:
    case ETXTBSY:
    case EADDRINUSE:
        return ErrorCode::busy;
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
        return ErrorCode::resource_exhausted;
    case EINVAL:
    case EBADF:
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG:
        return ErrorCode::invalid_argument;
    case ENOSYS:
    case EOPNOTSUPP:
    case ENOTTY:
        return ErrorCode::unsupported;
    case ETIMEDOUT:
        return ErrorCode::timeout;
    case ECANCELED:
        return ErrorCode::cancelled;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
        return ErrorCode::peer_closed;
    default:
        return ErrorCode::io;
    }
}

} // namespace

Error Error::from_errno(int os_errno, std::string message, std::source_location where) {
    message += ": ";
    message += std::generic_category().message(os_errno);
    Error error(code_of_errno(os_errno), std::move(message), where);
    error.os_errno_ = os_errno;
    return error;
}

Error Error::with_context(std::string_view context) && {
    std::string text;
    text.reserve(context.size() + 2 + message_.size());
    text.append(context).append(": ").append(message_);
    message_ = std::move(text);
    return std::move(*this);
}

} // namespace godwit
