// Runs a fuzz target once over every file of the folders given. Without libFuzzer, so that GCC and
// the ordinary test run can do it. A folder without files is a failure.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

std::size_t replay(const char* folder) {
    std::size_t files = 0;
    std::error_code failed;
    for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
        if (!entry.is_regular_file(failed)) {
            continue;
        }
        std::ifstream stream(entry.path(), std::ios::binary);
        const std::vector<char> bytes(std::istreambuf_iterator<char>(stream), {});
        const std::vector<std::uint8_t> input(bytes.begin(), bytes.end());
        LLVMFuzzerTestOneInput(input.data(), input.size());
        ++files;
    }
    return files;
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s FOLDER...\n", argv[0]);
        return 2;
    }
    for (int i = 1; i < argc; ++i) {
        const std::size_t files = replay(argv[i]);
        std::printf("%s: %zu inputs\n", argv[i], files);
        if (files == 0) {
            std::fprintf(stderr, "%s: no inputs, an empty run is a failure\n", argv[i]);
            return 1;
        }
    }
    return 0;
}
