#include "sys/prefault.h"

#include <sys/mman.h>

#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>

namespace godwit::sys {

namespace {

constexpr int heap_step_bytes = 1 << 20;

struct CloseFile {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};

bool is_ours(const char* name, const char* program) noexcept {
    return std::strcmp(name, program) == 0 || std::strcmp(name, "[heap]") == 0;
}

} // namespace

void keep_freed_memory() noexcept {
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_TOP_PAD, heap_step_bytes);
    mallopt(M_TRIM_THRESHOLD, 64 * heap_step_bytes);
}

void prefault_process() noexcept {
    const std::unique_ptr<std::FILE, CloseFile> maps(std::fopen("/proc/self/maps", "re"));
    if (maps == nullptr) {
        return;
    }
    char program[4096] = {};
    char line[4608];
    while (std::fgets(line, sizeof(line), maps.get()) != nullptr) {
        std::uintptr_t start = 0;
        std::uintptr_t end = 0;
        char rights[5] = {};
        char name[4096] = {};
        if (std::sscanf(line, "%lx-%lx %4s %*s %*s %*s %4095s", &start, &end, rights, name) < 4) {
            continue;
        }
        if (program[0] == '\0') {
            std::memcpy(program, name, sizeof(program)); // The program itself comes first.
        }
        if (is_ours(name, program)) {
            const int advice = rights[1] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
            ::madvise(reinterpret_cast<void*>(start), end - start, advice);
        }
    }
}

} // namespace godwit::sys
