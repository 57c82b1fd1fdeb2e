"""Time limits and full disks: what does not end is given up, and the guest runs on."""

import contextlib
import ctypes
import os
import pathlib
import resource
import time
import unittest

from test_exchange import ExchangeBase
from vmm_harness import ControlError

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000


@contextlib.contextmanager
def stopped_thread(pid, name):
    """Stops one thread of a process: a disk whose thread stands still never answers."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    thread = next(int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
                  if (task / "comm").read_text().strip() == name)
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, thread, None, None)


@contextlib.contextmanager
def files_limited_to(pid, count):
    """No file of the process may grow beyond `count` bytes; stands for a file system that is full."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


class DeadlineTest(ExchangeBase):
    def test_pause_gives_up_on_a_disk_that_never_answers(self):
        vmm, console = self.begin()
        with stopped_thread(vmm.process.pid, "disk0"):
            with self.assertRaises(ControlError) as caught:
                vmm.call("pause")
            self.assertEqual(caught.exception.code, "timeout")
            self.assertIn("disk0", caught.exception.message)
            self.assertIn("runs on", caught.exception.message)
            self.assertEqual(vmm.call("status")["state"], "running")
        console.read_until("report", 30, console.lines())
        vmm.call("pause")
        vmm.call("resume")
        self.finish(vmm, console)

    def test_exchange_gives_up_on_a_disk_that_never_answers(self):
        vmm, console = self.begin()
        with stopped_thread(vmm.process.pid, "disk0"):
            report, _ = self.exchange(vmm, deadline_ms=500)
        self.assertEqual((report["outcome"], report["failed_step"], report["error_code"], report["side"]),
                         ("rolled_back", "quiesce", "timeout", "source"), report)
        self.assertIn("disk0", report["reason"])
        console.read_until("report", 30, console.lines())
        report, successor = self.exchange(vmm)
        self.assertEqual(report["outcome"], "done", report)
        self.finish(successor, console)

    def test_successor_that_is_never_built_is_given_up(self):
        vmm, console = self.begin()
        _, end = self.successor(environment={"GODWIT_FAULT": "exchange.destination.build:hang"})
        with end:
            identity = vmm.send("exchange", [end.fileno()], prepare_ms=300)
        report = vmm.wait_for(identity)
        self.assertEqual((report["failed_step"], report["error_code"], report["side"]),
                         ("prepare", "timeout", "destination"), report)
        self.finish(vmm, console)

    def test_cancel_wakes_an_exchange_that_waits(self):
        vmm, console = self.begin()
        _, end = self.successor(environment={"GODWIT_FAULT": "exchange.destination.build:hang"})
        with end:
            identity = vmm.send("exchange", [end.fileno()])
        while not any(event.get("phase") == "prepare" for event in vmm.events):
            vmm.call("status")
        began = time.monotonic()
        self.assertEqual(vmm.call("cancel"), {"job": "exchange"})
        report = vmm.wait_for(identity)
        self.assertLess(time.monotonic() - began, 5)  # The step itself would wait for 30 s.
        self.assertEqual((report["outcome"], report["error_code"]), ("rolled_back", "cancelled"), report)
        self.finish(vmm, console)

    def test_limits_that_make_no_sense_are_refused(self):
        vmm, console = self.begin()
        for limits in ({"prepare_ms": 0}, {"prepare_ms": "soon"}, {"deadline_ms": 600001}):
            _, end = self.successor()
            with end, self.assertRaises(ControlError) as caught:
                vmm.wait_for(vmm.send("exchange", [end.fileno()], **limits))
            self.assertEqual(caught.exception.code, "invalid_argument")
            self.assertIn(next(iter(limits)), caught.exception.message)
        self.finish(vmm, console)


class FullDiskTest(ExchangeBase):
    def test_snapshot_that_does_not_fit_is_one_message_and_leaves_nothing(self):
        vmm = self.start(self.document("mem_set=16M mem_rate=20000 report_ms=200"))
        console = self.console()
        console.read_until("populated")
        target = self.directory / "snapshot"
        with files_limited_to(vmm.process.pid, 1 << 20), self.assertRaises(ControlError) as caught:
            vmm.call("snapshot", directory=str(target))
        self.assertEqual(caught.exception.code, "io")
        self.assertIn("ram.raw", caught.exception.message)
        self.assertFalse(target.exists())
        self.assertEqual(vmm.call("status")["state"], "running")
        console.read_until("report", 30, console.lines())
        console.type("stop")
        final, _ = console.read_until("final", 60)
        self.assertTrue(final["ok"], final)
        self.assertEqual(vmm.wait_end(), 0)

    def test_image_that_cannot_grow_is_an_error_of_the_guest_and_few_messages(self):
        """The image is a sparse file: some blocks can be written, those that need room cannot."""
        vmm = self.start(self.document("mem_set=1M disk=journal disk_rate=200 disk_pattern=random report_ms=200",
                                       disks=[self.disk()]))
        console = self.console()
        console.read_until("populated")
        console.read_until("report")
        with files_limited_to(vmm.process.pid, 4096):
            start = console.lines()
            for _ in range(3):
                report, start = console.read_until("report", 30, start)
        self.assertGreater(report["disk"]["errors"], 0)
        self.assertTrue(vmm.alive())
        vmm.call("status")
        told = [event for event in vmm.events if event["event"] == "disk_error"]
        self.assertTrue(1 <= len(told) <= report["disk"]["errors"].bit_length() + 1, told)
        self.assertEqual(told[0]["disk"], "disk0")
        vmm.call("stop", force=True)
        self.assertEqual(vmm.wait_end(), 0)


if __name__ == "__main__":
    unittest.main()
