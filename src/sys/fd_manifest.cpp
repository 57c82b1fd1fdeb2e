#include "sys/fd_manifest.h"

#include <algorithm>

namespace godwit::sys {

Result<FdManifest> FdManifest::pair_up(std::vector<std::string> names, std::vector<Fd> fds) {
    if (names.size() != fds.size()) {
        return Error(ErrorCode::corrupt,
                     std::to_string(names.size()) + " descriptors were announced, " +
                         std::to_string(fds.size()) + " arrived");
    }
    FdManifest manifest;
    for (std::size_t i = 0; i < names.size(); ++i) {
        Status added = manifest.add(std::move(names[i]), std::move(fds[i]));
        if (!added.has_value()) {
            return Error(ErrorCode::corrupt, added.error().to_string());
        }
    }
    return manifest;
}

Status FdManifest::add(std::string name, Fd fd) {
    if (name.empty() || name.size() > manifest_name_bytes_max) {
        return Error(ErrorCode::invalid_argument,
                     "a descriptor has no name or one that is too long");
    }
    if (has(name)) {
        return Error(ErrorCode::already_exists, "two descriptors are called '" + name + "'");
    }
    names_.push_back(std::move(name));
    fds_.push_back(std::move(fd));
    return ok();
}

Result<Fd> FdManifest::take(std::string_view name) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) {
        return Error(ErrorCode::not_found,
                     "no descriptor called '" + std::string(name) + "' was handed over");
    }
    const auto at = found - names_.begin();
    Fd fd = std::move(fds_[static_cast<std::size_t>(at)]);
    names_.erase(found);
    fds_.erase(fds_.begin() + at);
    return fd;
}

bool FdManifest::has(std::string_view name) const noexcept {
    return std::find(names_.begin(), names_.end(), name) != names_.end();
}

std::vector<const Fd*> FdManifest::borrowed() const {
    std::vector<const Fd*> pointers;
    pointers.reserve(fds_.size());
    for (const Fd& fd : fds_) {
        pointers.push_back(&fd);
    }
    return pointers;
}

} // namespace godwit::sys
