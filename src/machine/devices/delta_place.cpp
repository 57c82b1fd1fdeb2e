#include "machine/devices/delta_place.h"

#include "base/log.h"
#include "base/scope_guard.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace godwit::machine {

namespace {

constexpr std::uint32_t cluster_bytes = 16 * 1024;
/// Of the first owner; each that opens it counts on (docs/formats/disk-delta.md).
constexpr std::uint64_t first_epoch = 1;

/// Counts what is written.
class CountedDelta final : public block::DeltaStorage {
  public:
    explicit CountedDelta(const sys::Fd& file) : below_(file) {}
    [[nodiscard]] Result<std::uint64_t> bytes() override { return below_.bytes(); }
    [[nodiscard]] Status read(std::uint64_t offset, std::span<std::byte> out) override {
        return below_.read(offset, out);
    }
    [[nodiscard]] Status write(std::uint64_t offset, std::span<const std::byte> data) override {
        written += data.size();
        return below_.write(offset, data);
    }
    [[nodiscard]] Status flush() override { return below_.flush(); }
    std::uint64_t written = 0;

  private:
    block::DeltaFile below_;
};

Result<std::uint64_t> usual_bytes(const DeltaWish& wish) {
    const std::uint64_t whole = block::delta_bytes_for(wish.disk_bytes, cluster_bytes);
    const std::string directory = std::filesystem::path(wish.path).parent_path().string();
    struct statvfs system{};
    if (::statvfs(directory.c_str(), &system) != 0) {
        return Error::from_errno(
            errno, "the directory of '" + wish.path + "' does not exist or cannot be reached");
    }
    const std::uint64_t free = std::uint64_t{system.f_bavail} * system.f_frsize;
    return round_down(std::min(whole, free / 10 * 9), block::delta_block_bytes);
}

/// A delta that is there may be all there is of what a guest has written.
Status check_unused(block::DeltaStorage& storage, const std::string& path) {
    const Result<block::DeltaCheck> there = block::check_delta(storage);
    if (there.has_value() && there->clusters_mapped > 0) {
        return Error(ErrorCode::already_exists,
                     "on '" + path + "' lies a delta that is not empty, of snapshot " +
                         block::to_text(there->header.snapshot_id) +
                         ": look at it with 'godwit disk check', and clear its first 8 KiB if "
                         "nobody needs it");
    }
    return ok();
}

/// An empty one is what an interrupted snapshot, or a merge, may have left.
Error explain_existing(const std::string& path, Error refused) {
    const Result<sys::Fd> file = sys::open(path, O_RDONLY | O_NONBLOCK);
    if (!file.has_value()) {
        return refused;
    }
    block::DeltaFile storage(*file);
    const Result<block::DeltaCheck> there = block::check_delta(storage);
    if (!there.has_value()) {
        return refused;
    }
    return {ErrorCode::already_exists,
            there->clusters_mapped == 0
                ? "'" + path +
                      "' is an empty delta already, which a snapshot or merge may have "
                      "left behind when it was interrupted: remove it, if no machine's "
                      "document names it"
                : "'" + path + "' is a delta that is not empty: name another file"};
}

Status take_journal_room(const sys::Fd& image, const block::DeltaHeader& header) {
    struct stat info{};
    if (::fstat(image.raw(), &info) != 0 || S_ISBLK(info.st_mode)) {
        return ok();
    }
    if (::fallocate(image.raw(), 0, 0, static_cast<off_t>(header.data_offset)) != 0 &&
        errno != EOPNOTSUPP) {
        return Error::from_errno(errno,
                                 "the delta's journal of " + std::to_string(header.data_offset) +
                                     " bytes finds no room");
    }
    return ok();
}

} // namespace

Result<DeltaPlace> DeltaPlace::create(const DeltaWish& wish) {
    if (!std::filesystem::path(wish.path).is_absolute()) {
        return Error(ErrorCode::invalid_argument,
                     "the delta '" + wish.path + "' must be an absolute path");
    }
    std::error_code error;
    const bool device = std::filesystem::is_block_file(wish.path, error);
    const std::uint64_t bytes = device            ? 1
                                : wish.bytes != 0 ? round_down(wish.bytes, block::delta_block_bytes)
                                                  : GODWIT_TRY(usual_bytes(wish));
    if (bytes == 0) {
        return Error(ErrorCode::resource_exhausted,
                     "there is no space where '" + wish.path + "' is to lie");
    }
    Result<block::DiskDestination> opened =
        block::DiskDestination::open({.path = wish.path,
                                      .bytes = bytes,
                                      .logical_block_bytes = wish.logical_block_bytes,
                                      .direct = wish.direct,
                                      .own = wish.own,
                                      .existing = block::Existing::devices});
    if (!opened.has_value()) {
        return opened.error().code() == ErrorCode::already_exists
                   ? explain_existing(wish.path, std::move(opened.error()))
                   : std::move(opened.error());
    }
    ScopeGuard undo([&] { opened->remove(); });
    CountedDelta storage(opened->image());
    GODWIT_TRY(check_unused(storage, wish.path));
    GODWIT_TRY(
        block::create_delta(
            storage,
            {.disk_bytes = wish.disk_bytes, .cluster_bytes = cluster_bytes, .epoch = first_epoch})
            .with_context("'" + wish.path + "'"));
    block::DeltaState state = GODWIT_TRY(block::open_delta(storage, first_epoch));
    GODWIT_TRY(take_journal_room(opened->image(), state.header));
    const std::uint64_t room = GODWIT_TRY(storage.bytes());
    undo.commit();
    // The descriptor that `storage` reads goes along.
    DeltaPlace made(std::move(*opened), std::move(state));
    made.spec_ = {.path = wish.path,
                  .snapshot = block::to_text(made.state_.header.snapshot_id),
                  .direct = made.place_.direct()};
    made.bytes_ = room;
    made.written_bytes_ = storage.written;
    return made;
}

void remove_delta(const DeltaSpec& delta, const sys::Fd& image) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(delta.path, error) ||
        !block::is_same_object(image, delta.path)) {
        return;
    }
    if (::unlink(delta.path.c_str()) != 0) {
        log::warn("merged_delta_left", {{"path", delta.path}});
    }
}

} // namespace godwit::machine
