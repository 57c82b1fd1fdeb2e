#!/usr/bin/env python3
"""guestload notices what it is there to notice, run as a program on this machine.

usage: test_oracle.py DIRECTORY-OF-PROGRAMS
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "guests/beacon/tools"), str(ROOT / "demo.d")]
import beacon_disk  # noqa: E402
import beacon_log  # noqa: E402
from godwit_demo import heartbeat  # noqa: E402

PROGRAM = Path(sys.argv.pop(1)) / "guestload"
LIMIT_S = 30


class Load:
    """A guestload process on pipes."""

    def __init__(self, *words):
        self.log = beacon_log.Log()
        self.process = subprocess.Popen([PROGRAM, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, command):
        """Types a command and returns the event of that name that answers it."""
        before = len(self.log.events)
        self.tell(command)
        while not any(event["event"] == command for event in self.log.events[before:]):
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise AssertionError(f"no answer to '{command}'")
            self.log.feed(data)
        return self.log.last(command)

    def wait_for(self, name):
        while self.log.last(name) is None:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise AssertionError(f"no '{name}'; got {[event['event'] for event in self.log.events]}")
            self.log.feed(data)
        return self.log.last(name)

    def end(self):
        rest, _ = self.process.communicate(timeout=LIMIT_S)
        self.log.feed(rest)
        self.log.close()
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.communicate()


class OracleTest(unittest.TestCase):
    def setUp(self):
        # O_DIRECT needs a real file system, which /tmp may not be.
        holder = tempfile.TemporaryDirectory(dir=ROOT / "build")
        self.addCleanup(holder.cleanup)
        self.image = Path(holder.name) / "disk.raw"
        with open(self.image, "wb") as file:
            file.truncate(8 << 20)

    def load(self, *words):
        load = Load(*words)
        self.addCleanup(load.kill)
        return load

    def test_everything_right_is_verified(self):
        load = self.load("mem_set=16M", "mem_pattern=hot", f"disk={self.image}", "disk_qd=4", "disk_pattern=mixed",
                         "disk_flush=16", "disk_span=4M", "report_ms=100")
        load.wait_for("populated")
        load.tell("verify")
        verified = load.wait_for("verified")
        self.assertTrue(verified["ok"])
        self.assertEqual(verified["pages_verified"], 4096)
        load.tell("stop")
        final = load.wait_for("final")
        self.assertEqual(load.end(), 0)
        self.assertEqual(load.log.summary()["violations"], [])
        self.assertTrue(final["ok"])
        self.assertGreater(final["sse"]["checks"], 0)
        self.assertGreater(final["disk"]["flushes"], 0)
        self.assertEqual(final["disk"]["flushed"], final["disk"]["newest_acknowledged"])
        result = beacon_disk.scan(str(self.image), 4096, int(final["disk"]["run"], 16))
        beacon_disk.compare(result, final)
        self.assertEqual(result["violations"], [])

    def test_damaged_block_is_an_error(self):
        load = self.load(f"disk={self.image}", "disk_span=64K", "disk_rate=200", "disk_verify=0", "report_ms=100")
        while load.wait_for("report")["disk"]["blocks_written"] < 16:
            load.log.events.append({"event": "seen", "n": load.log.events[-1]["n"]})
            load.log.feed(os.read(load.process.stdout.fileno(), 65536))
        load.process.send_signal(19)  # SIGSTOP: nothing is rewritten between the damage and its discovery
        time.sleep(0.1)
        newest = self.damage_all_blocks()
        load.process.send_signal(18)
        load.tell("verify")
        verified = load.wait_for("verified")
        self.assertGreater(newest, 0)
        self.assertFalse(verified["ok"])
        self.assertEqual(load.log.last("error")["kind"], "block")
        load.tell("stop")
        load.wait_for("final")
        self.assertEqual(load.end(), 1)

    def damage_all_blocks(self):
        with open(self.image, "r+b") as file:
            for block in range(16):
                file.seek(block * 4096 + 1000)
                byte = file.read(1)[0]
                file.seek(block * 4096 + 1000)
                file.write(bytes([byte ^ 1]))
            file.flush()
            os.fsync(file.fileno())
        return 16

    def test_gap_of_a_stopped_program_is_seen(self):
        load = self.load("mem_set=1M", "report_ms=60000")
        load.wait_for("boot")
        load.tell("reset-gaps")
        load.wait_for("gaps-reset")
        widest = 0
        # A thread that is stopped before its first turn after the request forgets the gap with those before.
        for _ in range(3):
            load.process.send_signal(19)
            time.sleep(0.4)
            load.process.send_signal(18)
            # The thread that stood still notes its gap at its next turn, which a busy machine may delay.
            deadline = time.monotonic() + 5
            while widest <= 380_000 and time.monotonic() < deadline:
                widest = max(cpu["max_gap_us"] for cpu in load.ask("report")["cpus"])
            if widest > 380_000:
                break
        self.assertGreater(widest, 380_000)

    def test_heartbeats_are_counted(self):
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(peer.close)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        peer.bind(("127.0.0.2", 7999))
        load = self.load("net=127.0.0.2:7999", "net_rate=100", "report_ms=60000")
        load.wait_for("boot")
        account = heartbeat.Account()
        address = None
        for _ in range(20):
            data, address = peer.recvfrom(2048)
            account.add(heartbeat.decode(data)[1])
        # 3 is lost, 5 comes twice, 7 after 8.
        for sequence in (1, 2, 4, 5, 5, 6, 8, 7, 9):
            peer.sendto(heartbeat.encode(heartbeat.HEARTBEAT, sequence), address)
        peer.sendto(heartbeat.encode(heartbeat.ECHO_REQUEST, 77), address)
        while True:
            kind, sequence = heartbeat.decode(peer.recv(2048))
            if kind == heartbeat.ECHO_REPLY:
                self.assertEqual(sequence, 77)
                break
        load.tell("report")
        net = load.wait_for("report")["net"]
        self.assertEqual({key: net[key] for key in ("rx", "lost", "doubled", "reordered", "echoed")},
                         {"rx": 9, "lost": 1, "doubled": 1, "reordered": 1, "echoed": 1})
        self.assertEqual((account.lost, account.doubled, account.first), (0, 0, 1))

    def test_wrong_word_is_refused(self):
        load = self.load("mem_set=much")
        self.assertEqual(load.end(), 2)
        self.assertEqual(load.log.last("error")["detail"], "mem_set=much")


if __name__ == "__main__":
    unittest.main()
