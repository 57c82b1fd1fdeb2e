#include "state/testing/golden.h"

#include "state/saved_state.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace godwit::state::testing {

namespace {

constexpr const char* writer = "golden";

std::string folder_of(std::string_view name) {
    return GODWIT_SOURCE_DIR "/tests/compat/golden/" + std::string(name);
}

std::string path_of(std::string_view name, std::size_t number) {
    return folder_of(name) + "/" + std::to_string(number) + ".bin";
}

Result<Section> read_golden(const std::string& path, std::string_view name) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    const SavedState state = GODWIT_TRY(
        SavedState::decode(std::as_bytes(std::span(bytes))).with_context("golden file " + path));
    if (state.sections().size() != 1 || state.sections().front().id.name != name) {
        return Error(ErrorCode::corrupt,
                     path + " must hold one section '" + std::string(name) + "'");
    }
    return state.sections().front();
}

Status add_golden(const Section& section, std::size_t number) {
    SavedState state;
    state.header.writer = writer;
    GODWIT_TRY(state.add(section));
    std::error_code failed;
    std::filesystem::create_directories(folder_of(section.id.name), failed);
    const std::string path = path_of(section.id.name, number);
    if (std::filesystem::exists(path, failed)) {
        return Error(ErrorCode::already_exists, path + " is there already");
    }
    const std::string bytes = state.encode();
    std::ofstream file(path, std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.flush();
    return file.good() ? ok() : Status(Error(ErrorCode::io, "cannot write " + path));
}

bool same(const Section& a, const Section& b) {
    return a.id == b.id && a.version == b.version && a.required == b.required &&
           a.payload == b.payload;
}

/// What is wrong with loading `golden`; the newest one must come out as it went in.
std::string check_one(const Section& golden, bool newest, const Resave& resave) {
    const auto again = resave(golden);
    if (!again.has_value()) {
        return "it is not loaded: " + again.error().to_string();
    }
    if (newest && !same(*again, golden)) {
        return "it is saved again as something else";
    }
    const auto third = resave(*again);
    if (!third.has_value() || !same(*third, *again)) {
        return "what it is saved again as does not survive a load";
    }
    return {};
}

} // namespace

Result<std::vector<Section>> read_goldens(const SectionType& type) {
    std::vector<Section> goldens;
    std::error_code failed;
    for (std::size_t number = 1; number <= goldens_max; ++number) {
        const std::string path = path_of(type.name, number);
        if (!std::filesystem::exists(path, failed)) {
            break;
        }
        goldens.push_back(GODWIT_TRY(read_golden(path, type.name)));
    }
    return goldens;
}

std::string check_goldens(const Section& canonical, const Resave& resave) {
    const SectionType type{.name = canonical.id.name, .version = canonical.version};
    auto goldens = read_goldens(type);
    if (!goldens.has_value()) {
        return goldens.error().to_string();
    }
    if (goldens->empty() || !same(goldens->back(), canonical)) {
        // Only a developer's shell sets it; the test is one thread.
        if (std::getenv("GODWIT_ADD_GOLDENS") == nullptr) { // NOLINT(concurrency-mt-unsafe)
            return "section '" + canonical.id.name +
                   "' is not written as its newest golden file says: if that is on purpose, run "
                   "tests/compat/add_goldens and commit the new file";
        }
        const Status added = add_golden(canonical, goldens->size() + 1);
        if (!added.has_value()) {
            return added.error().to_string();
        }
        goldens->push_back(canonical);
    }
    for (std::size_t i = 0; i < goldens->size(); ++i) {
        const std::string wrong = check_one((*goldens)[i], i + 1 == goldens->size(), resave);
        if (!wrong.empty()) {
            return path_of(type.name, i + 1) + ": " + wrong;
        }
    }
    return {};
}

} // namespace godwit::state::testing
