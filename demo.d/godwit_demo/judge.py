"""Judges what a run left: log, disk, network, exchanges. Every violation is one sentence."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from .jobs import BLOCK_BYTES
from .places import TOOLS, Place

sys.path.insert(0, str(TOOLS))
import beacon_disk  # noqa: E402
import beacon_log  # noqa: E402


def judge(place: Place, wanted: int) -> dict:
    """The run as the report's JSON has it, with "violations": empty if everything was verified."""
    try:
        result = json.loads((place.out / "result.json").read_text())
    except (OSError, ValueError):
        result = {"exchanges": [], "seconds": {}, "failure": "the driver left no result", "network": None}
    violations = [result["failure"]] if result.get("failure") else []
    reports = [exchange["report"] for exchange in result["exchanges"]]
    violations += _exchange_violations(reports, wanted)
    violations += _log_violations(place)
    final = result.get("final")
    violations += _guest_violations(final, place.network)
    violations += _disk_violations(place, final)
    violations += _network_violations(result["network"]) if place.network else []
    return {**_numbers(place, result, reports, final), "violations": violations}


def _numbers(place: Place, result: dict, reports: list[dict], final: dict | None) -> dict:
    blackouts = [report["blackout_us"] for report in reports if report.get("blackout_us", -1) > 0]
    gaps = [exchange["guest_gap_us"] for exchange in result["exchanges"]]
    phases = {name: round(statistics.median(report["phases_us"][name] for report in reports
                                            if name in report.get("phases_us", {})))
              for name in (reports[0].get("phases_us", {}) if reports else {})}
    return {
        "guest": place.guest, "where": place.where, "exchanges": len(reports),
        "blackout_us": {"p50": round(statistics.median(blackouts)) if blackouts else None,
                        "max": max(blackouts, default=None)},
        "guest_gap_us": {"p50": round(statistics.median(gaps)) if gaps else None, "max": max(gaps, default=None)},
        "guest_bytes_copied": sum(report.get("guest_bytes_copied", 0) for report in reports) if reports else None,
        "frames_sampled": sum(report.get("frames_sampled", 0) for report in reports),
        "frames_identical": sum(report.get("frames_identical", 0) for report in reports),
        "journal_blocks_verified": final["blocks_verified"] if final else 0,
        "pages_verified": final["pages_verified"] if final else 0,
        "phases_us_p50": phases, "network": place.network, "heartbeat": result["network"],
        "seconds": result["seconds"], "build_ids": reports[0].get("build_ids") if reports else None,
    }


def _exchange_violations(reports: list[dict], wanted: int) -> list[str]:
    found = []
    if len(reports) != wanted:
        found.append(f"{len(reports)} exchanges were made, not {wanted}")
    before = None
    for number, report in enumerate(reports, start=1):
        name = f"exchange {number}"
        if report.get("outcome") != "done":
            found.append(f"{name}: outcome {report.get('outcome')!r}: {report.get('reason')}")
            continue
        if report["guest_bytes_copied"] != 0:
            found.append(f"{name}: {report['guest_bytes_copied']} bytes of guest memory were copied")
        if report["frames_sampled"] == 0 or report["frames_identical"] != report["frames_sampled"]:
            found.append(f"{name}: {report['frames_identical']} of {report['frames_sampled']} sampled frames identical")
        if report["blackout_us"] <= 0:
            found.append(f"{name}: no blackout was measured")
        old, new = report["build_ids"]
        if old == new or (before is not None and old != before):
            found.append(f"{name}: from build {old} to build {new}, after {before}")
        if report["epochs"][1] <= report["epochs"][0]:
            found.append(f"{name}: the owner's epoch did not rise: {report['epochs']}")
        before = new
    return found


def _read_log(path: Path) -> beacon_log.Log:
    log = beacon_log.Log()
    if path.exists():
        log.feed(path.read_bytes())
    log.close()
    return log


def _log_violations(place: Place) -> list[str]:
    """Lines of the load's console must be numbered without a gap; beacon's serial port carries the same."""
    logs = {"console": _read_log(place.out / "console-virtio.log")}
    if place.guest == "beacon":
        logs["serial port"] = _read_log(place.out / "console-serial.log")
    found = []
    for name, log in logs.items():
        if not log.events:
            found.append(f"{name}: no line of the guest")
        found += [f"{name}: {violation}" for violation in log.violations]
        found += [f"{name}: the guest says: {json.dumps(event)}" for event in log.events
                  if event["event"] in ("error", "panic")]
    if len(logs) == 2 and not found:
        console, serial = (log.events for log in logs.values())
        if console != serial:
            found.append("console and serial port do not carry the same lines")
    return found


def _guest_violations(final: dict | None, network: bool) -> list[str]:
    if final is None:
        return ["the guest gave no final verification"]
    found = []
    if not final["ok"] or final["errors"]:
        found.append(f"the guest counted {final['errors']} errors")
    if final["pages_verified"] == 0 or final["blocks_verified"] == 0:
        found.append("the guest verified nothing")
    if final["disk"]["inflight"] or final["disk"]["flushed"] != final["disk"]["newest_acknowledged"]:
        found.append("the guest's last flush does not cover all its writes")
    if any(value for name, value in final["clock"].items() if name.endswith("backwards")):
        found.append("a clock of the guest ran back")
    if network:
        net = final["net"]
        bad = {name: net[name] for name in ("lost", "doubled", "errors") if net[name]}
        if bad or net["rx"] == 0:
            found.append(f"heartbeat, host to guest: {net['rx']} received, {bad}")
    return found


def _disk_violations(place: Place, final: dict | None) -> list[str]:
    if final is None:
        return []
    try:
        result = beacon_disk.scan(str(place.image()), BLOCK_BYTES, int(final["disk"]["run"], 16))
    except OSError as error:
        return [f"disk: {error}"]
    beacon_disk.compare(result, final)
    return [f"disk: {violation}" for violation in result["violations"]]


def _network_violations(network: dict | None) -> list[str]:
    if network is None:
        return ["heartbeat: the host's end did not start"]
    guest = network["from_guest"]
    found = [f"heartbeat, guest to host: {guest[name]} {name}" for name in ("lost", "doubled") if guest[name]]
    if guest["received"] == 0 or network["echo_replies"] == 0:
        found.append("heartbeat: nothing came from the guest")
    if guest["first"] not in (None, 1):
        found.append(f"heartbeat, guest to host: began with {guest['first']}")
    if network["damaged"]:
        found.append(f"heartbeat: {network['damaged']} damaged frames")
    return found
