"""Every named step of an exchange, killed or hanging, on real processes: source, successor, daemon, recovery.

While beacon writes memory and a disk journal, one process dies (or hangs) at one point. Afterwards there is exactly
one copy of the guest that runs, or one that is frozen and `godwit recover` brings back, or none where the only
process that had the guest was the one that died. The guest then checks every page and block it ever wrote, and no
process, socket, directory or lock is left.

    test_kill_sweep.py           a sample of all points
    test_kill_sweep.py --full    all of them
"""

import concurrent.futures
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "control"), str(TESTS / "system")]

from host_fixture import BIN, PATIENCE_S, HostTest  # noqa: E402
from vmm_harness import ROOT, Console  # noqa: E402

LOAD = ("mem_set=8M mem_rate=5000 disk=journal disk_qd=4 disk_pattern=random disk_flush=16 disk_rate=300 "
        "report_ms=100")
AT_A_TIME = 4
FULL = "--full" in sys.argv
SOURCE_STEPS = range(1, 11)
SUCCESSOR_POINTS = ("hello", "build", "prepared", "devices", "load", "claim", "claimed", "running")
PHASES = ("plan", "prepare", "sync", "pause", "commit", "settle")
# What has to be true afterwards.
RUNS = "runs"            # one copy runs, without anybody's help
RECOVERED = "recovered"  # one copy was frozen, and runs after `godwit recover`
GONE = "gone"            # the process that had the guest is the one that died: nobody runs, nothing is left
HELD = "held"            # a living process owns the guest and does not run it: nobody else may; ended by force


class Case:
    def __init__(self, side, point, action, expected, quick=False):
        self.side, self.point, self.action, self.expected, self.quick = side, point, action, expected, quick
        self.found, self.oracle, self.seconds, self.trouble = "-", "-", 0.0, ""

    def __str__(self):
        return f"{self.side} {self.point} {self.action}"


def after_successor(point):
    """Of a successor that is no more or hangs at this point."""
    return {"claimed": RECOVERED, "running": HELD}.get(point, RUNS)


def all_cases():
    cases = [Case("source", str(step), "kill", GONE if step <= 8 else RUNS, quick=step in (6, 8, 9))
             for step in SOURCE_STEPS]
    for point in SUCCESSOR_POINTS:
        cases.append(Case("successor", point, "kill", after_successor(point), quick=point in ("build", "load", "claim",
                                                                                              "claimed", "running")))
        cases.append(Case("successor", point, "hang", after_successor(point), quick=point in ("claim", "claimed")))
        cases.append(Case("daemon", f"while the successor hangs at {point}", "kill", after_successor(point),
                          quick=point == "load"))
    cases += [Case("daemon", f"in phase {phase}", "kill", RUNS, quick=phase in ("prepare", "commit"))
              for phase in PHASES]
    cases += [Case("daemon", "control.exchange.fence", "kill", RUNS, quick=True),
              Case("daemon", "control.end_without_owner", "kill", GONE, quick=True),
              Case("recovery", "vmm.reclaim", "kill", GONE),
              Case("recovery", "vmm.reclaimed", "kill", GONE, quick=True)]
    return cases


