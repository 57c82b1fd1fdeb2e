"""Command line of the demo: what happens in which order, and the exit code."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import judge, places, report
from .places import ROOT, LabPlace, LocalPlace, Place, Unable

_BUILD = ROOT / "build/release"
_PROGRAMS = ("godwit", "godwitd", "godwit-vmm", "godwit-vmm-next", "beacon")
_EXIT_NOT_VERIFIED, _EXIT_UNABLE = 1, 2
_KEPT = ROOT / "build/demo/failed"


def main(arguments: list[str]) -> int:
    """Run the demo; 0 only if everything was verified."""
    options = _parser().parse_args(arguments)
    # Also where a shell has started us with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        return _demo(options)
    except Unable as error:
        print(f"demo: {error}", file=sys.stderr)
        return _EXIT_UNABLE
    except KeyboardInterrupt:
        print("demo: interrupted; everything has been cleaned up", file=sys.stderr)
        return 128 + signal.SIGINT


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo", description="Boots a stock Linux guest and the test guest beacon with disk, network and a load "
        "that checks itself, exchanges their VMM for another build and back while they run, and reports what they "
        "saw. Builds what it needs first.",
        epilog="exit codes: 0 everything was verified; 1 something was not; 2 the demo cannot run here. "
        "As root the guests get a network; without root they run without one, and the report says so.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")
    parser.add_argument("--exchanges", type=_positive, default=None, metavar="N",
                        help="exchanges per guest (default 10, with --quick 2)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--linux-only", action="store_true", help="only the stock Linux guest")
    only.add_argument("--beacon-only", action="store_true", help="only beacon")
    parser.add_argument("--quick", action="store_true", help="small guests, short load, two exchanges")
    parser.add_argument("--no-build", action="store_true", help="use what build/release/bin holds")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10000:
        raise ValueError
    return number


def _demo(options: argparse.Namespace) -> int:
    started = time.monotonic()
    places.remove_leftovers()
    if not options.no_build:
        _build()
    binaries = Path(os.environ.get("GODWIT_DEMO_BIN", _BUILD / "bin"))
    missing = [name for name in _PROGRAMS if not (binaries / name).exists()]
    if missing:
        raise Unable(f"{binaries} lacks {', '.join(missing)}: run ./demo without --no-build")
    where = places.choose()
    print(f"demo: {places.why(where)}", flush=True)
    if where["beacon"] == "local" and not places.can_make_taps() and not options.linux_only:
        print("demo: not root: the guest on this machine runs without a network", flush=True)
    guests = ["linux"] if options.linux_only else ["beacon"] if options.beacon_only else ["linux", "beacon"]
    exchanges = options.exchanges or (2 if options.quick else 10)
    if any(where[guest] == "lab" for guest in guests):
        print("demo: preparing the lab", flush=True)
        places.prepare_lab(None)
    runs = []
    for guest in guests:
        kind = LocalPlace if where[guest] == "local" else LabPlace
        with kind(guest, binaries, options.quick, exchanges) as place:
            runs.append(_one(place, exchanges))
    build_ids = next((run["build_ids"] for run in runs if run["build_ids"]), None)
    document = report.as_json(runs, build_ids)
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    print(report.as_text(document))
    print(f"The demo took {time.monotonic() - started:.0f} s.")
    return 0 if document["verified"] else _EXIT_NOT_VERIFIED


def _one(place: Place, exchanges: int) -> dict:
    print(f"demo: starting {place.guest} ({place.where})", flush=True)
    place.run()
    print("demo: checking log, disk and network from outside", flush=True)
    run = judge.judge(place, exchanges)
    if run["violations"]:
        kept = _KEPT / place.guest
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(place.out, kept)
        print(f"demo: what the run left is kept in {kept}", flush=True)
    return run


def _build() -> None:
    for what, command in (
        ("installing what is missing", [ROOT / "setup"]),
        ("configuring", None if (_BUILD / "build.ninja").exists() else ["cmake", "--preset", "release"]),
        ("building", ["cmake", "--build", "--preset", "release", "--target", "apps", "beacon", "guestload"]),
    ):
        if command is None:
            continue
        print(f"demo: {what}", flush=True)
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Unable(f"{what} failed:\n{done.stdout[-3000:]}")
