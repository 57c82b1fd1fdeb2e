#include "block/testing/temporary_image.h"

#include "sys/fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

namespace godwit::block::testing {

Result<TemporaryImage> TemporaryImage::create(const std::string& folder, std::uint64_t bytes) {
    std::string path = folder + "/godwit-image-XXXXXX";
    const sys::Fd file(::mkostemp(path.data(), O_CLOEXEC));
    if (!file.valid()) {
        return Error::from_errno(errno, "make a temporary image in '" + folder + "'");
    }
    TemporaryImage image(std::move(path));
    if (::ftruncate(file.raw(), static_cast<off_t>(bytes)) != 0) {
        return Error::from_errno(errno, "size a temporary image");
    }
    return image;
}

TemporaryImage::TemporaryImage(TemporaryImage&& other) noexcept
    : path_(std::exchange(other.path_, {})) {}

TemporaryImage::~TemporaryImage() {
    if (!path_.empty()) {
        ::unlink(path_.c_str());
    }
}

} // namespace godwit::block::testing
