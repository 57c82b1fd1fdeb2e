#!/usr/bin/env python3
"""Every rule of tools/tidy.py can fail, and a clean tree passes."""
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tools"))

import tidy  # noqa: E402
from tidy_rules import functions, layers  # noqa: E402
from tidy_rules.tree import Tree, strip_cpp  # noqa: E402

CLEAN = {
    "src/CMakeLists.txt": "foreach(domain base sys block)\nendforeach()\n",
    "src/base/CMakeLists.txt": "godwit_domain(base)\n",
    "src/base/README.md": "# base\n",
    "src/base/units.h": "#pragma once\n",
    "src/sys/CMakeLists.txt": "godwit_domain(sys DEPENDS base)\n",
    "src/sys/README.md": "# sys\n",
    "src/sys/fd.h": '#pragma once\n#include "base/units.h"\n',
    "src/block/CMakeLists.txt": "godwit_domain(block\n    DEPENDS sys\n    PRIVATE_LIBS fmt::fmt)\n",
    "src/block/README.md": "# block\n",
    "src/block/file.cpp": '#include "sys/fd.h"\n#include "base/units.h"\n',
}


class TidyTest(unittest.TestCase):
    def findings(self, changes=None, allowed=None):
        """(rule, path) pairs of the clean tree with changes; None as text removes a file."""
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**CLEAN, **(changes or {})}.items():
                if text is None:
                    continue
                full = os.path.join(root, path)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "w", encoding="utf-8") as file:
                    file.write(text)
            found, unneeded = tidy.find(Tree(root), allowed or {})
        return [(f.rule, f.path) for f in found] + [("unneeded", path) for _, path in unneeded]

    def assert_rule(self, rule, path, text):
        self.assertEqual(self.findings({path: text}), [(rule, path)], text)

    def assert_clean(self, path, text):
        self.assertEqual(self.findings({path: text}), [], text)

    def test_clean_tree_has_no_findings(self):
        self.assertEqual(self.findings(), [])

    # Layers

    def test_include_of_higher_layer(self):
        self.assert_rule("layer", "src/sys/fd.cpp", '#include "block/file.h"\n')

    def test_include_without_link(self):
        changes = {"src/block/CMakeLists.txt": "godwit_domain(block DEPENDS base)\n"}
        self.assertEqual(self.findings(changes), [("layer", "src/block/file.cpp")])

    def test_include_of_testing_outside_tests(self):
        changes = {"src/base/testing/fake.h": "#pragma once\n", "src/sys/a.cpp": '#include "base/testing/fake.h"\n'}
        self.assertEqual(self.findings(changes), [("layer", "src/sys/a.cpp")])

    def test_include_of_testing_in_test(self):
        changes = {"src/base/testing/fake.h": "#pragma once\n", "src/sys/a_test.cpp": '#include "base/testing/fake.h"\n'}
        self.assertEqual(self.findings(changes), [])

    def test_include_without_domain(self):
        changes = {"src/sys/near.h": "#pragma once\n", "src/sys/a.cpp": '#include "near.h"\n'}
        self.assertEqual(self.findings(changes), [("include", "src/sys/a.cpp")])

    def test_link_to_higher_layer(self):
        self.assert_rule("layer", "src/sys/CMakeLists.txt", "godwit_domain(sys DEPENDS base block)\n")

    def test_link_by_target_link_libraries(self):
        self.assert_rule("layer", "src/base/CMakeLists.txt",
                         "godwit_domain(base)\ntarget_link_libraries(godwit_base PRIVATE godwit::sys)\n")

    def test_domain_without_a_layer(self):
        changes = {"src/CMakeLists.txt": "foreach(domain base sys)\nendforeach()\n"}
        self.assertIn(("layer", "src/block/CMakeLists.txt"), self.findings(changes))

    def test_closure_follows_links(self):
        self.assertEqual(layers.closure({"c": ["b"], "b": ["a"]}, "c"), {"a", "b"})

    # Calls

    def test_banned_calls(self):
        cases = {
            "clock": "auto t = std::chrono::steady_clock::now();\n",
            "random": "int r = rand();\n",
            "sleep": "std::this_thread::sleep_for(x);\n",
            "value": "auto v = result.value();\n",
            "at": "auto v = list.at(3);\n",
            "sto": "int v = std::stoi(text);\n",
            "exception": "void f() { throw 1; }\n",
            "assert": "void f() { assert(x); }\n",
            "raw-fd": "int disk_fd = -1;\n",
            "cloexec": "auto x = ::open(path, O_RDONLY);\n",
            "filesystem": "bool b = std::filesystem::exists(path);\n",
        }
        for rule, text in cases.items():
            with self.subTest(rule=rule):
                self.assert_rule(rule, "src/block/a.cpp", text)

    def test_more_banned_forms(self):
        cases = (("random", "std::random_device d;\n"), ("random", "::getrandom(p, 8, 0);\n"),
                 ("sleep", "::usleep(1);\n"), ("exception", "void f() { try { g(); } catch (...) {} }\n"),
                 ("raw-fd", "void f(int fd);\n"), ("cloexec", "::dup(3);\n"),
                 ("cloexec", "::socket(AF_UNIX, SOCK_STREAM, 0);\n"), ("clock", "::clock_gettime(CLOCK_REALTIME, &t);\n"))
        for rule, text in cases:
            with self.subTest(text=text):
                found = self.findings({"src/block/a.cpp": text})
                self.assertTrue(found and set(found) == {(rule, "src/block/a.cpp")}, found)

    def test_calls_that_are_fine(self):
        for text in ("auto x = ::open(path, O_RDONLY | O_CLOEXEC);\n", "// rand() in a comment\n",
                     'auto t = "sleep(1)";\n', "static_assert(true);\n", "Gpa g; auto v = g.value;\n",
                     "bool b = std::filesystem::exists(path, error);\n", "auto t = entry.at();\n",
                     '#include "made.inc"\n', "queue.random(3);\n", "int fds = 0;\n"):
            with self.subTest(text=text):
                self.assert_clean("src/block/a.cpp", text)

    def test_sys_may_ask_for_the_time(self):
        self.assert_clean("src/sys/clock.cpp", "auto t = std::chrono::steady_clock::now();\n")

    def test_tests_may_use_checked_access(self):
        self.assert_clean("src/block/a_test.cpp", "auto v = list.at(3);\n")

    def test_tests_may_not_sleep(self):
        self.assert_rule("sleep", "src/block/a_test.cpp", "::sleep(1);\n")

    # Files

    def test_markers(self):
        self.assert_rule("marker", "docs/a.md", "TODO: later\n")
        self.assert_rule("marker", "docs/a.md", "FIXME\n")
        self.assert_clean("docs/a.md", "TODO(#12): later\n")

    def test_forbidden_words(self):
        self.assert_rule("forbidden", "docs/a.md", "see /" + "home/x\n")
        self.assert_rule("forbidden", "docs/a.md", "get it from https://" + "registry.example.org/x\n")
        self.assert_clean("docs/a.md", "a network/work/load\n")

    def test_trailing_blanks(self):
        self.assert_rule("whitespace", "docs/a.md", "text \nmore\n")
        self.assert_rule("whitespace", "docs/a.md", "no newline")

    def test_size(self):
        self.assert_rule("size", "src/block/a.cpp", "int x;\n" * 601)
        self.assert_clean("src/block/a.cpp", "int x;\n" * 600)

    def test_readme_missing(self):
        self.assertEqual(self.findings({"src/sys/README.md": None}), [("readme", "src/sys/CMakeLists.txt")])

    def test_readme_too_long(self):
        self.assert_rule("readme", "src/sys/README.md", "line\n" * 61)

    def test_dead_header(self):
        self.assert_rule("dead", "src/sys/unused.h", "#pragma once\n")

    def test_dead_source(self):
        self.assert_rule("dead", "apps/tool/main.cpp", "int main() {}\n")
        self.assertEqual(self.findings({"lab/keeper.c": "int main() {}\n", "lab/make.sh": "gcc keeper.c\n"}), [])
        self.assertEqual(self.findings({"apps/tool/main.cpp": "int main() {}\n",
                                        "apps/tool/CMakeLists.txt": "add_executable(tool main.cpp)\n"}), [])

    # The tool itself

    def test_allowance_is_used(self):
        allowed = {("at", "src/block/a.cpp"): "because"}
        self.assertEqual(self.findings({"src/block/a.cpp": "auto v = x.at(1);\n"}, allowed), [])

    def test_allowance_without_need_is_an_error(self):
        self.assertEqual(self.findings(None, {("at", "src/block/a.cpp"): "because"}), [("unneeded", "src/block/a.cpp")])

    def test_strip_keeps_lines(self):
        text = 'int a; /* x\n y */ auto s = R"(rand()\n)"; char c = \'"\'; int n = 1\'000; // z\nint b;\n'
        stripped = strip_cpp(text)
        self.assertEqual(stripped.count("\n"), text.count("\n"))
        self.assertNotIn("rand", stripped)
        self.assertIn("int b;", stripped)
        self.assertIn("1'000", stripped)

    def test_function_length(self):
        with tempfile.TemporaryDirectory() as root:
            with open(os.path.join(root, "a.cpp"), "w", encoding="utf-8") as file:
                file.write("namespace x {\nint f(int a) {\n  if (a) {\n    g();\n  }\n  return a;\n}\n}\n")
            self.assertEqual(list(functions.function_lengths(Tree(root), "a.cpp")), [(6, "a.cpp", 2, "f")])

    def test_program_fails_on_an_empty_tree(self):
        with tempfile.TemporaryDirectory() as root:
            program = os.path.join(ROOT, "tools", "tidy.py")
            self.assertNotEqual(subprocess.run([program, "--root", root], capture_output=True, check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