def status_of(path):
    """What a VMM says of itself, or nothing."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(2)
            client.connect(str(path))
            client.send(b'{"id":1,"method":"status","params":{}}')
            return json.loads(client.recv(65536))["result"]
    except (OSError, ValueError, KeyError):
        return None


class Sweep(HostTest):
    """One case on a host of its own."""

    def runTest(self):
        pass

    def boot(self):
        self.environment["GODWIT_VMM"] = str(BIN / "godwit-vmm")
        self.image = self.root / "disk.raw"
        with open(self.image, "wb") as file:
            file.truncate(32 << 20)
        self.start_daemon()
        self.godwit("run", "m", "--kernel", str(BIN / "beacon"), "--memory", "64M", "--cpus", "2",
                    "--disk", str(self.image), "--cmdline", LOAD)
        self.console = Console(self.run_dir / "machines/m/console-serial.sock")
        self.console.read_until("report")

    def program(self, fault=""):
        """The new VMM with a fault, or one that only forgets the faults of the others."""
        path = self.root / "successor"
        path.write_text(f'#!/bin/sh\nGODWIT_FAULT={fault or "none:none"} exec {BIN / "godwit-vmm-next"} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def begin(self, fault="", prepare_ms=2000, deadline_ms=1200):
        """Starts an exchange as a command that nobody waits for yet."""
        return subprocess.Popen(
            [BIN / "godwit", "exchange", "m", "--to", self.program(fault), "--prepare-ms", str(prepare_ms),
             "--deadline-ms", str(deadline_ms), "--json"],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def exchange(self, fault="", **limits):
        command = self.begin(fault, **limits)
        out, _ = command.communicate(timeout=PATIENCE_S)
        return json.loads(out) if out.strip() else None

    # -- the ways to go wrong ------------------------------------------------------------------------------------

    def provoke(self, case):
        if case.side == "source":
            self.environment["GODWIT_FAULT"] = f"handover.source.{case.point}:kill"
            self.boot()
            self.environment.pop("GODWIT_FAULT")
            self.exchange()
        elif case.side == "successor":
            self.boot()
            self.exchange(f"exchange.destination.{case.point}:{case.action}")
        elif case.side == "recovery":
            self.environment["GODWIT_FAULT"] = f"{case.point}:kill"
            self.boot()
            self.environment.pop("GODWIT_FAULT")
            self.exchange("exchange.destination.claimed:kill")
            self.godwit("recover", "m", code=None)
        else:
            self.provoke_daemon(case.point)

    def provoke_daemon(self, point):
        if point.startswith("control."):
            self.environment["GODWIT_FAULT"] = f"{point}:kill"
        self.boot()
        self.environment.pop("GODWIT_FAULT", None)
        if point.startswith("in phase"):
            since = self.events()[-1]["id"]
            command = self.begin()
            self.wait_event("exchange", since, machine="m", phase=point.split()[-1])
            self.kill_daemon()
        elif point == "control.exchange.fence":
            command = self.begin("exchange.destination.prepared:hang")
            self.daemon_dies()
        elif point == "control.end_without_owner":
            # The owner dies while a successor hangs that owns nothing, under a daemon that has found both of them.
            command = self.begin("exchange.destination.hello:hang", prepare_ms=60_000)
            self.wait_processes(2)
            self.wait_event("exchange", machine="m", phase="plan")
            self.kill_daemon()
            self.environment["GODWIT_FAULT"] = f"{point}:kill"
            self.start_daemon()
            self.environment.pop("GODWIT_FAULT")
            os.kill(self.owner_pid(), signal.SIGKILL)
            self.daemon_dies()
        else:
            fault = point.split()[-1]
            command = self.begin(f"exchange.destination.{fault}:hang")
            self.wait_processes(2)
            self.wait_hanging(fault)
            self.kill_daemon()
        command.communicate(timeout=PATIENCE_S)

    def owner_pid(self):
        return next(s["pid"] for s in self.statuses() if s["role"] == "owner")

    def sign_of_life(self):
        self.console.read_until("report", PATIENCE_S, self.console.lines())

    def daemon_dies(self):
        self.assertEqual(self.daemon.wait(30), -signal.SIGKILL)
        self.daemon = None

    def wait_processes(self, count):
        end = time.monotonic() + PATIENCE_S
        while len(self.vmm_pids()) < count and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(len(self.vmm_pids()), count)

    def wait_hanging(self, point):
        """Until the exchange has come to where the successor hangs."""
        phase = {"hello": "plan", "build": "prepare", "prepared": "prepare", "devices": "sync"}.get(point, "commit")
        self.wait_event("exchange", machine="m", phase=phase)

    # -- what is there afterwards ----------------------------------------------------------------------------------

    def statuses(self):
        found = [status_of(path) for path in (self.run_dir / "machines/m").glob("vmm-*.sock")]
        return [status for status in found if status]

    def machine_state(self):
        listed = json.loads(self.godwit("ps", "--json").stdout)["machines"]
        return listed[0]["state"] if listed else None

    def settled_state(self):
        """The machine's state once it has one that stays: by a new daemon if the old one is dead."""
        end = time.monotonic() + 30
        state = self.machine_state()
        while time.monotonic() < end:
            if state in (None, "running", "frozen") and not self.busy():
                return state
            if state == "recovering" and time.monotonic() > end - 20:
                return state
            time.sleep(0.1)
            state = self.machine_state()
        return state

    def busy(self):
        """Whether the operation still runs, or a VMM still hands over."""
        jobs = [status for status in self.statuses() if status["role"] == "owner" and status["job"] == "exchange"]
        machines = json.loads(self.godwit("ps", "--json").stdout)["machines"]
        return bool(jobs) or bool(machines and machines[0]["operation"])

    def running_copies(self):
        return [status for status in self.statuses() if status["state"] == "running"]

    def judge(self):
        """Exactly one copy, and what became of it."""
        state = self.settled_state()
        running = self.running_copies()
        end = time.monotonic() + 5
        while state == "running" and not running and time.monotonic() < end:
            time.sleep(0.05)  # The record says so a moment before the new VMM does.
            running = self.running_copies()
        self.assertLessEqual(len(running), 1, f"two copies run: {running}")
        if running:
            self.assertEqual(state, "running")
            return RUNS
        if state is None:
            return GONE
        # Also a machine that godwitd takes for running: its owner may have run it and does not say so.
        recovered = self.godwit("recover", "m", "--json", code=None)
        outcome = json.loads(recovered.stdout)["outcome"] if recovered.stdout.strip() else "refused"
        if outcome in ("rolled_back", "finished_forward"):
            self.assertEqual(recovered.returncode, 0)
            return RECOVERED
        self.assertIn(outcome, ("lost", "unchanged", "refused"), recovered.stdout)
        dead_owner = state == "recovering"
        self.godwit("stop", "m", "--force")
        return GONE if dead_owner else HELD

    def finish(self):
        """The guest goes on under its console, is exchanged once more, and has lost nothing."""
        self.sign_of_life()
        report = self.exchange(prepare_ms=30_000, deadline_ms=10_000)
        self.assertEqual(report and report["outcome"], "done", report)
        final = self.console.ask("stop", "final")
        self.assertTrue(final["ok"], final)
        self.assertEqual(final["errors"], 0, final)
        self.assertGreater(final["pages_verified"], 0)
        self.assertGreater(final["blocks_verified"], 0)
        self.console.drain()
        log = subprocess.run([sys.executable, str(ROOT / "guests/beacon/tools/beacon_log.py")], input=self.console.raw,
                             capture_output=True, check=False)
        self.assertEqual(log.returncode, 0, log.stdout.decode()[-500:])
        return f"{final['pages_verified']} pages, {final['blocks_verified']} blocks"

    def assert_nothing_left(self):
        end = time.monotonic() + 20
        machines = self.run_dir / "machines"
        while (self.vmm_pids() or list(machines.iterdir())) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.vmm_pids(), [], "processes are left")
        self.assertEqual([str(path) for path in machines.rglob("*")], [], "files are left")
        while not self.disk_is_free():  # The kernel ends the last requests of a killed process after it is gone.
            self.assertLess(time.monotonic(), end, "the disk is locked")
            time.sleep(0.05)

    def disk_is_free(self):
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        with open(self.image, "r+b") as image:
            try:
                fcntl.fcntl(image, 37, lock)  # F_OFD_SETLK
            except OSError:
                return False
        return True

    def sweep(self, case):
        self.provoke(case)
        case.found = self.judge()
        if case.found in (RUNS, RECOVERED):
            case.oracle = self.finish()
        self.assert_nothing_left()
        self.assertEqual(case.found, case.expected)


