#pragma once

/// Saved state: sections with a name, and the units that write them (requirements X-1, X-8).
///
/// A machine's state is an ordered list of sections. Each section holds one protobuf message
/// (schema in this folder, field numbers never reused). Framing, checksum and the list live in
/// saved_state.h. Saving happens while the unit is at rest: vCPUs paused, rings quiesced. Restore
/// *constructs*: each device has `static Result<Device> restore(Args, Section)`; there is no
/// half-restored object.

#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

namespace godwit::state {

inline constexpr std::size_t section_name_bytes_max = 64;
inline constexpr std::size_t section_payload_bytes_max = 16U << 20U;

/// What a section is called: the kind of unit and which one of its kind ("virtio-blk", 0).
struct SectionId {
    std::string name; ///< Lower case letters, digits, '-' and '.'; at most section_name_bytes_max.
    std::uint32_t instance = 0;
    friend auto operator<=>(const SectionId&, const SectionId&) = default;
    [[nodiscard]] std::string to_string() const { return name + "#" + std::to_string(instance); }
};

/// A kind of section: its name and the version that this build writes. It reads every version from
/// 1 to that one, so the same or a newer build reads what an older one wrote (X-8). Each unit
/// declares its own as a constant; whoever offers, checks or restores uses that constant.
struct SectionType {
    std::string_view name; ///< A literal; what SectionId says of a name.
    std::uint32_t version = 1;
    /// For `version`: the unit has a name but never writes a section.
    static constexpr std::uint32_t never_written = 0;
    [[nodiscard]] constexpr bool written() const noexcept { return version != never_written; }
    [[nodiscard]] SectionId id(std::uint32_t instance = 0) const {
        return {.name = std::string(name), .instance = instance};
    }
    friend bool operator==(const SectionType&, const SectionType&) = default;
};

/// One saved section. `required`: a reader that does not know it must refuse the whole state.
struct Section {
    SectionId id;
    std::uint32_t version = 1;
    bool required = true;
    std::string payload; ///< A serialized protobuf message.
    friend bool operator==(const Section&, const Section&) = default;
};

/// The unit has no state worth saving, on purpose.
struct NoState {};
/// The unit cannot be saved now; blocks `plan`, before the guest pauses.
struct NotSavable {
    std::string reason;
};
using Saved = std::variant<Section, NoState, NotSavable>;

/// Anything that is saved and restored. Thread rule: save() on the control thread, at rest.
class StateUnit {
  public:
    StateUnit() = default;
    StateUnit(const StateUnit&) = delete;
    StateUnit& operator=(const StateUnit&) = delete;
    virtual ~StateUnit() = default;
    [[nodiscard]] virtual SectionType section_type() const = 0;
    [[nodiscard]] virtual SectionId section_id() const = 0;
    [[nodiscard]] virtual Result<Saved> save() const = 0;
    /// Why this unit could not be saved and what to do about it, asked in `plan` while the guest
    /// runs; empty if nothing speaks against it.
    [[nodiscard]] virtual std::string save_blocker() const = 0;
};

} // namespace godwit::state
