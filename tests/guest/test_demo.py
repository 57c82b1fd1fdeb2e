#!/usr/bin/env python3
"""./demo verifies everything, says so in its JSON, and leaves nothing behind.

usage: test_demo.py DIRECTORY-OF-PROGRAMS [options of ./demo]
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def expect(condition, what) -> None:
    if not condition:
        raise SystemExit(f"FAILED: {what}")


def scratch() -> set:
    """Temporary folders of demos, ours and those of others that run meanwhile."""
    return set(Path(tempfile.gettempdir()).glob("godwit-demo-*")) | set((ROOT / "build/demo").glob("*-*"))


def main() -> int:
    binaries, *words = sys.argv[1:]
    before = scratch()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        done = subprocess.run([ROOT / "demo", "--no-build", "--json", path, *words],
                              env={**os.environ, "GODWIT_DEMO_BIN": binaries})
        expect(path.exists(), f"no report; exit code {done.returncode}")
        report = json.loads(path.read_text())
    expect(done.returncode == 0 and report["verified"] is True, json.dumps(report, indent=1))
    expect(len(report["build_ids"]) == 2 and len(set(report["build_ids"])) == 2, f"builds {report['build_ids']}")
    guests = {"beacon"} if "--beacon-only" in words else {"linux", "beacon"}
    expect({run["guest"] for run in report["runs"]} == guests, "not every guest ran")
    wanted = 2 if "--quick" in words else 10
    for run in report["runs"]:
        name = run["guest"]
        expect(run["where"] in ("local", "lab"), f"{name}: where {run['where']}")
        expect(run["exchanges"] == wanted, f"{name}: {run['exchanges']} exchanges")
        expect(0 < run["blackout_us"]["p50"] <= run["blackout_us"]["max"], f"{name}: blackout {run['blackout_us']}")
        expect(run["guest_gap_us"]["max"] >= run["blackout_us"]["p50"] // 2, f"{name}: the guest saw no pause at all")
        expect(run["guest_bytes_copied"] == 0, f"{name}: guest memory was copied")
        expect(run["frames_sampled"] == run["frames_identical"] > 0, f"{name}: frames")
        expect(run["journal_blocks_verified"] > 0 and run["pages_verified"] > 0, f"{name}: nothing verified")
    expect(scratch() <= before, f"left behind: {scratch() - before}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