def run(case):
    started = time.monotonic()
    host = Sweep()
    host.setUp()
    try:
        host.sweep(case)
    except Exception as error:  # pylint: disable=broad-except; every case is told in the table
        case.trouble = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:600]
        try:
            case.trouble += " | " + host.daemon_log()[-600:]
        except OSError:
            pass
    finally:
        if getattr(host, "console", None):
            host.console.socket.close()
        host.doCleanups()
    case.seconds = time.monotonic() - started
    return case


def print_table(cases):
    print(f"\n{'SIDE':10} {'POINT':42} {'HOW':5} {'EXPECTED':10} {'FOUND':10} {'S':>5}  ORACLE")
    for case in cases:
        print(f"{case.side:10} {case.point:42} {case.action:5} {case.expected:10} {case.found:10} "
              f"{case.seconds:5.1f}  {case.oracle}{'  FAILED' if case.trouble else ''}")
    print(f"{len(cases)} points swept, {sum(1 for case in cases if case.trouble)} failed", flush=True)


class KillSweep(unittest.TestCase):
    def test_every_point_leaves_one_copy_or_none(self):
        self.assertTrue(os.access("/dev/kvm", os.R_OK | os.W_OK), "no usable /dev/kvm: this test needs it")
        words = [word for word in sys.argv[1:] if not word.startswith("-")]
        cases = [case for case in all_cases() if (FULL or case.quick or words) and all(w in str(case) for w in words)]
        self.assertTrue(cases)
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(run, cases))
        print_table(cases)
        self.assertEqual([f"{case}: {case.trouble}" for case in cases if case.trouble], [])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "KillSweep"])
