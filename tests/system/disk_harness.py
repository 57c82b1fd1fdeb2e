"""Machines with a disk under a guest that writes and checks what it reads, and what tests say of them.

The guest (beacon) keeps a journal: it knows the newest acknowledged write of each block, compares what it reads with
it, and says at its end how many blocks there are. The image is then read offline and has to say the same.
"""

import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import unittest

from vmm_harness import BEACON, BIN, Console, MachineTest

import beacon_disk  # Found by the harness.

DISK_MIB = 64
DISK_BYTES = DISK_MIB << 20
LOAD = f"disk=journal disk_pattern=random disk_qd=4 disk_flush=16 disk_span={DISK_MIB}M disk_rate=1000 report_ms=200"
# Only bounds for tests that fail: everything waits for events.
END_S = 60


class DiskTest(MachineTest):
    """A machine without godwitd."""

    def begin(self, load=LOAD, **more):
        self.source = self.disk("source.raw", DISK_MIB)
        vmm = self.start(self.document(load, disks=[self.source], vcpus=1, memory_mebibytes=64, **more))
        console = self.console()
        self.addCleanup(console.socket.close)
        console.read_until("report", 30)
        return vmm, console

    def disk_of(self, vmm):
        return vmm.call("disks", disk="disk0")["disks"][0]

    def wait_event(self, vmm, name, state=None):
        """The next event of this name, and state; older ones are forgotten."""
        while True:
            for index, event in enumerate(vmm.events):
                if event["event"] == name and state in (None, event.get("state")):
                    del vmm.events[:index + 1]
                    return event
            readable, _, _ = select.select([vmm.socket], [], [], END_S)
            self.assertTrue(readable, f"no event '{name} {state}'")
            message = json.loads(vmm.socket.recv(1 << 20))
            self.assertIn("event", message)
            vmm.events.append(message)

    def finish(self, vmm, console, image, size=DISK_BYTES):
        """The guest's last word about its disk is true of the image, read offline."""
        console.type("stop")
        final, _ = console.read_until("final", 60)
        self.assertTrue(final["ok"], final)
        self.assertEqual(final["disk"]["errors"], 0, final)
        self.assertEqual(vmm.wait_end(), 0)
        result = beacon_disk.scan(str(image), 4096, int(final["disk"]["run"], 16))
        beacon_disk.compare(result, final)
        self.assertEqual(result["violations"], [])
        self.assertGreater(result["blocks"], 100)
        with open(image, "rb") as file:
            self.assertEqual(file.seek(0, os.SEEK_END), size)

    def unlocked(self, image):
        """Nobody has the image open any more."""
        with open(image, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DaemonTest(unittest.TestCase):
    """A godwitd, asked by the command line."""

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="gwt-", dir="/tmp"))
        self.run_dir = self.root / "r"
        self.environment = dict(os.environ, GODWIT_RUN_DIR=str(self.run_dir), GODWITD=str(BIN / "godwitd"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.daemon = None
        self.start_daemon()
        self.addCleanup(self.end_daemon)

    def run_machine(self, name, load, *images):
        """With a guest at work on the first of its images; gives its console."""
        disks = [word for image in images for word in ("--disk", str(image))]
        self.godwit("run", name, "--kernel", str(BEACON), "--cmdline", load, "--cpus", "1", "--memory", "64M", *disks)
        self.addCleanup(self.godwit, "stop", name, "--force", good=False)
        console = Console(self.run_dir / f"machines/{name}/console-serial.sock")
        self.addCleanup(console.socket.close)
        console.read_until("report", 30)
        return console

    def start_daemon(self):
        reader, writer = os.pipe()
        with open(self.root / "godwitd.log", "ab") as log:
            self.daemon = subprocess.Popen([BIN / "godwitd", "--ready-fd", str(writer)], env=self.environment,
                                           pass_fds=[writer], stderr=log)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            self.assertEqual(json.loads(pipe.readline()).get("ok"), True)

    def end_daemon(self):
        self.daemon.kill()
        self.daemon.wait()

    def godwit(self, *words, good=True):
        ended = subprocess.run([BIN / "godwit", *words], env=self.environment, capture_output=True, text=True,
                               timeout=END_S, check=False)
        if good:
            self.assertEqual(ended.returncode, 0, ended.stderr)
        return ended

    def json(self, *words):
        return json.loads(self.godwit(*words, "--json").stdout)

    def finish_guest(self, console, image):
        """The guest's last word about its disk is true of the image, read offline; gives that."""
        console.type("stop")
        final, _ = console.read_until("final", 60)
        self.assertTrue(final["ok"], final)
        self.assertEqual(final["disk"]["errors"], 0, final)
        result = beacon_disk.scan(str(image), 4096, int(final["disk"]["run"], 16))
        beacon_disk.compare(result, final)
        self.assertEqual(result["violations"], [])
        return result


class DaemonDiskTest(DaemonTest):
    """Its machine "web1", with one disk."""

    def setUp(self):
        super().setUp()
        self.source = self.root / "source.raw"
        with open(self.source, "wb") as file:
            file.truncate(DISK_BYTES)
        self.console = self.run_machine("web1", LOAD, self.source)

    def finish(self, image):
        self.finish_guest(self.console, image)
