"""The exchange in its first form: a running machine gets a new VMM process and the guest loses nothing."""

import pathlib
import signal
import socket
import subprocess
import sys
import unittest

import vmm_harness
from vmm_harness import VMM_NEW, VMM_OLD, ControlError, MachineTest

LOAD = "mem_set=32M mem_rate=20000 disk=journal disk_qd=4 disk_pattern=random disk_flush=16 disk_rate=300 report_ms=200"


def check_log(test, console):
    """Beacon's lines are all there, once each, with good checksums."""
    tool = vmm_harness.ROOT / "guests/beacon/tools/beacon_log.py"
    result = subprocess.run([sys.executable, str(tool)], input=console.raw, capture_output=True, check=False)
    test.assertEqual(result.returncode, 0, result.stdout.decode() + result.stderr.decode())


class ExchangeBase(MachineTest):
    def begin(self, load=LOAD, environment=None, **more):
        disk = self.disk()
        self.image = disk
        vmm = self.start(self.document(load, disks=[disk], **more), environment=environment)
        console = self.console()
        console.read_until("populated")
        console.read_until("report")
        return vmm, console

    def finish(self, vmm, console):
        """The guest checks everything it has, powers off, and was content throughout."""
        final = None
        start = console.lines()
        console.type("stop")
        final, _ = console.read_until("final", 60, start)
        self.assertTrue(final["ok"], final)
        self.assertEqual(final["errors"], 0)
        self.assertGreater(final["pages_verified"], 0)
        self.assertGreater(final["blocks_verified"], 0)
        self.assertEqual(vmm.wait_end(), 0)
        console.drain()
        check_log(self, console)


class ExchangeTest(ExchangeBase):
    def test_ten_exchanges_lose_nothing(self):
        vmm, console = self.begin()
        builds = set()
        for round_number in range(10):
            program = VMM_NEW if round_number % 2 == 0 else VMM_OLD
            report, successor = self.exchange(vmm, program)
            self.assertEqual(report["outcome"], "done", report)
            self.assertEqual(report["guest_bytes_copied"], 0)
            self.assertEqual(report["epochs"], [round_number + 1, round_number + 2])
            self.assertNotEqual(report["build_ids"][0], report["build_ids"][1])
            builds.update(report["build_ids"])
            self.assertGreater(report["blackout_us"], 0)
            self.assertLess(report["blackout_us"], 500_000)
            self.assertGreater(report["frames_sampled"], 0)
            self.assertEqual(report["frames_identical"], report["frames_sampled"])
            self.assertEqual(vmm.wait_end(), 0)
            vmm = successor
            console.read_until("report", 30, console.lines())
        self.assertEqual(len(builds), 2)
        self.finish(vmm, console)

    def test_paused_machine_stays_paused_at_the_successor(self):
        vmm, console = self.begin()
        vmm.call("pause")
        report, successor = self.exchange(vmm)
        self.assertEqual((report["outcome"], report["blackout_us"]), ("done", -1), report)
        self.assertEqual(successor.call("status")["state"], "paused")
        successor.call("resume")
        console.read_until("report", 30, console.lines())
        self.finish(successor, console)

    def test_devices_go_ahead_or_change_in_between(self):
        """Loaded before the pause; once more in it, by a successor that has to give up what it had loaded."""
        vmm, console = self.begin(environment={"GODWIT_FAULT": "exchange.source.devices:changed"})
        for ahead in (False, True, True):
            report, successor = self.exchange(vmm)
            self.assertEqual((report["outcome"], report["devices_ahead"]), ("done", ahead), report)
            self.assertEqual(vmm.wait_end(), 0)
            vmm = successor
            console.read_until("report", 30, console.lines())
        self.finish(vmm, console)

    def test_memory_is_fetched_before_or_after_the_switch(self):
        """HR-5: late has it mapped before the pause; early on demand, and the rest behind the guest."""
        vmm, console = self.begin()
        for timing in ("late", "early"):
            report, successor = self.exchange(vmm, timing=timing)
            self.assertEqual((report["outcome"], report["timing"]), ("done", timing), report)
            mapped = {"late": "warmed_bytes", "early": "fetched_bytes"}
            other = mapped["early" if timing == "late" else "late"]
            self.assertGreater(report[mapped[timing]], 16 << 20, report)
            self.assertEqual(report[other], 0, report)
            self.assertEqual(report["demand_faults"] > 0, timing == "early", report)
            self.assertEqual(report["frames_identical"], report["frames_sampled"])
            self.assertEqual(vmm.wait_end(), 0)
            vmm = successor
            console.read_until("report", 30, console.lines())
        self.finish(vmm, console)

    def test_source_stays_until_the_last_fetch(self):
        """HR-5: the guest runs at the successor, and nobody ends the old process before it has everything."""
        vmm, console = self.begin()
        successor, end = self.successor(environment={"GODWIT_FAULT": "exchange.destination.fetch:hang"})
        with end:
            vmm.send("exchange", [end.fileno()], deadline_ms=3000, timing="early")
        while successor.call("status")["role"] != "owner":
            console.read_until("report", 30, console.lines())
        console.read_until("report", 30, console.lines())
        self.assertEqual(vmm.call("status")["job"], "exchange")

    def test_unknown_timing_is_refused(self):
        vmm, console = self.begin()
        _, end = self.successor()
        with end:
            with self.assertRaises(ControlError) as refused:
                vmm.wait_for(vmm.send("exchange", [end.fileno()], timing="sometimes"))
        self.assertEqual(refused.exception.code, "invalid_argument")
        self.finish(vmm, console)

    def test_info_and_status_tell_who_owns(self):
        vmm, console = self.begin()
        report, successor = self.exchange(vmm)
        status = successor.call("status")
        self.assertEqual(status["role"], "owner")
        self.assertEqual(status["state"], "running")
        self.assertEqual(status["epoch"], report["epochs"][1])
        info = successor.call("info")
        self.assertEqual(info["spec"]["vcpus"], 2)
        self.finish(successor, console)


