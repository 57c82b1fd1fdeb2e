#pragma once

/// Tiny kernels for tests: some bytes of 32-bit code as a PVH ELF image, and bzImages that are
/// nothing but headers. Files are removed with their owner.

#include "sys/fd.h"

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace godwit::machine::testing {

using Bytes = std::vector<std::uint8_t>;

/// Where the code of a tiny kernel lies and begins.
inline constexpr std::uint64_t code_address = 0x10'0000;

/// An ELF image with one load segment of `code` and a PVH note that names its first byte.
[[nodiscard]] Bytes pvh_elf(std::span<const std::uint8_t> code);
/// A bzImage of protocol 2.15 whose protected-mode part is `kernel_bytes` of 0x90.
[[nodiscard]] Bytes bzimage(std::size_t kernel_bytes);

/// Overwrites a little-endian field.
template <typename T>
void poke(Bytes& image, std::size_t offset, T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
        image.at(offset + i) =
            static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i));
    }
}

/// A file in the temporary directory with these bytes.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::span<const std::uint8_t> content);
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile();
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] sys::Fd open() const;

  private:
    std::string path_;
};

/// Prints "hi" on the serial port and powers off.
[[nodiscard]] const Bytes& hello_code();
/// Counts: for each number one OUT of it to 0x500, one IN from 0x504, one store to 0xD0000000 and
/// one load from 0xD0000004, whose answers must be that number; else an OUT to 0x508.
[[nodiscard]] const Bytes& hammer_code();
/// Switches kvmclock on at 0x3000, then counts at 0x200000 as long as the TSC never goes back; else
/// prints 'B'.
[[nodiscard]] const Bytes& clock_code();

} // namespace godwit::machine::testing
