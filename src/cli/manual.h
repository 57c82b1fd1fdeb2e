#pragma once

/// Manual pages and shell completion from the description of the command line. Pure text.

#include <map>
#include <string>

namespace CLI {
class App;
}

namespace godwit::cli {

/// File name ("godwit-run.1") and text in man(7), one page per command and godwit.1.
[[nodiscard]] std::map<std::string, std::string> manual_pages(const CLI::App& app);
/// A bash script that completes commands and flags.
[[nodiscard]] std::string bash_completion(const CLI::App& app);

} // namespace godwit::cli
