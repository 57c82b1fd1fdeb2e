#include "base/result.h"

#include <cstdio>
#include <cstdlib>

namespace godwit {

void abort_with(const char* what, const char* file, int line) noexcept {
    std::fprintf(stderr, "godwit: broken invariant at %s:%d: %s\n", file, line, what);
    std::abort();
}

void abort_with(const Error& error, const char* file, int line) noexcept {
    abort_with(error.to_string().c_str(), file, line);
}

} // namespace godwit
