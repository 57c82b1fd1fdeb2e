#!/usr/bin/env python3
"""Checks the tree against the rules that a compiler does not know (CONTRIBUTING.md).

    tools/tidy.py [--root DIR]

Prints what breaks a rule, one line each, then the longest files and functions for information.
Exit code 1 if a rule is broken.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from tidy_rules import calls, files, functions, layers  # noqa: E402
from tidy_rules.tree import Tree  # noqa: E402

RULES = (
    layers.check_links, layers.check_includes,
    calls.check_bans, calls.check_cloexec, calls.check_filesystem,
    files.check_text, files.check_markers, files.check_forbidden_words, files.check_sizes, files.check_readmes,
    files.check_dead,
)

# (rule, path): why the rule does not hold there. An entry that is no longer needed is an error.
ALLOWED = {
    ("cloexec", "src/sys/process.cpp"): "a child gives itself the descriptors that its program shall keep",
    ("raw-fd", "src/vmm/options.h"): "numbers from the command line; the program owns them from its first lines on",
    ("raw-fd", "src/keeper/keeper.h"): "numbers from the command line; the program owns them from its first lines on",
    ("value", "src/machine/platform/reset_control.cpp"): "a protobuf field of that name",
    ("sleep", "src/machine/machine_vm_test.cpp"): "watches a guest that cannot signal, and lets time pass on purpose",
    # Remove these when the files are there.
}

FUNCTION_LINES_LISTED = 70


def find(tree, allowed):
    """Findings that nothing allows, and allowances that nothing needs."""
    found, used = [], set()
    for rule in RULES:
        for finding in rule(tree):
            key = (finding.rule, finding.path)
            if key in allowed:
                used.add(key)
            else:
                found.append(finding)
    return sorted(found), sorted(set(allowed) - used)


def print_longest(tree):
    long_files = [(n, p) for n, p in files.line_counts(tree) if n > files.LINES_LISTED]
    print(f"files above {files.LINES_LISTED} lines: {len(long_files)}")
    for lines, path in long_files:
        print(f"  {lines:5} {path}")
    print("longest functions:")
    for lines, path, line, name in functions.longest(tree, 10):
        mark = "  <- which steps want a name?" if lines > FUNCTION_LINES_LISTED else ""
        print(f"  {lines:5} {path}:{line} {name}{mark}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    args = parser.parse_args()
    tree = Tree(args.root)
    if not tree.files:
        sys.exit("tidy: no files found: an empty run is a failure")
    found, unneeded = find(tree, ALLOWED)
    for finding in found:
        print(finding)
    for rule, path in unneeded:
        print(f"tools/tidy.py:1: allowed: '{rule}' is no longer broken in {path}: remove the entry")
    print_longest(tree)
    print(f"tidy: {len(tree.files)} files, {len(found) + len(unneeded)} findings")
    return 1 if found or unneeded else 0


if __name__ == "__main__":
    sys.exit(main())
