"""Rules about whole files: leftovers, sizes, dead files, readmes, words that must not appear."""
import os
import re

from .tree import CPP_ENDINGS, Finding, line_of

LINES_MAX = 600
LINES_LISTED = 400
README_LINES_MAX = 60
COUNTED_ENDINGS = CPP_ENDINGS + (".S", ".py", ".sh", ".cmake")
# These two name what they look for.
SELF = ("tools/tidy_rules/files.py", "tests/tools/test_tidy.py")

MARKERS = (
    (re.compile(r"\bTODO\b(?!\(#\d+\))"), "give it an issue: TODO(#12)"),
    (re.compile(r"\bFIXME\b|\bXXX\b|<<<<<<<|>>>>>>>"), "a leftover marker"),
)

FORBIDDEN = (
    (re.compile(r"(?<![\w.])/(?:home|[r]oot)/[a-z]"), "an absolute path of somebody's machine"),
    (re.compile(r"://(?:registry|deb|mirror|packages|proxy)[.-]"), "a package registry's host"),
)


def check_text(tree):
    for path in tree.files:
        text = tree.text(path)
        for match in re.finditer(r"[ \t]+$|\r", text, re.MULTILINE):
            yield Finding(path, line_of(text, match.start()), "whitespace", "blanks at the end of the line")
        if text and not text.endswith("\n"):
            yield Finding(path, text.count("\n") + 1, "whitespace", "no newline at the end of the file")


def check_markers(tree):
    for path in tree.files:
        if path in SELF:
            continue
        text = tree.text(path)
        for pattern, advice in MARKERS:
            for match in pattern.finditer(text):
                yield Finding(path, line_of(text, match.start()), "marker", f"'{match.group(0)}': {advice}")


def check_forbidden_words(tree):
    for path in tree.files:
        if path in SELF:
            continue
        text = tree.text(path)
        for pattern, what in FORBIDDEN:
            for match in pattern.finditer(text):
                yield Finding(path, line_of(text, match.start()), "forbidden", f"'{match.group(0)}' is {what}")


def line_counts(tree):
    """(lines, path) of code files, longest first."""
    counted = ((tree.text(p).count("\n"), p) for p in tree.files if p.endswith(COUNTED_ENDINGS))
    return sorted(counted, reverse=True)


def check_sizes(tree):
    for lines, path in line_counts(tree):
        if lines > LINES_MAX:
            yield Finding(path, lines, "size", f"{lines} lines, the end is {LINES_MAX}: which two ideas share it?")


def check_readmes(tree):
    for path in tree.files:
        match = re.fullmatch(r"(src/\w+)/CMakeLists\.txt", path)
        if not match or match.group(1) == "src/testing":
            continue
        readme = match.group(1) + "/README.md"
        if not tree.exists(readme):
            yield Finding(path, 1, "readme", f"{readme} is missing")
        elif tree.text(readme).count("\n") > README_LINES_MAX:
            yield Finding(readme, README_LINES_MAX, "readme", f"longer than {README_LINES_MAX} lines")


def _included(tree):
    names = set()
    for path in tree.files:
        if not path.endswith(CPP_ENDINGS + (".S",)):
            continue
        folder = os.path.dirname(path)
        for name in re.findall(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', tree.text(path), re.MULTILINE):
            names.add("src/" + name)
            names.add(os.path.normpath(os.path.join(folder, name)))
    return names


def check_dead(tree):
    """Headers nobody includes, sources that nothing builds."""
    included = _included(tree)
    for path in tree.files:
        if path.endswith(".h") and path not in included:
            yield Finding(path, 1, "dead", "no file includes this header")
        elif path.endswith((".cpp", ".c", ".S")) and path not in included and not _is_built(tree, path):
            yield Finding(path, 1, "dead", "nothing builds this file")


def _is_built(tree, path):
    folder = os.path.dirname(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    names = "|".join(re.escape(name) for name in (stem, re.sub(r"_fuzz$", "", stem)))
    while folder:
        lists = folder + "/CMakeLists.txt"
        if tree.exists(lists):
            text = tree.text(lists)
            # godwit_domain() and globs take everything below their folder.
            if re.search(rf"\b(?:{names})\b|godwit_domain\(|GLOB", text):
                return True
        folder = os.path.dirname(folder)
    return _is_named_by_a_script(tree, path)


def _is_named_by_a_script(tree, path):
    """Outside CMake's reach a script of the same top-level folder builds it, and names it."""
    top, name = path.split("/")[0] + "/", os.path.basename(path)
    return any(name in tree.text(p) for p in tree.files if p.startswith(top) and p.endswith((".py", ".sh")))
