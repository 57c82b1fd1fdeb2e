"""How long functions are; an estimate from braces, good enough for a list."""
import re

from .tree import line_of

_NOT_FUNCTIONS = re.compile(r"\b(?:if|for|while|switch|catch|namespace|struct|class|enum|union|do|else|try)\b")


def function_lengths(tree, path):
    """(lines, path, line, name) of each function body in a C++ file."""
    code = tree.code(path)
    stack, start = [], 0
    for at, char in enumerate(code):
        if char in ";}":
            start = at + 1
        if char == "{":
            stack.append((at, code[start:at]))
            start = at + 1
        elif char == "}" and stack:
            opened, head = stack.pop()
            name = _name_of(head)
            # Only the outermost function: lambdas and blocks inside count to it.
            if name and not any(_name_of(outer) for _, outer in stack):
                first = line_of(code, opened)
                yield line_of(code, at) - first + 1, path, first, name


def _name_of(head):
    head = re.sub(r"^\s*#.*$", "", head, flags=re.MULTILINE)
    match = re.search(r"([\w:~]+)\s*\(", head)
    if not match or _NOT_FUNCTIONS.search(head.split("(")[0]) or head.rstrip().endswith(("=", ",", "(")):
        return None
    return match.group(1)


def longest(tree, count):
    found = [f for p in tree.cpp("src", "apps") for f in function_lengths(tree, p)]
    return sorted(found, reverse=True)[:count]
