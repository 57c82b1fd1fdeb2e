#include "exchange/partition/cpu_set.h"

#include <charconv>
#include <utility>

namespace godwit::exchange::partition {

namespace {

Error bad_list(std::string_view text) {
    return Error(ErrorCode::invalid_argument,
                 "'" + std::string(text.substr(0, 64)) +
                     "' is not a list of CPUs: give numbers below 1024 as in 0-3,8");
}

/// Takes a number off the front.
bool take_number(std::string_view& text, std::uint32_t& number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || number >= cpu_numbers_max) {
        return false;
    }
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return true;
}

} // namespace

Result<CpuSet> parse_cpu_set(std::string_view text) {
    CpuSet cpus;
    std::string_view rest = text;
    while (!rest.empty()) {
        std::uint32_t first = 0;
        if (!take_number(rest, first)) {
            return bad_list(text);
        }
        std::uint32_t last = first;
        if (rest.starts_with('-')) {
            rest.remove_prefix(1);
            if (!take_number(rest, last) || last < first) {
                return bad_list(text);
            }
        }
        for (std::uint32_t cpu = first; cpu <= last; ++cpu) {
            cpus.insert(cpu);
        }
        if (rest.empty()) {
            break;
        }
        if (!rest.starts_with(',') || rest.size() == 1) {
            return bad_list(text);
        }
        rest.remove_prefix(1);
    }
    return cpus;
}

std::string to_string(const CpuSet& cpus) {
    std::string text;
    for (auto at = cpus.begin(); at != cpus.end();) {
        const std::uint32_t first = *at;
        std::uint32_t last = first;
        for (++at; at != cpus.end() && *at == last + 1; ++at) {
            last = *at;
        }
        text += text.empty() ? "" : ",";
        text += std::to_string(first);
        text += last == first ? "" : "-" + std::to_string(last);
    }
    return text;
}

} // namespace godwit::exchange::partition
