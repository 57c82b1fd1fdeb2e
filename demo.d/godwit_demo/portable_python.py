"""A Python small enough to send to a lab host with every run: the interpreter and the modules the driver uses.

About 8 MiB. A lab host starts it in half a second; carrying the whole standard library would cost more than that
in unpacking alone.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

_LIST_MODULES = """
import importlib, json, sys
sys.path[:0] = %r
for name in %r:
    importlib.import_module(name)
print(json.dumps({name: module.__file__ for name, module in sys.modules.items()
                  if getattr(module, "__file__", None) and name != "__main__"}))
"""
# Imported by the interpreter or by the driver only on some paths.
_ALSO = ["encodings.utf_8", "encodings.ascii", "encodings.idna", "encodings.latin_1", "runpy", "site"]


def _interpreter() -> str:
    """Debian's own has the needed extension modules built in."""
    return "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable


def build(target: Path, paths: list, modules: list) -> list:
    """Fill `target` with bin/python3 and lib/; gives the command that starts a module with it on the host.

    `paths` are added to the search path, `modules` are what must be importable there.
    """
    python = os.path.realpath(_interpreter())
    listing = _LIST_MODULES % ([str(path) for path in paths], [*_ALSO, *modules])
    done = subprocess.run([python, "-B", "-S", "-c", listing], capture_output=True, text=True, check=True)
    version = subprocess.run([python, "-c", "import sys; print('%d %d' % sys.version_info[:2])"],
                             capture_output=True, text=True, check=True).stdout.split()
    shutil.rmtree(target, ignore_errors=True)
    (target / "bin").mkdir(parents=True)
    shutil.copy(python, target / "bin/python3")
    library = target / "lib" / f"python{'.'.join(version)}"
    dynamic = library / "lib-dynload"
    dynamic.mkdir(parents=True)
    (library / "os.py").touch()  # by this file the interpreter recognises its library directory
    compiled = target / "compiled"
    compiled.mkdir()
    members, pairs = [], []
    for number, (name, source) in enumerate(json.loads(done.stdout).items()):
        if source.endswith(".so"):
            shutil.copy(source, dynamic)
            continue
        inside = name.replace(".", "/") + ("/__init__.pyc" if source.endswith("__init__.py") else ".pyc")
        members.append((compiled / str(number), inside))
        pairs.append([source, str(compiled / str(number))])
    _compile_all(python, pairs)
    with zipfile.ZipFile(target / "lib" / f"python{''.join(version)}.zip", "w") as archive:
        for path, inside in members:
            archive.write(path, inside)
    shutil.rmtree(compiled)
    return ["env", "PYTHONHOME=/lab/work/python", "python/bin/python3", "-B", "-S"]


_COMPILE = """
import json, py_compile, sys
for source, target in json.load(sys.stdin):
    py_compile.compile(source, cfile=target, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def _compile_all(python: str, pairs: list) -> None:
    """Compiled here by the very interpreter that goes along: an emulated host would take seconds for it."""
    subprocess.run([python, "-c", _COMPILE], input=json.dumps(pairs), text=True, check=True)
