"""Slim fio for the guest: stand-ins for libraries whose engines nobody uses there.

Debian's fio links Ceph, GlusterFS, RDMA and NBD clients, 75 MiB with what they pull in. Every guest
boot would pay for unpacking them.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from . import tools
from .errors import LabError

_STUBBED = ("libgfapi", "libnbd", "libibverbs", "librdmacm", "librados", "librbd", "libpmemblk", "libpmem")


def _needed(binary: str) -> list[str]:
    """DT_NEEDED entries of one object."""
    dynamic = tools.run(["readelf", "-dW", binary], f"reading {binary}").stdout.decode()
    return re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)


def _is_stubbed(library: str) -> bool:
    return library.split(".so")[0] in _STUBBED


def libraries_without_stubbed(programs: list[str]) -> list[str]:
    """Libraries still reached when the stubbed ones bring nothing in, and the loader."""
    by_name = {os.path.basename(path): path for path in tools.shared_libraries(programs)}
    reached = {name for name in by_name if name.startswith("ld-linux")}
    waiting = list(programs)
    while waiting:
        for needed in _needed(waiting.pop()):
            if needed in by_name and needed not in reached and not _is_stubbed(needed):
                reached.add(needed)
                waiting.append(by_name[needed])
    return [by_name[name] for name in sorted(reached)]


def make_stubs(folder: Path, program: str) -> list[Path]:
    """Empty stand-ins for the stubbed libraries `program` links.

    fio is bound at start (BIND_NOW), so every symbol must exist, with its version; none of them is
    called unless the matching engine is chosen, and then the program stops at once.
    """
    symbols = _versioned_imports(program)
    stubs = []
    for library in filter(_is_stubbed, _needed(program)):
        versions = _versions_needed(program).get(library, set())
        target = folder / library
        _compile_stub(target, {name: version for name, version in symbols.items()
                               if version in versions or version is None})
        stubs.append(target)
    return stubs


def _versioned_imports(program: str) -> dict[str, str | None]:
    """Undefined dynamic symbols and the version each asks for."""
    table = tools.run(["readelf", "-W", "--dyn-syms", program], f"reading {program}").stdout.decode()
    imports: dict[str, str | None] = {}
    for line in table.splitlines():
        columns = line.split()
        if len(columns) >= 8 and columns[6] == "UND" and columns[3] in ("FUNC", "NOTYPE"):
            name, _, version = columns[7].partition("@")
            if columns[4] == "GLOBAL":
                imports[name] = version or None
    return imports


def _versions_needed(program: str) -> dict[str, set[str]]:
    """Library -> version names the program wants from it."""
    text = tools.run(["readelf", "-W", "-V", program], f"reading {program}").stdout.decode()
    needed: dict[str, set[str]] = {}
    library = ""
    for line in text.splitlines():
        if match := re.search(r"File: (\S+)", line):
            library = match[1]
        elif match := re.search(r"Name: (\S+)", line):
            needed.setdefault(library, set()).add(match[1])
    return needed


def _compile_stub(target: Path, symbols: dict[str, str | None]) -> None:
    source = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in sorted(symbols))
    script = ""
    for version in sorted({version for version in symbols.values() if version}):
        names = "".join(f"{name};" for name, wanted in sorted(symbols.items()) if wanted == version)
        script += f"{version} {{ global: {names} }};\n"
    version_file = target.with_suffix(".map")
    version_file.write_text(script)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", "-fno-builtin", "-nostdlib", f"-Wl,-soname,{target.name}",
               "-x", "c", "-", "-o", str(target)]
    if script:
        command.insert(1, f"-Wl,--version-script={version_file}")
    done = subprocess.run(command, input=source.encode(), capture_output=True)
    version_file.unlink()
    if done.returncode != 0:
        raise LabError(f"stub for {target.name} does not compile: {done.stderr.decode()[-400:]}")
