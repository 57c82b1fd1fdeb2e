#include "virtio/balloon/balloon_pages.h"

#include <algorithm>
#include <span>

namespace godwit::virtio {

Result<std::vector<PageRun>> runs_of(const Chain& chain, const memory::GuestMemory& memory) {
    const std::uint64_t count = chain.readable_bytes / sizeof(std::uint32_t);
    if (chain.readable_bytes % sizeof(std::uint32_t) != 0 || count > balloon_pages_per_chain_max) {
        return Error(ErrorCode::corrupt,
                     "balloon: a list of " + std::to_string(chain.readable_bytes) + " bytes");
    }
    std::vector<std::uint32_t> pages(count);
    chain.copy_out(0, std::as_writable_bytes(std::span(pages)));
    std::ranges::sort(pages);
    std::vector<PageRun> runs;
    for (const std::uint32_t page : pages) {
        if (!memory.contains(start_of(PageIndex{page}), page_size)) {
            return Error(ErrorCode::corrupt,
                         "balloon: page " + std::to_string(page) + " is not RAM");
        }
        // A page named twice counts once. Runs end where a region of RAM does.
        if (!runs.empty() && page < runs.back().first.value + runs.back().pages) {
            continue;
        }
        if (!runs.empty() && page == runs.back().first.value + runs.back().pages &&
            memory.contains(start_of(runs.back().first), (runs.back().pages + 1) * page_size)) {
            ++runs.back().pages;
        } else {
            runs.push_back({.first = PageIndex{page}, .pages = 1});
        }
    }
    return runs;
}

} // namespace godwit::virtio
