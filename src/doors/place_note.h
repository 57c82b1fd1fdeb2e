#pragma once

/// Where the image of an export lies now: a small file beside the image that the command line names
/// (docs/formats/export-place.md), written before the export's user goes on at a new place. Whoever
/// serves that image later, whatever became of this process, opens what the note says. Without a
/// note it lies where it always did.
///
/// A note is read again under the lock of the image it names, and only the process that holds that
/// lock writes it: what is read then is true.
///
/// Thread rule: a value; write() on any thread.

#include "base/result.h"
#include "block/move/disk_move.h"

#include <string>

namespace godwit::doors {

class PlaceNote {
  public:
    static constexpr std::size_t bytes_max = std::size_t{16} * 1024;

    /// Of the image `origin`, in the file `path`; beside the image if that is empty.
    [[nodiscard]] static Result<PlaceNote> of(const std::string& origin, const std::string& path);

    /// `origin`, absolute.
    [[nodiscard]] const std::string& origin() const noexcept { return origin_; }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

    /// corrupt if it is no note, or that of another image; a note that cannot be read is an error,
    /// never the old place.
    [[nodiscard]] Result<block::ImagePlace> read() const;
    /// Durable when it returns; on an error the note is as it was.
    [[nodiscard]] Status write(const block::ImagePlace& now) const;
    /// Whether write() has a chance: unsupported of a block device without a file of its own.
    [[nodiscard]] Status check() const;

  private:
    PlaceNote(std::string origin, std::string path, bool beside)
        : origin_(std::move(origin)), path_(std::move(path)), beside_(beside) {}
    std::string origin_;
    std::string path_;
    bool beside_; ///< The path was made from the image's.
};

} // namespace godwit::doors
