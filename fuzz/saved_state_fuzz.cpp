// The framing of a saved state. Every input is read as it is and with its checksums made right, so
// that the checks behind them are reached too. Whatever is accepted has exactly one encoding.
#include "state/saved_state.h"
#include "state/testing/reseal.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace {

void read_one(std::string_view bytes) {
    const auto state = godwit::state::SavedState::decode(std::as_bytes(std::span(bytes)));
    if (state.has_value() && state->encode() != bytes) {
        std::abort();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string bytes(reinterpret_cast<const char*>(data), size);
    read_one(bytes);
    godwit::state::testing::reseal(bytes);
    read_one(bytes);
    return 0;
}
