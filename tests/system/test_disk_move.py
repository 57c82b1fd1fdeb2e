"""Moves the disk of a running machine, under a guest that writes and checks what it reads.

The guest (beacon) keeps a journal: it knows the newest acknowledged write of each block, compares what it reads with
it, and says at its end how many blocks there are. The image is then read offline and has to say the same.
"""

import os
import pathlib
import subprocess
import time
import unittest

from vmm_harness import VMM_NEW, VMM_OLD, ControlError, MachineTest

import beacon_disk  # Found by the harness.

SCHEMES = ("dbt", "mirror", "lr", "slr", "aio", "tiered")
DISK_MIB = 64
LOAD = f"disk=journal disk_pattern=random disk_qd=4 disk_flush=16 disk_span={DISK_MIB}M disk_rate=3000 report_ms=200"
END_S = 60


class DiskMoveTest(MachineTest):
    def begin(self, load=LOAD, mebibytes=DISK_MIB, **more):
        self.source = self.disk("source.raw", mebibytes)
        vmm = self.start(self.document(load, disks=[self.source], vcpus=1, memory_mebibytes=64, **more))
        console = self.console()
        console.read_until("report", 30)
        return vmm, console

    def disk_of(self, vmm, index=0):
        return vmm.call("disks")["disks"][index]

    def move(self, vmm, destination, scheme, **more):
        vmm.call("disk_move", disk="disk0", destination=str(destination), scheme=scheme, **more)

    def wait_event(self, vmm, state):
        """The next event of a disk's move with this state; older ones are forgotten."""
        deadline = time.monotonic() + END_S
        while True:
            found = [event for event in vmm.events if event["event"] == "disk_move" and event["state"] == state]
            if found:
                vmm.events.clear()
                return found[0]
            self.assertLess(time.monotonic(), deadline, f"no event '{state}'")
            vmm.call("status")  # Events come with the answer.
            time.sleep(0.01)

    def ended(self, vmm):
        self.wait_event(vmm, "ended")
        return self.disk_of(vmm)["last_move"]

    def finish(self, vmm, console, image):
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
        self.assertEqual(image.stat().st_size, DISK_MIB << 20)
        return final

    def test_each_scheme_there_and_back(self):
        for scheme in SCHEMES:
            with self.subTest(scheme=scheme):
                vmm, console = self.begin()
                there = self.directory / f"{scheme}.raw"
                self.move(vmm, there, scheme)
                report = self.ended(vmm)
                self.assertEqual((report["outcome"], report["complete"]), ("moved", "destination"), report)
                self.assertEqual(report["scheme"], scheme)
                self.assertEqual(self.disk_of(vmm)["path"], str(there))
                self.source.unlink()  # Whatever still used it would be found out.
                self.move(vmm, self.source, scheme)
                report = self.ended(vmm)
                self.assertEqual(report["outcome"], "moved", report)
                self.finish(vmm, console, self.source)


if __name__ == "__main__":
    unittest.main(verbosity=2)
