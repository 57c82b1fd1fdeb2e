"""The part of the demo that runs next to the guest: starts it, exchanges its VMM, asks it what it saw.

Usage: python3 -m godwit_demo.drive JOB.json
The job (made by machines.py) names programs, guest and load; what happened goes to <out>/result.json,
with the consoles' bytes and godwit's own output beside it. It judges nothing: that is done afterwards, outside.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback

from . import autopsy
from .console import Console
from .heartbeat import Peer
from .loop import Late, Loop
from .machine import Failed, Machine

# Seconds, for a machine with real hardware; a job may ask for a multiple.
LIMITS_S = {"start": 20, "boot": 30, "populate": 30, "answer": 10, "exchange": 30, "verify": 60, "end": 20}
REPORTS_AFTER_EXCHANGE = 2  # the first may be written before every CPU has had a turn


def say(text) -> None:
    """A line of progress for the person who waits."""
    print(text, flush=True)


class Drive:
    """One guest, from its start to its end."""

    def __init__(self, job):
        self.job = job
        self.out = job["out"]
        self.loop = Loop()
        self.limits = {name: limit * job.get("patience", 1) for name, limit in LIMITS_S.items()}
        self.started = time.monotonic()
        self.result = {"guest": job["guest"], "exchanges": [], "seconds": {}, "failure": None, "network": None}
        self.machine = Machine(self.loop, job["godwit"], job["name"], job["run_dir"],
                               os.path.join(self.out, "godwit.log"))
        self.consoles = {}
        self.peer = None

    @property
    def console(self) -> Console:
        """The console the load speaks on."""
        return self.consoles[self.job["console"]]

    def run(self) -> None:
        """All steps; raises at the first that fails."""
        self.make_network()
        self.start()
        self.exchange_all()
        self.finish()

    def note(self, name) -> None:
        """Remember when a step was done."""
        self.result["seconds"][name] = round(time.monotonic() - self.started, 3)

    def make_network(self) -> None:
        """The tap, its address, and the host's end of the heartbeat."""
        net = self.job["net"]
        if net is None:
            return
        commands = [["link", "set", "lo", "up"],
                    ["tuntap", "add", "dev", net["tap"], "mode", "tap", *(net.get("flags") or [])],
                    ["address", "add", net["host_address"], "dev", net["tap"]],
                    ["link", "set", "dev", net["tap"], "up"]]
        for words in commands:
            done = subprocess.run(["ip", *words], capture_output=True, text=True)
            if done.returncode != 0:
                raise Failed(f"ip {' '.join(words)}: {done.stderr.strip()}")
        self.peer = Peer(self.loop, net["kind"], net["tap"], net["guest_address"])

    def start(self) -> None:
        """godwit run, then wait until the load is under way."""
        job = self.job
        self.machine.must("run", job["name"], *job["run"], limit_s=self.limits["start"])
        self.note("started")
        for port in job["consoles"]:
            self.consoles[port] = Console(self.loop, self.machine.console_path(port),
                                          os.path.join(self.out, f"console-{port}.log"))
        self.await_event("boot", "boot")
        self.note("booted")
        if self.peer is not None:
            self.peer.start(job["net"]["rate"])
        self.await_event("populated", "populate")
        self.note("loaded")
        say(f"{job['name']}: the guest is up and loaded after {self.result['seconds']['loaded']:.1f} s")

    def exchange_all(self) -> None:
        """There and back again, asking the guest each time."""
        for number in range(self.job["exchanges"]):
            program = self.job["programs"][(number + 1) % 2]
            self.ask("reset-gaps", "gaps-reset")
            self.loop.serve(self.job["settle_s"])
            began = time.monotonic()
            report = self.machine.must("exchange", self.job["name"], "--to", program,
                                       limit_s=self.limits["exchange"])
            wall_s = time.monotonic() - began
            reports = self.console.count("report") + REPORTS_AFTER_EXCHANGE
            self.console.send("report")
            self.await_event("report", "answer", reports)
            seen = self.console.last("report")
            gap_us = max(cpu["max_gap_us"] for cpu in seen["cpus"])
            self.result["exchanges"].append({
                "report": {key: value for key, value in report.items() if key not in ("exit_code", "complaint")},
                "guest_gap_us": gap_us, "guest_errors": seen["errors"], "command_s": round(wall_s, 3)})
            say(f"{self.job['name']}: exchange {number + 1} of {self.job['exchanges']}: "
                f"blackout {report['blackout_us'] / 1000:.2f} ms, "
                f"widest gap the guest saw {gap_us / 1000:.2f} ms")
        self.note("exchanged")

    def finish(self) -> None:
        """Everything is verified twice: while the machine runs, and when the load has stopped."""
        self.ask("verify", "verified", "verify")
        self.note("verified")
        if self.peer is not None:
            self.peer.stop()
        self.ask("stop", "final", "verify")
        self.loop.wait("the end of the machine", self.limits["end"],
                       lambda: not any(console.open for console in self.consoles.values()))
        self.note("ended")
        self.result["final"] = self.console.last("final")

    def ask(self, command, event, limit="answer") -> None:
        """Send a control line and wait for its answer."""
        times = self.console.count(event) + 1
        self.console.send(command)
        self.await_event(event, limit, times)

    def await_event(self, name, limit, times=1) -> None:
        """Wait until an event has come so many times; the guest's end before that is a failure."""
        self.loop.wait(f"event '{name}' of the guest", self.limits[limit],
                       lambda: self.console.count(name) >= times or not self.console.open)
        if self.console.count(name) < times:
            raise Failed(f"the guest ended before event '{name}'; its last words: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what the guest wrote, for a message."""
        words = ""
        for port in self.consoles:
            with open(os.path.join(self.out, f"console-{port}.log"), "rb") as file:
                words += file.read()[-400:].decode(errors="replace")
        return words.strip() or "none"

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        try:
            self.machine.command("stop", self.job["name"], "--force", limit_s=self.limits["end"])
        except (Late, OSError, subprocess.SubprocessError) as error:
            say(f"{self.job['name']}: godwit stop: {error}")
        for console in self.consoles.values():
            console.close()
        if self.peer is not None:
            self.result["network"] = self.peer.as_json()
            self.peer.close()
        self.machine.close()
        if self.job["net"] is not None:
            subprocess.run(["ip", "link", "delete", self.job["net"]["tap"]], capture_output=True)


def _leave(number, _frame) -> None:
    raise SystemExit(128 + number)


def main(path) -> int:
    """Run one job; 0 if every step was done."""
    with open(path) as file:
        job = json.load(file)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    os.makedirs(job["out"], exist_ok=True)
    os.makedirs(job["run_dir"], mode=0o700, exist_ok=True)
    with open(job["disk"], "wb") as image:
        image.truncate(job["disk_bytes"])
    drive = Drive(job)
    try:
        drive.run()
    except (Failed, Late) as error:
        drive.result["failure"] = str(error)
    except Exception:
        drive.result["failure"] = traceback.format_exc()
    finally:
        if drive.result["failure"]:
            autopsy.write(drive.machine.run_directory, os.path.join(drive.out, "autopsy.txt"))
        drive.close()
        with open(os.path.join(job["out"], "result.json"), "w") as file:
            json.dump(drive.result, file)
    if drive.result["failure"]:
        say(f"{job['name']}: FAILED: {drive.result['failure']}")
    return 1 if drive.result["failure"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
