"""Command line of the laboratory."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

from . import frozen, layout, network, rootfs, session
from .errors import EXIT_FAILED, EXIT_SETUP, EXIT_TIMEOUT, LabError
from .frozen import Frozen
from .layout import Variant
from .payload import Order, parse_file
from .session import HostRun, Outcome

_EPILOG = """exit codes: the script's own; 2 wrong use or missing prerequisites; 124 time limit;
125 the lab host died. The cache is <repository>/build/lab, or $GODWIT_LAB_DIR."""


def main(arguments: list[str]) -> int:
    """Run one command; gives the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        return options.action(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return EXIT_FAILED


def _leave(number: int, _frame: FrameType | None) -> None:
    """Turn a request to end into an exception, so that every `finally` does its work."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", epilog=_EPILOG, description=(
        "Run scripts on an emulated host with hardware virtualization and Debian's own kernel."))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    prepare = commands.add_parser("prepare", help="download, build, boot and freeze what is missing")
    prepare.add_argument("--variant", action="append", default=[], help="small, host (default: host); repeatable")
    _add_size(prepare)
    prepare.set_defaults(action=_prepare)

    run = commands.add_parser("run", help="run a script or command on one restored host", epilog=_EPILOG)
    _add_variant(run)
    _add_run(run)
    run.add_argument("--out", type=Path, metavar="DIR", help="bring back what the script puts into $LAB_OUT")
    run.add_argument("--net", metavar="NAME", help="share a network with the other run of that name")
    what = run.add_mutually_exclusive_group(required=True)
    what.add_argument("--script", type=Path, metavar="FILE")
    what.add_argument("command", nargs="*", default=[], metavar="-- COMMAND")
    run.set_defaults(action=_run)

    pair = commands.add_parser("pair", help="run two scripts on two hosts joined by a network", epilog=_EPILOG)
    _add_variant(pair)
    _add_run(pair)
    pair.add_argument("--script-a", type=Path, required=True, metavar="FILE", help="runs on 10.77.0.1")
    pair.add_argument("--script-b", type=Path, required=True, metavar="FILE", help="runs on 10.77.0.2")
    pair.add_argument("--out", type=Path, metavar="DIR", help="result files go to DIR/a and DIR/b")
    pair.set_defaults(action=_pair)

    shell = commands.add_parser("shell", help="interactive shell on a restored host (leave: exit or Ctrl-])")
    _add_variant(shell)
    _add_delivery(shell)
    shell.set_defaults(action=_shell)

    guest = commands.add_parser("guest", help="write a stock kernel and the guest's initramfs into a directory")
    guest.add_argument("directory", type=Path)
    guest.set_defaults(action=_guest)

    status = commands.add_parser("status", help="what is prepared")
    status.add_argument("--json", action="store_true", help="machine-readable")
    status.set_defaults(action=_status)

    clean = commands.add_parser("clean", help="delete what was built")
    clean.add_argument("--all", action="store_true", help="also the downloaded packages")
    clean.set_defaults(action=_clean)
    return parser


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memory", type=_mebibytes, metavar="SIZE", help="host memory, e.g. 6G")
    parser.add_argument("--cpus", type=int, metavar="N", help="host CPUs")


def _add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", default="host", help="host (3 GiB, 2 CPUs; default) or small (1 GiB, 1 CPU)")
    _add_size(parser)


def _add_delivery(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--payload", action="append", type=Path, default=[], metavar="DIR",
                        help="contents go to the script's directory; repeatable")
    parser.add_argument("--file", action="append", type=parse_file, default=[], metavar="PATH[:DEST]",
                        help="one file; programs bring their shared libraries; repeatable")
    parser.add_argument("--env", action="append", type=_assignment, default=[], metavar="NAME=VALUE")
    parser.add_argument("--disk", action="append", type=_bytes, default=[], metavar="SIZE",
                        help="size of /dev/scratch, then of /dev/scratch2 (default 2G each, sparse, empty)")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_delivery(parser)
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="default 120")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write exit code and times")
    parser.add_argument("--console", action="store_true", help="show the host kernel's console at the end")


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 512M or 2G")
    return int(match[1]) << (10 * " KMGT".index((match[2] or " ").upper()))


def _mebibytes(text: str) -> int:
    return _bytes(text) // layout.MIB


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def _prepare(options: argparse.Namespace) -> int:
    names = options.variant or ["host"]
    variants = [layout.variant_of(name, options.memory, options.cpus) for name in names]
    frozen.prepare(layout.cache_dir(), variants, refresh=True)
    return 0


def _guest(options: argparse.Namespace) -> int:
    """For guests on this machine's own KVM: the same kernel and initramfs the lab's hosts have."""
    cache = layout.cache_dir()
    rootfs.write_guest(frozen.assets_of(cache), options.directory)
    return 0


def _ready(options: argparse.Namespace) -> tuple[Path, Frozen]:
    """The frozen host a command needs; prepared now if it is missing or outdated."""
    cache = layout.cache_dir()
    variant: Variant = layout.variant_of(options.variant, options.memory, options.cpus)
    return cache, frozen.usable(cache, variant) or frozen.prepare(cache, [variant], refresh=False)[0]


def _order(options: argparse.Namespace, script: str, extra: dict[str, str]) -> Order:
    if len(options.disk) > 2:
        raise LabError("a lab host has two scratch disks: give --disk at most twice", EXIT_SETUP)
    return Order(script, options.payload, options.file, {**dict(options.env), **extra})


def _read_script(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}", EXIT_SETUP) from error


def _run(options: argparse.Namespace) -> int:
    script = _read_script(options.script) if options.script else f"exec {shlex.join(options.command)}\n"
    cache, host = _ready(options)
    end = None
    extra = {}
    if options.net:
        end, node = network.meet(cache, options.net, options.timeout)
        extra = {"LAB_NODE": str(node), "LAB_PEER": f"10.77.0.{3 - node}"}
    member = HostRun(host, _order(options, script, extra), sys.stdout.buffer, out=options.out,
                     network=end.fileno() if end else None, scratch_sizes=options.disk)
    session.run([member], cache, options.timeout)
    return _report(options, {"": member})


def _pair(options: argparse.Namespace) -> int:
    scripts = {"a": _read_script(options.script_a), "b": _read_script(options.script_b)}
    cache, host = _ready(options)
    members = {}
    ends = network.wire()
    for node, (letter, end) in enumerate(zip(scripts, ends, strict=True), start=1):
        extra = {"LAB_NODE": str(node), "LAB_PEER": f"10.77.0.{3 - node}"}
        members[letter] = HostRun(host, _order(options, scripts[letter], extra), sys.stdout.buffer,
                                  prefix=b"[%s] " % letter.encode(), network=end.fileno(),
                                  out=options.out / letter if options.out else None,
                                  scratch_sizes=options.disk)
    session.run(list(members.values()), cache, options.timeout)
    return _report(options, members)


def _shell(options: argparse.Namespace) -> int:
    cache, host = _ready(options)
    rows, columns = session.terminal_size()
    extra = {"LAB_TERMINAL": "1", "LAB_ROWS": str(rows), "LAB_COLUMNS": str(columns)}
    member = HostRun(host, _order(options, "", extra), sys.stdout.buffer, scratch_sizes=options.disk)
    session.run([member], cache, None, terminal=True)
    return member.outcome.exit_code if member.outcome else EXIT_FAILED


def _report(options: argparse.Namespace, members: dict[str, HostRun]) -> int:
    """Explain failures on stderr, write the JSON, and pick the exit code: the first that is not 0."""
    outcomes = {name: host.outcome for name, host in members.items() if host.outcome}
    for name, outcome in outcomes.items():
        label = f"host {name}: " if name else ""
        if outcome.message:
            print(f"lab: {label}{outcome.message}", file=sys.stderr)
        if outcome.console.strip() and (outcome.message or options.console):
            print(f"lab: {label}console of the host's kernel:\n{outcome.console[-4000:]}", file=sys.stderr)
    if options.json:
        reports = {name: _as_json(outcome) for name, outcome in outcomes.items()}
        options.json.write_text(json.dumps(reports.get("", {"hosts": reports}), indent=2) + "\n")
    codes = [outcome.exit_code for outcome in outcomes.values()]
    if EXIT_TIMEOUT in codes and any(outcome.timed_out for outcome in outcomes.values()):
        return EXIT_TIMEOUT
    return next((code for code in codes if code), 0)


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {"exit_code": outcome.exit_code, "timed_out": outcome.timed_out, "message": outcome.message,
            "seconds": {name: round(value, 3) for name, value in outcome.seconds.items()}}


def _status(options: argparse.Namespace) -> int:
    cache = layout.cache_dir()
    rows = frozen.describe(cache)
    total = frozen.allocated_mib(cache)
    if options.json:
        print(json.dumps({"cache": str(cache), "allocated_mib": total, "frozen": rows}, indent=2))
        return 0
    print(f"cache {cache}, {total} MiB on disk")
    for row in rows:
        state = "ready" if row["current"] else "outdated"
        print(f"  {row['variant']}: {row['memory_mib']} MiB, {row['cpus']} CPUs, "
              f"{row['allocated_mib']} MiB on disk, {state}")
    if not rows:
        print("  nothing prepared: run lab/lab prepare")
    return 0


def _clean(options: argparse.Namespace) -> int:
    cache = layout.cache_dir()
    with layout.exclusive(cache):
        layout.remove_unfinished(cache)
        for path in cache.iterdir():
            if path.suffix == ".lock" or path.name == "lock" or (path.name == "debs" and not options.all):
                continue
            if path.name in ("debs", "kernels", "frozen") or path.name.startswith("assets-"):
                shutil.rmtree(path, ignore_errors=True)
    return 0


