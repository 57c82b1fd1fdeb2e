"""What every benchmark here shares: options, medians, a table, and the saved result."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"
# On a lab host everything lies beside the script; here it is the release build.
BINARIES = Path(os.environ.get("GODWIT_BIN", ROOT / "build/release/bin"))


def options(description: str, runs: int, **more) -> argparse.ArgumentParser:
    """The options all have. `more`: lab=True adds --lab."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=runs, help=f"runs of each case (default {runs})")
    parser.add_argument("--save", action="store_true", help="write bench/results/<name>.json")
    if more.get("lab"):
        parser.add_argument("--lab", action="store_true", help="measure on a frozen lab host instead of here")
    return parser


def summary(values: list) -> dict:
    """Median, extremes and count of some numbers; with n <= 100 a p99 would be the maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def table(title: str, columns: list, rows: list) -> None:
    """Print rows of text and numbers in columns."""
    cells = [columns, *[[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) if index == 0 else cell.rjust(width)
                               for index, (cell, width) in enumerate(zip(row, widths))))


def machine() -> dict:
    """What the numbers were measured on."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {"cpu": models[0] if models else "unknown", "cpus": len(models), "kernel": platform.release(),
            "load_average": os.getloadavg()[0]}


def finish(name: str, result: dict, arguments: argparse.Namespace) -> None:
    """Save the result where asked to. On a lab host it goes to $LAB_OUT, from where the caller takes it."""
    document = {"benchmark": name, "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "machine": machine(), "commit": _commit(), **result}
    folder = Path(os.environ["LAB_OUT"]) if "LAB_OUT" in os.environ else RESULTS if arguments.save else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(f"\nsaved {path}")


def _commit() -> str:
    try:
        return subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True,
                              text=True).stdout.strip()
    except OSError:
        return ""
