#pragma once

/// Guest RAM as this process sees it: the only way anything in the VMM touches it.
///
/// Accessors check every guest address against the layout and copy, or give a checked span that
/// lies within one region. Values written by the guest are read once into a local and then tested.
/// Writes by the VMM are recorded page by page while a log is on, because KVM's dirty log does not
/// see them (every write accessor does it; users of mutable spans call note_written()). Thread
/// rule: any thread; concurrent guest writes are expected.

#include "base/result.h"
#include "base/units.h"
#include "memory/ram.h"
#include "sys/mapping.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

namespace godwit::memory {

class GuestMemory {
  public:
    /// A region and where it is mapped here.
    struct Region {
        RamRegion ram;
        std::byte* host = nullptr;
    };

    /// Maps the whole of `backing`. `mode` is shared, private_copy for a restored snapshot, or
    /// shared_read_only until grant().
    [[nodiscard]] static Result<std::shared_ptr<GuestMemory>> map(const RamBacking& backing,
                                                                  sys::MapMode mode);

    /// A run of a guest's RAM that lies somewhere in this process already.
    struct Part {
        Gpa start; ///< A multiple of 4096, as is the address of `bytes`.
        std::span<std::byte> bytes;
    };
    /// Memory of a guest that another process runs, of parts in any order that do not overlap.
    /// `keep` holds their mappings for the life of the object.
    [[nodiscard]] static Result<std::shared_ptr<GuestMemory>>
    assemble(const std::vector<Part>& parts, std::shared_ptr<const void> keep);

    /// From now on RAM may be written: maps `backing`, the same object with all rights, in place.
    [[nodiscard]] Status grant(const RamBacking& backing);

    [[nodiscard]] const std::vector<Region>& regions() const noexcept { return regions_; }
    [[nodiscard]] std::uint64_t ram_bytes() const noexcept { return ram_bytes_; }
    /// Whether changes stay in this process instead of reaching the backing.
    [[nodiscard]] bool is_private() const noexcept { return mode_ == sys::MapMode::private_copy; }

    /// Copies out of or into guest RAM; a range that leaves RAM is invalid_argument and copies
    /// nothing. Ranges may cross from one region into the next only if they are adjacent guest
    /// addresses.
    [[nodiscard]] Status read(Gpa from, std::span<std::byte> out) const;
    [[nodiscard]] Status write(Gpa to, std::span<const std::byte> data);

    template <typename T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] Result<T> load(Gpa from) const {
        T value{};
        GODWIT_TRY(read(from, std::as_writable_bytes(std::span(&value, 1))));
        return value;
    }
    template <typename T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] Status store(Gpa to, const T& value) {
        return write(to, std::as_bytes(std::span(&value, 1)));
    }

    /// The bytes [start, start+bytes) inside one region, or invalid_argument. The caller of the
    /// mutable form tells note_written() what it has written, after writing.
    [[nodiscard]] Result<std::span<const std::byte>> view(Gpa start, std::uint64_t bytes) const;
    [[nodiscard]] Result<std::span<std::byte>> mutable_view(Gpa start, std::uint64_t bytes);
    /// True if the whole range is RAM of one region.
    [[nodiscard]] bool contains(Gpa start, std::uint64_t bytes) const noexcept;

    /// Records that the VMM has written this range. Cheap when no log is on.
    void note_written(Gpa start, std::uint64_t bytes) noexcept;
    /// Starts an empty log of the VMM's own writes, one bit per page of RAM in layout order.
    void start_write_log();
    /// Takes the log back to empty and returns its words; bit i of word w is page 64*w+i of the
    /// backing.
    [[nodiscard]] std::vector<std::uint64_t> take_write_log();
    void stop_write_log();

    /// Gives the pages of this range back to the host; they read as zero afterwards (balloon).
    [[nodiscard]] Status release(Gpa start, std::uint64_t bytes);

  private:
    void advise(RamKind kind) const;
    GuestMemory() = default;
    [[nodiscard]] const Region* region_of(Gpa start, std::uint64_t bytes) const noexcept;

    sys::MappedRegion mapping_;
    std::shared_ptr<const void> keep_; ///< In place of mapping_, if assembled.
    sys::MapMode mode_ = sys::MapMode::shared;
    std::vector<Region> regions_;
    std::uint64_t ram_bytes_ = 0;
    /// Words of the log, kept for the life of the object once started; log_on_ gates it.
    std::unique_ptr<std::atomic<std::uint64_t>[]> log_;
    std::atomic<bool> log_on_{false};

  public:
    GuestMemory(const GuestMemory&) = delete;
    GuestMemory& operator=(const GuestMemory&) = delete;
    ~GuestMemory() = default;
};

/// Anything that can fill a guest page: zero, image file, network, swap slot (design: three
/// interfaces). The page is filled completely or not at all.
class PageSource {
  public:
    PageSource() = default;
    PageSource(const PageSource&) = delete;
    PageSource& operator=(const PageSource&) = delete;
    virtual ~PageSource() = default;
    /// Fills `out` (4096 bytes) with page `page` of the backing; not_found if this source has it
    /// not.
    [[nodiscard]] virtual Status fill(PageIndex page, std::span<std::byte> out) = 0;
};

} // namespace godwit::memory
