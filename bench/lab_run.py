"""Runs a benchmark of this folder on a frozen lab host: the same script, with a small Python sent along."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import BINARIES, RESULTS, ROOT

sys.path.insert(0, str(ROOT / "demo.d"))
from godwit_demo import portable_python  # noqa: E402

_MODULES = ["measuring", "vmms", "json", "argparse", "datetime", "platform", "statistics",
            "kernel_boot", "contextlib", "math", "re"]
_PROGRAMS = ("godwit-vmm", "godwit-vmm-next", "beacon")


def run(script: str, arguments: list, save: bool, timeout_s: int = 900, before: str = "") -> int:
    """Run bench/SCRIPT there with these arguments; its results come back. `before`: shell lines run first."""
    with tempfile.TemporaryDirectory(prefix="godwit-bench-") as name:
        folder = Path(name)
        payload = folder / "payload"
        payload.mkdir()
        python = portable_python.build(payload / "python", [ROOT / "bench"], _MODULES)
        shutil.copy(ROOT / "bench" / script, payload)
        words = " ".join(f"'{word}'" for word in arguments)
        order = folder / "order.sh"
        order.write_text(f""". /lab/lib.sh
export GODWIT_BIN=/lab/work/bin
{before}
exec {' '.join(python)} {script} {words}
""")
        files = [word for program in _PROGRAMS for word in ("--file", f"{BINARIES / program}:bin/{program}")
                 if (BINARIES / program).exists()]
        out = folder / "out"
        done = subprocess.run([ROOT / "lab/lab", "run", "--payload", payload, *files, "--out", out,
                               "--timeout", str(timeout_s), "--script", order])
        for result in out.glob("*.json"):
            if save:
                RESULTS.mkdir(parents=True, exist_ok=True)
                shutil.copy(result, RESULTS / f"{result.stem}_lab.json")
                print(f"saved {RESULTS / result.stem}_lab.json")
        return done.returncode
