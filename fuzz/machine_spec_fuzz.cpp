// Machine documents. Whatever is accepted can be written out and read again as the same machine.
#include "machine/machine_spec.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto spec = godwit::machine::parse_machine_spec(text);
    if (!spec.has_value()) {
        return 0;
    }
    const std::string written = godwit::machine::to_json(*spec);
    const auto again = godwit::machine::parse_machine_spec(written);
    if (!again.has_value() || godwit::machine::to_json(*again) != written) {
        std::abort();
    }
    return 0;
}
