/// godwit: the command line.

#include "base/log.h"
#include "cli/commands.h"

#include <csignal>

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN); // Whoever read our output has gone: writes fail instead.
    godwit::log::configure("godwit", godwit::log::Level::error);
    return godwit::cli::run_cli(argc, argv);
}
