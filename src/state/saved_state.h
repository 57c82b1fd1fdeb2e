#pragma once

/// A whole machine's saved state as bytes: outer header, framed sections, checksums.
/// Format: docs/formats/saved-state.md. Reading is reading hostile input: every error names the
/// section. A value; any thread.

#include "base/result.h"
#include "state/state_unit.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::state {

inline constexpr std::size_t sections_max = 4096;
inline constexpr std::size_t state_bytes_max = 256U << 20U;
inline constexpr std::uint32_t state_format = 1;

/// Readable without knowing any section.
struct StateHeader {
    std::uint32_t format = state_format;
    std::string architecture = "x86_64";
    std::string writer; ///< Version text of the build that wrote it; printable ASCII, may be empty.
    std::string build_id; ///< The writer's build_id(); may be empty.
};

class SavedState {
  public:
    StateHeader header;

    /// Adds a section; already_exists if its id is taken, resource_exhausted above the limits.
    [[nodiscard]] Status add(Section section);
    /// Takes all sections of another over; errors as add() of each.
    [[nodiscard]] Status append(SavedState other);
    /// Saves `unit` into this state; conflict with its reason if it is NotSavable.
    [[nodiscard]] Status add(const StateUnit& unit);
    /// Takes the section out, so that leftovers show; not_found names it.
    [[nodiscard]] Result<Section> take(const SectionId& id);
    [[nodiscard]] bool has(const SectionId& id) const noexcept;
    /// Takes out what `other` has as well; false, and nothing is taken out, unless all of `other`
    /// is here and the same.
    [[nodiscard]] bool leave_out(const SavedState& other);
    /// An error naming the first required section nobody has taken; counts optional leftovers.
    [[nodiscard]] Result<std::uint32_t> finish() const;
    [[nodiscard]] const std::vector<Section>& sections() const noexcept { return sections_; }

    /// The bytes. `header` must be valid: it comes from this build or from decode().
    [[nodiscard]] std::string encode() const;
    /// Refuses bad magic, format, architecture, lengths, checksums, duplicates, leftover bytes.
    [[nodiscard]] static Result<SavedState> decode(std::span<const std::byte> bytes);

  private:
    std::vector<Section> sections_;
    std::size_t encoded_bytes_ = 0; ///< Of all sections, for state_bytes_max.
};

} // namespace godwit::state
