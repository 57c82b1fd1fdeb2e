"""The report of a demo, for a person and for a program."""

from __future__ import annotations


def as_json(runs: list[dict], build_ids: list[str] | None) -> dict:
    """The document of `./demo --json`."""
    verified = bool(runs) and not any(run["violations"] for run in runs)
    return {"verified": verified, "build_ids": build_ids, "runs": runs}


def as_text(document: dict) -> str:
    """What a person reads at the end."""
    lines = ["", "A machine ran, and its VMM was replaced under it. What was seen:", ""]
    for run in document["runs"]:
        lines += _run_lines(run) + [""]
    if document["build_ids"]:
        lines.append(f"VMM builds: {' and '.join(document['build_ids'])}")
    lines.append("VERIFIED: nothing lost, nothing doubled, no clock ran back." if document["verified"]
                 else "NOT VERIFIED: see above.")
    return "\n".join(lines)


def _milliseconds(microseconds: int | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1000:.2f} ms"


def _run_lines(run: dict) -> list[str]:
    place = "this machine's KVM" if run["where"] == "local" else "an emulated host (times are not those of hardware)"
    guest = "Linux (stock Debian kernel)" if run["guest"] == "linux" else "beacon (the test guest)"
    rows = [
        ("exchanges of its VMM", f"{run['exchanges']}, there and back"),
        ("blackout", f"{_milliseconds(run['blackout_us']['p50'])} median, "
                     f"{_milliseconds(run['blackout_us']['max'])} worst"),
        ("widest gap the guest saw", f"{_milliseconds(run['guest_gap_us']['p50'])} median, "
                                     f"{_milliseconds(run['guest_gap_us']['max'])} worst"),
        ("guest memory copied", f"{run['guest_bytes_copied']} bytes"),
        ("page frames identical", f"{run['frames_identical']} of {run['frames_sampled']} sampled"),
        ("memory verified", f"{run['pages_verified']} pages"),
        ("disk journal verified", f"{run['journal_blocks_verified']} blocks, by the guest and in the image"),
        ("heartbeat", _heartbeat(run)),
    ]
    if run["phases_us_p50"]:
        phases = ", ".join(f"{name} {value / 1000:.2f}" for name, value in run["phases_us_p50"].items())
        rows.append(("phases, median ms", phases))
    if run["seconds"]:
        rows.append(("time line, s", ", ".join(f"{name} {value:.1f}" for name, value in run["seconds"].items())))
    lines = [f"{guest}, on {place}"]
    lines += [f"  {name:<26} {value}" for name, value in rows]
    lines += [f"  VIOLATION: {violation}" for violation in run["violations"]]
    return lines


def _heartbeat(run: dict) -> str:
    if not run["network"] or run["heartbeat"] is None:
        return "not run: a tap needs root"
    beat = run["heartbeat"]
    guest = beat["from_guest"]
    return (f"{guest['received']} from the guest, {guest['lost']} lost, {guest['doubled']} doubled; "
            f"{beat['echo_replies']} echoes")