class FaultTest(ExchangeBase):
    """Killed or hanging at every named step: the guest runs on in exactly one place, or stands frozen."""

    def survives(self, environment, deadline_ms=1500):
        vmm, console = self.begin()
        report, successor = self.exchange(vmm, environment=environment, deadline_ms=deadline_ms)
        self.assertEqual(report["outcome"], "rolled_back", report)
        self.assertTrue(report["reason"])
        self.assertEqual(vmm.call("status")["state"], "running")
        self.assertEqual(vmm.call("status")["role"], "owner")
        if "hang" not in environment["GODWIT_FAULT"]:
            self.assertNotEqual(successor.wait_end(), 0)
        successor.kill()
        console.read_until("report", 30, console.lines())
        # And it can still be exchanged afterwards.
        report, successor = self.exchange(vmm)
        self.assertEqual(report["outcome"], "done", report)
        self.finish(successor, console)

    def test_successor_killed_at_hello(self):
        self.survives({"GODWIT_FAULT": "exchange.destination.hello:kill"})

    def test_successor_killed_while_building(self):
        self.survives({"GODWIT_FAULT": "exchange.destination.build:kill"})

    def test_successor_killed_when_prepared(self):
        self.survives({"GODWIT_FAULT": "exchange.destination.prepared:kill"})

    def test_successor_killed_while_loading(self):
        self.survives({"GODWIT_FAULT": "exchange.destination.load:kill"})

    def test_successor_killed_before_its_claim(self):
        self.survives({"GODWIT_FAULT": "exchange.destination.claim:kill"})

    def test_successor_hanging_when_prepared(self):
        self.survives({"GODWIT_FAULT": "exchange.destination.prepared:hang"})

    def test_successor_hanging_after_its_claim_keeps_the_state_here(self):
        vmm, _ = self.begin()
        report, successor = self.exchange(
            vmm, environment={"GODWIT_FAULT": "exchange.destination.claimed:hang"}, deadline_ms=1000)
        self.assertEqual(report["outcome"], "failed_after_commit", report)
        self.assertTrue(successor.alive())
        status = vmm.call("status")
        self.assertEqual((status["role"], status["state"]), ("retired", "frozen"))
        successor.kill()
        self.assertEqual(vmm.call("status")["state"], "frozen")

    def test_guest_that_powers_off_during_an_exchange_ends_it(self):
        vmm = self.start(self.document("mem_set=1M report_ms=100"))
        console = self.console()
        console.read_until("populated")
        successor, end = self.successor(environment={"GODWIT_FAULT": "exchange.destination.build:hang"})
        with end:
            identity = vmm.send("exchange", [end.fileno()])
        vmm.call("status")
        console.type("stop")  # exit=acpi: it powers off while the exchange waits
        console.read_until("final", 30)
        successor.kill()
        self.assertEqual(vmm.wait_for(identity)["outcome"], "rolled_back")
        self.assertEqual(vmm.wait_end(), 0)

    def test_successor_that_lies_about_its_claim_is_not_believed(self):
        vmm, console = self.begin()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            # Hello {protocol 1, instance 5}; Prepared; Running {epoch 2, claimed 1, entered 1}, as protobuf.
            theirs.send(bytes([0x0A, 4, 0x08, 1, 0x10, 5]))
            theirs.send(bytes([0x1A, 0]))
            theirs.send(bytes([0x2A, 6, 0x08, 2, 0x10, 1, 0x18, 1]))
            report = vmm.wait_for(vmm.send("exchange", [ours.fileno()]))
        self.assertEqual((report["outcome"], report["error_code"]), ("rolled_back", "corrupt"), report)
        self.assertEqual(report["epochs"], [1, 2])
        console.read_until("report", 30, console.lines())
        self.finish(vmm, console)

    def test_successor_hanging_while_loading(self):
        self.survives({"GODWIT_FAULT": "exchange.destination.load:hang"})

    def test_successor_hanging_before_its_claim_never_runs_later(self):
        vmm, console = self.begin()
        report, successor = self.exchange(
            vmm, environment={"GODWIT_FAULT": "exchange.destination.claim:hang"}, deadline_ms=500)
        self.assertEqual(report["outcome"], "rolled_back", report)
        self.assertEqual(report["epochs"][1], report["epochs"][0] + 1)
        console.read_until("report", 30, console.lines())
        successor.kill()
        self.finish(vmm, console)

    def test_successor_killed_after_its_claim_leaves_a_frozen_machine(self):
        vmm, _ = self.begin()
        report, successor = self.exchange(
            vmm, environment={"GODWIT_FAULT": "exchange.destination.claimed:kill"}, deadline_ms=1500)
        self.assertEqual(report["outcome"], "failed_after_commit", report)
        successor.wait_end()
        status = vmm.call("status")
        self.assertEqual((status["role"], status["state"]), ("retired", "frozen"))

    def test_source_killed_at_each_step(self):
        """Before the offer nobody may run the guest afterwards; after it the successor does."""
        for step in range(1, 11):
            with self.subTest(step=step):
                disk = self.disk(f"disk{step}.raw")
                name = f"k{step}"
                vmm = self.start(self.document(LOAD, name=name, disks=[disk]),
                                 environment={"GODWIT_FAULT": f"handover.source.{step}:kill"})
                console = self.console(name)
                console.read_until("populated")
                successor, end = self.successor(name)
                with end:
                    vmm.send("exchange", [end.fileno()], deadline_ms=1500)
                self.assertEqual(vmm.wait_end(), -signal.SIGKILL)
                if step <= 8:  # 8 is reached before the offer is sent.
                    self.assertNotEqual(successor.wait_end(), 0)
                else:
                    console.read_until("report", 30, console.lines())
                    self.assertEqual(successor.call("status")["role"], "owner")
                    console.type("stop")
                    final, _ = console.read_until("final", 60)
                    self.assertTrue(final["ok"], final)
                    self.assertEqual(successor.wait_end(), 0)


