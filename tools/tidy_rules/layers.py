"""Layers: a domain includes and links only what it declares, and declares only lower domains."""
import re

from .tree import Finding, is_test, line_of

GENERATED = (".inc", ".hex")  # Made into the build folder, for one source.
SHARED = {"testing"}  # src/testing: the tests' main(), not a domain.


def read_order(tree):
    """Domains, lowest first, as src/CMakeLists.txt adds them."""
    match = re.search(r"foreach\(domain ([^)]*)\)", tree.text("src/CMakeLists.txt"))
    return match.group(1).split() if match else []


def read_edges(tree):
    """{domain: [declared dependencies]}, from godwit_domain() and target_link_libraries()."""
    edges = {}
    for path in tree.files:
        match = re.fullmatch(r"src/(\w+)/(?:.*/)?CMakeLists\.txt", path)
        if not match or match.group(1) in SHARED:
            continue
        text = re.sub(r"#[^\n]*", "", tree.text(path))
        found = edges.setdefault(match.group(1), [])
        for call in re.finditer(r"godwit_domain\(\s*(\w+)([^)]*)\)", text):
            words = call.group(2).split()
            keep = False
            for word in words:
                if word.isupper():
                    keep = word == "DEPENDS"
                elif keep:
                    found.append(word)
        for call in re.finditer(r"target_link_libraries\(\s*(\w+)([^)]*)\)", text):
            for name in re.findall(r"godwit(?:::|_)(\w+)", call.group(2)):
                name = re.sub(r"_testing$", "", name)
                if name not in (match.group(1), "flags", "state_proto", "test_main"):
                    found.append(name)
    return edges


def closure(edges, domain):
    """What a domain links, directly or through others."""
    seen, waiting = set(), list(edges.get(domain, []))
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += edges.get(name, [])
    return seen


def check_links(tree):
    order, edges = read_order(tree), read_edges(tree)
    for domain, depends in edges.items():
        path = f"src/{domain}/CMakeLists.txt"
        if domain not in order:
            yield Finding(path, 1, "layer", f"'{domain}' is not among the layers of src/CMakeLists.txt")
            continue
        for lower in depends:
            if lower not in order or order.index(lower) >= order.index(domain):
                yield Finding(path, 1, "layer", f"'{domain}' links '{lower}', which is not a lower layer")


def check_includes(tree):
    order, edges = read_order(tree), read_edges(tree)
    for path in tree.cpp("src"):
        domain = path.split("/")[1]
        if domain not in edges:  # Not a domain, or one whose CMakeLists.txt has not come yet.
            continue
        allowed = closure(edges, domain) | {domain}
        text = tree.text(path)
        for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', text, re.MULTILINE):
            included, line = match.group(1), line_of(text, match.start())
            target = included.split("/")[0]
            if included.endswith(GENERATED):
                continue
            if "/" not in included or (target not in order and target not in SHARED):
                yield Finding(path, line, "include", f'"{included}" is not given from src/, as "domain/name.h"')
            elif target not in allowed:
                yield Finding(path, line, "layer",
                              f"'{domain}' includes '{target}' without linking it: a higher layer, or not in DEPENDS")
            elif "/testing/" in included and not is_test(path):
                yield Finding(path, line, "layer", f'"{included}" is for tests only')
