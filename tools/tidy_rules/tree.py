"""The files that the rules look at, and C++ text without its comments and strings."""
import dataclasses
import functools
import os
import re
import subprocess

CPP_ENDINGS = (".h", ".cpp", ".c")
BINARY_ENDINGS = (".bin", ".png", ".gz", ".zst", ".elf")


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    path: str
    line: int
    rule: str
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


class Tree:
    """A working tree; paths are relative to its root, with forward slashes."""

    def __init__(self, root):
        self.root = os.path.abspath(root)
        self.files = sorted(self._list())

    def _list(self):
        if os.path.exists(os.path.join(self.root, ".git")):
            out = subprocess.run(
                ["git", "-C", self.root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                check=True, capture_output=True, text=True).stdout
            return [p for p in set(out.split("\0")) if p and os.path.isfile(os.path.join(self.root, p))]
        found = []
        for folder, names, files in os.walk(self.root):
            names[:] = [n for n in names if n not in ("build", ".git", "__pycache__")]
            found += [os.path.relpath(os.path.join(folder, f), self.root) for f in files]
        return found

    @functools.cache
    def text(self, path):
        """The file as text; empty if it is not text."""
        if path.endswith(BINARY_ENDINGS) or "/corpus/" in path:
            return ""
        with open(os.path.join(self.root, path), "rb") as file:
            data = file.read()
        return "" if b"\0" in data else data.decode("utf-8", "replace")

    @functools.cache
    def code(self, path):
        """C++ text in which comments and string contents are blanks; lines keep their numbers."""
        return strip_cpp(self.text(path))

    def cpp(self, *folders):
        """C++ files, all or those under the folders."""
        return [p for p in self.files if p.endswith(CPP_ENDINGS)
                and (not folders or p.startswith(tuple(f + "/" for f in folders)))]

    def exists(self, path):
        return path in self._file_set

    @functools.cached_property
    def _file_set(self):
        return frozenset(self.files)


def is_test(path):
    return "/testing/" in path or path.endswith(("_test.cpp", "_fuzz.cpp")) or \
        path.startswith(("tests/", "fuzz/", "bench/"))


_TOKENS = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<delimiter>[^ ()\\\n]{0,16})\(.*?\)(?P=delimiter)"'
    r'|"(?:\\.|[^"\\\n])*"' r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)


def strip_cpp(text):
    def blank(match):
        token = match.group(0)
        kept = re.sub(r"[^\n]", " ", token)
        return '"' + kept[1:-1] + '"' if token[0] == '"' and len(token) > 1 else kept

    return _TOKENS.sub(blank, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def arguments_after(code, open_at):
    """The text between the parenthesis at `open_at` and the one that closes it."""
    depth = 0
    for at in range(open_at, len(code)):
        if code[at] == "(":
            depth += 1
        elif code[at] == ")":
            depth -= 1
            if depth == 0:
                return code[open_at + 1:at]
    return code[open_at + 1:]
