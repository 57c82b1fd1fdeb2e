"""Calls that style.md bans, each with what to write instead."""
import dataclasses
import re

from .tree import Finding, arguments_after, is_test, line_of

SCOPE = ("src", "apps", "fuzz", "bench")
INSIDE_SYS = ("src/sys/",)
INSIDE_KERNEL_EDGE = ("src/sys/", "src/kvm/")


@dataclasses.dataclass(frozen=True)
class Ban:
    rule: str
    pattern: str
    instead: str
    allowed_under: tuple = ()
    tests_too: bool = True


BANS = (
    Ban("clock", r"\b(?:steady|system|high_resolution)_clock::now\s*\(|\bclock_gettime\s*\(|\bgettimeofday\s*\(",
        "ask the sys::Clock you were given", INSIDE_SYS),
    Ban("random", r"(?<![\w.>])(?:rand|srand|random|drand48|getrandom)\s*\(|\brandom_device\b",
        "take random numbers through sys", INSIDE_SYS),
    Ban("sleep", r"(?<![\w.>])(?:sleep|usleep|nanosleep)\s*\(|\bsleep_(?:for|until)\s*\(",
        "wait for the event, or use sys::EventLoop::schedule", INSIDE_SYS),
    Ban("value", r"(?:\.|->)value\s*\(\s*\)", "use GODWIT_TRY, or has_value() and *", tests_too=False),
    Ban("at", r"(?:\.|->)at\s*\((?!\s*\))", "check the index or key, then use [] or find()",
        tests_too=False),
    Ban("sto", r"\bstd::sto(?:i|l|ll|ul|ull|f|d|ld)\s*\(", "use std::from_chars", tests_too=False),
    Ban("exception", r"\bthrow\b(?!\s*\()|\bthrow\s*\(|(?<![\w.])try\s*\{|\bcatch\s*\(",
        "return a Result; exceptions end where a library throws them", ("src/base/program.cpp",)),
    Ban("assert", r"(?<![\w_])assert\s*\(", "use GODWIT_ASSERT, which stays on"),
    Ban("raw-fd", r"\bint\s+(?:\w*_)?fd_?\s*[;=,){]", "own descriptors with sys::Fd", INSIDE_KERNEL_EDGE),
    Ban("cloexec", r"(?<![\w:])::(?:dup|dup2|pipe|accept|epoll_create|inotify_init|creat)\s*\(",
        "use the form that takes a CLOEXEC flag"),
)

# System calls that take the flag as an argument. We write system calls with a leading "::"; without it
# the same words are our own functions, which add the flag.
CLOEXEC_TAKERS = re.compile(
    r"(?<![\w:])::(?:open|openat|socket|socketpair|accept4|pipe2|dup3|memfd_create|eventfd|timerfd_create|"
    r"epoll_create1|signalfd|inotify_init1|userfaultfd|mkostemp)\s*\(")

THROWING_FILESYSTEM = re.compile(
    r"\bfilesystem::(absolute|canonical|copy|copy_file|create_directory|create_directories|current_path|equivalent|"
    r"exists|file_size|is_directory|is_empty|is_regular_file|last_write_time|read_symlink|remove|remove_all|rename|"
    r"resize_file|space|status|temp_directory_path|directory_iterator)\s*(?:\w+\s*)?\(")


def check_bans(tree):
    for path in tree.cpp(*SCOPE):
        code = tree.code(path)
        for ban in BANS:
            if path.startswith(ban.allowed_under) or (is_test(path) and not ban.tests_too):
                continue
            for match in re.finditer(ban.pattern, code):
                yield Finding(path, line_of(code, match.start()), ban.rule,
                              f"'{match.group(0).strip()}': {ban.instead}")


def check_cloexec(tree):
    for path in tree.cpp(*SCOPE):
        code = tree.code(path)
        for match in CLOEXEC_TAKERS.finditer(code):
            arguments = arguments_after(code, match.end() - 1)
            # A variable named flags is the caller's business; sys adds the flag there.
            if "CLOEXEC" not in arguments and not re.search(r"\bflags\b", arguments):
                yield Finding(path, line_of(code, match.start()), "cloexec",
                              f"'{match.group(0).strip()}' without a CLOEXEC flag")


def check_filesystem(tree):
    for path in tree.cpp(*SCOPE):
        if is_test(path):
            continue
        code = tree.code(path)
        for match in THROWING_FILESYSTEM.finditer(code):
            if not re.search(r"\b(?:\w*error\w*|ec)\b", arguments_after(code, match.end() - 1)):
                yield Finding(path, line_of(code, match.start()), "filesystem",
                              f"'{match.group(0).strip()}' can throw: pass a std::error_code")
