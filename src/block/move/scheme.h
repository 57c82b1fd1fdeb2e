#pragma once

/// The ways in which a disk is moved under load (HS-1, PD), and what each does with a guest's
/// requests. Values and pure functions; any thread.
///
///     scheme   writes                          reads            the end
///     dbt      source; every one is tracked    source           passes, pause, last pass
///     slr      source; tracked where copied    source           passes, pause, last pass
///     tiered   as slr; hot blocks wait         source           passes over cold, pause, hot ones
///     mirror   both where copied, else source  source           when all is copied
///     aio      as mirror, done at the first    whoever has it   when both have everything
///     lr       destination only                where it lies    when all is copied

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace godwit::block {

enum class Scheme : std::uint8_t { dbt, mirror, lr, slr, aio, tiered };

inline constexpr std::array<Scheme, 6> all_schemes{
    Scheme::dbt, Scheme::mirror, Scheme::lr, Scheme::slr, Scheme::aio, Scheme::tiered};

/// Which way a guest's requests go.
enum class Routing : std::uint8_t {
    tracked,    ///< To the source; changes are marked when they are done.
    mirrored,   ///< Changes to both where the destination has the block already.
    redirected, ///< Changes to the destination, and marked there.
    returning,  ///< After a cancel: changes to the source, reads from where the block is.
};

[[nodiscard]] constexpr std::string_view name_of(Scheme scheme) noexcept {
    switch (scheme) {
    case Scheme::dbt:
        return "dbt";
    case Scheme::mirror:
        return "mirror";
    case Scheme::lr:
        return "lr";
    case Scheme::slr:
        return "slr";
    case Scheme::aio:
        return "aio";
    case Scheme::tiered:
        return "tiered";
    }
    return "";
}

[[nodiscard]] constexpr std::optional<Scheme> parse_scheme(std::string_view name) noexcept {
    for (const Scheme scheme : all_schemes) {
        if (name_of(scheme) == name) {
            return scheme;
        }
    }
    return std::nullopt;
}

[[nodiscard]] constexpr Routing routing_of(Scheme scheme) noexcept {
    switch (scheme) {
    case Scheme::dbt:
    case Scheme::slr:
    case Scheme::tiered:
        return Routing::tracked;
    case Scheme::mirror:
    case Scheme::aio:
        return Routing::mirrored;
    case Scheme::lr:
        return Routing::redirected;
    }
    return Routing::tracked;
}

} // namespace godwit::block