class BadPeerTest(ExchangeBase):
    def test_successor_that_is_not_there(self):
        vmm, console = self.begin()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        with ours:
            report = vmm.wait_for(vmm.send("exchange", [ours.fileno()]))
        self.assertEqual(report["outcome"], "rolled_back")
        self.assertEqual(report["side"], "destination")
        self.finish(vmm, console)

    def test_successor_that_talks_garbage(self):
        vmm, console = self.begin()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.send(b"\xff" * 100)
        with ours, theirs:
            report = vmm.wait_for(vmm.send("exchange", [ours.fileno()]))
        self.assertEqual(report["outcome"], "rolled_back")
        self.assertEqual(report["error_code"], "corrupt")
        self.finish(vmm, console)

    def test_exchange_without_a_descriptor_is_refused(self):
        vmm, console = self.begin()
        with self.assertRaises(ControlError) as caught:
            vmm.call("exchange")
        self.assertEqual(caught.exception.code, "invalid_argument")
        self.finish(vmm, console)

    def test_garbage_on_the_control_socket_is_answered(self):
        vmm, console = self.begin()
        for garbage in (b"\x00\x01", b"[]", b"{}", b'{"method":5}', b'{"id":1,"method":"status","params":7}',
                        b"{" * 1000):
            vmm.socket.send(garbage)
            self.assertIn(b'"error"', vmm.socket.recv(65536))
        self.finish(vmm, console)


if __name__ == "__main__":
    unittest.main()
