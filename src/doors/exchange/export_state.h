#pragma once

/// What one godwit-blk hands to its successor, as saved sections with descriptors beside them
/// (src/state/export.proto, docs/formats/blk-exchange.md). Reading checks everything: the peer is
/// another build, and what its users sent is theirs.
///
/// Any thread; values.

#include "base/result.h"
#include "doors/nbd/connection.h"
#include "doors/serve_options.h"
#include "doors/vhost/server.h"
#include "state/saved_state.h"
#include "sys/fd_manifest.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace godwit::doors::exchange {

inline constexpr state::SectionType export_section{"export", 1};
inline constexpr state::SectionType front_end_section{"export-front-end", 1};
inline constexpr state::SectionType client_section{"export-client", 1};
/// All this build reads and writes.
inline constexpr std::array all_sections{export_section, front_end_section, client_section};

/// What NBD clients have sent and not been sent, together.
inline constexpr std::uint64_t stream_bytes_max = 1ULL << 30U;

/// What is served, and how: all that stands before anybody is at rest.
struct Offered {
    ServeOptions options; ///< Of `control`, which is filled in, none: there is no socket.
    block::ImagePlace place;
    std::uint64_t bytes = 0;
    std::uint32_t logical_block_bytes = 0;
    std::string nbd_uri;
    std::string last_move;
};

/// Who uses it, at rest.
struct Users {
    std::optional<vhost::SavedConversation> front_end;
    std::vector<nbd::SavedConnection> clients;
};

[[nodiscard]] state::Section encode(const Offered& offered);
[[nodiscard]] Result<Offered> decode_offered(const state::Section& section);

/// Moves descriptors into `descriptors`. resource_exhausted if the clients hold too many bytes.
[[nodiscard]] Status encode(Users users, state::SavedState& state, sys::FdManifest& descriptors);
/// Takes sections and descriptors out, so that leftovers show.
[[nodiscard]] Result<Users> decode_users(state::SavedState& state, sys::FdManifest& descriptors);

} // namespace godwit::doors::exchange
