#pragma once

/// For tests and benchmarks: an image file that goes away with its owner. Owner thread only.

#include "base/result.h"

#include <cstdint>
#include <string>

namespace godwit::block::testing {

class TemporaryImage {
  public:
    /// A sparse file of `bytes` in `folder`, under a name nobody else has.
    [[nodiscard]] static Result<TemporaryImage> create(const std::string& folder,
                                                       std::uint64_t bytes);
    TemporaryImage(TemporaryImage&& other) noexcept;
    TemporaryImage& operator=(TemporaryImage&&) = delete;
    TemporaryImage(const TemporaryImage&) = delete;
    TemporaryImage& operator=(const TemporaryImage&) = delete;
    ~TemporaryImage();
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

  private:
    explicit TemporaryImage(std::string path) : path_(std::move(path)) {}
    std::string path_; ///< Empty once moved from.
};

} // namespace godwit::block::testing
