"""The whole host on /dev/kvm: godwit, godwitd and real godwit-vmm processes with beacon as the guest."""

import json
import os
import select
import signal
import subprocess
import time
import unittest

from host_fixture import BIN, PATIENCE_S, HostTest, alive

LOAD = "mem_set=8M mem_rate=2000 report_ms=200"


class Machine(HostTest):
    def setUp(self):
        super().setUp()
        self.environment["GODWIT_VMM"] = str(BIN / "godwit-vmm")
        self.console = None

    def clean(self):
        if self.console is not None:
            self.console.kill()
            self.console.communicate()
        super().clean()

    def boot(self, name="b1", *more):
        self.godwit("run", name, "--kernel", str(BIN / "beacon"), "--memory", "64M", "--cmdline", LOAD, *more)

    def attach(self, name="b1"):
        self.console = subprocess.Popen([BIN / "godwit", "console", name], env=self.environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read_until(self, event):
        for line in self.console.stdout:
            if f'"event":"{event}"' in line:
                return json.loads(line)
        return self.fail(f"the console ended without '{event}'")

    def finish(self):
        """The guest checks all it has, says so and powers off; the console ends by itself."""
        self.console.stdin.write("stop\n")
        self.console.stdin.flush()
        final = self.read_until("final")
        self.assertTrue(final["ok"], final)
        self.assertEqual(final["errors"], 0)
        self.assertGreater(final["pages_verified"], 0)
        self.console.stdin.close()
        self.assertEqual(self.console.wait(PATIENCE_S), 0)
        self.console.stdout.close()
        self.console = None
        self.assertEqual(json.loads(self.godwit("ps", "--json").stdout), {"machines": []})
        self.assert_nothing_left()

    def test_exchanges_under_an_attached_console(self):
        self.environment["GODWIT_SERVICE_PARTITION"] = "prefer"
        self.boot()
        self.attach()
        self.read_until("report")
        for program in ("godwit-vmm-next", "godwit-vmm"):
            report = json.loads(self.godwit("exchange", "b1", "--to", str(BIN / program), "--json").stdout)
            self.assertEqual((report["outcome"], report["guest_bytes_copied"]), ("done", 0), report)
            self.assertNotEqual(*report["build_ids"])
            self.read_until("report")
            self.assertEqual(len(self.vmm_pids()), 1)
        self.finish()

    def test_successor_that_is_no_vmm_changes_nothing(self):
        self.boot()
        self.attach()
        self.godwit("exchange", "b1", "--to", "/bin/true", code=1)
        self.godwit("exchange", "b1", "--to", str(self.fake("hang-on-offer")), "--deadline-ms", "500", code=1)
        self.read_until("report")
        self.assertEqual(len(self.vmm_pids()), 1)
        self.finish()

    def successor_with(self, fault):
        """A program that is the new VMM but for a fault."""
        path = self.root / ("vmm-" + fault.replace(":", "-"))
        path.write_text(f'#!/bin/sh\nGODWIT_FAULT={fault} exec {BIN / "godwit-vmm-next"} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def exchange_frozen(self, fault):
        """An exchange whose successor fails after its claim; nobody runs the guest afterwards."""
        self.boot()
        self.attach()
        self.read_until("report")
        report = json.loads(self.godwit("exchange", "b1", "--to", self.successor_with(fault), "--deadline-ms", "700",
                                        "--json", code=3).stdout)
        self.assertEqual(report["outcome"], "failed_after_commit", report)
        self.assertEqual(self.machine("b1")["state"], "frozen")

    def recover(self, outcome, code=0):
        report = json.loads(self.godwit("recover", "b1", "--json", code=code).stdout)
        self.assertEqual((report["operation"], report["outcome"]), ("recover", outcome), report)
        self.assertTrue(report["found"] and report["done"], report)
        return report

    def assert_recovered(self):
        """The guest goes on under the same console, can be exchanged and has lost nothing."""
        self.read_until("report")
        self.assertEqual(self.machine("b1")["state"], "running")
        self.assertEqual(len(self.vmm_pids()), 1)
        self.godwit("exchange", "b1", "--to", str(BIN / "godwit-vmm-next"))
        self.read_until("report")
        self.assertIn("not_needed", self.godwit("recover", "b1").stdout)
        self.finish()

    def test_recover_after_the_successor_died_with_its_claim(self):
        self.exchange_frozen("exchange.destination.claimed:kill")
        report = self.recover("rolled_back")
        self.assertEqual(report["epochs"], [2, 3])
        self.assert_recovered()

    def test_recover_while_the_successor_hangs_with_its_claim(self):
        self.exchange_frozen("exchange.destination.claimed:hang")
        self.assertEqual(len(self.vmm_pids()), 2)
        self.recover("rolled_back")
        self.assert_recovered()

    def test_recover_by_a_new_daemon(self):
        self.exchange_frozen("exchange.destination.claimed:hang")
        os.kill(self.ask("GET", "/api/v1/version")[1]["pid"], signal.SIGKILL)
        machines = json.loads(self.godwit("ps", "--json").stdout)["machines"]
        self.assertEqual(machines[0]["state"], "frozen")
        self.recover("rolled_back")
        self.assert_recovered()

    def test_recover_whose_source_dies_ends_with_the_machine(self):
        for fault in ("vmm.reclaim:kill", "vmm.reclaimed:kill"):
            with self.subTest(fault=fault):
                self.environment["GODWIT_FAULT"] = fault
                self.exchange_frozen("exchange.destination.claimed:kill")
                report = json.loads(self.godwit("recover", "b1", "--json", code=None).stdout)
                self.assertIn(report["outcome"], ("unchanged", "lost"))
                self.wait_event("stopped", machine="b1")
                self.assert_nothing_left()
                self.console.communicate()
                self.console = None
                daemon = self.ask("GET", "/api/v1/version")[1]["pid"]
                os.kill(daemon, signal.SIGTERM)
                end = time.monotonic() + PATIENCE_S
                while alive(daemon) and time.monotonic() < end:
                    time.sleep(0.02)

    def test_successor_that_may_have_run_is_never_rolled_back(self):
        self.exchange_frozen("exchange.destination.running:kill")
        report = self.recover("lost", code=3)
        self.assertEqual(report["owners"][0], report["owners"][1])
        self.assertEqual(self.machine("b1")["state"], "frozen")
        self.godwit("stop", "b1", "--force")
        self.assert_nothing_left()

    def test_source_that_dies_after_its_offer_and_a_late_claim(self):
        """The successor hangs before its claim: it is killed after the offer is taken back, and nobody runs."""
        self.environment["GODWIT_FAULT"] = "handover.source.9:kill"
        self.boot()
        report = json.loads(self.godwit("exchange", "b1", "--to", self.successor_with("exchange.destination.claim:hang"),
                                        "--json", code=3).stdout)
        self.assertEqual(report["outcome"], "lost", report)
        self.assert_nothing_left()

    def test_source_that_dies_after_its_offer_leaves_the_guest_to_its_successor(self):
        self.environment["GODWIT_FAULT"] = "handover.source.9:kill"
        self.boot()
        self.attach()
        self.read_until("report")
        report = json.loads(self.godwit("exchange", "b1", "--to", self.successor_with("none:kill"), "--json",
                                        code=3).stdout)
        self.assertEqual(report["outcome"], "failed_after_commit", report)
        self.read_until("report")
        self.assertEqual(self.machine("b1")["state"], "running")
        self.finish()

    def test_killed_daemon_changes_nothing(self):
        self.boot()
        self.attach()
        self.read_until("report")
        daemon = os.pidfd_open(self.ask("GET", "/api/v1/version")[1]["pid"])
        signal.pidfd_send_signal(daemon, signal.SIGKILL)
        select.select([daemon], [], [])  # Until then it may still take a connection.
        os.close(daemon)
        self.assertEqual(json.loads(self.godwit("ps", "--json").stdout)["machines"][0]["state"], "running")
        self.godwit("exchange", "b1")
        self.read_until("report")
        self.finish()

    def test_snapshot_and_restored_copy(self):
        self.boot()
        self.attach()
        self.read_until("report")
        self.godwit("snapshot", "b1", str(self.root / "shot"))
        self.finish()
        self.godwit("restore", str(self.root / "shot"), "--name", "b2", "--copy-ram")
        self.attach("b2")
        self.read_until("report")
        self.godwit("exchange", "b2")
        self.read_until("report")
        self.finish()

    def test_refusals_of_the_vmm_come_through(self):
        missing = self.godwit("run", "b1", "--kernel", "/missing/kernel", code=1).stderr
        self.assertIn("/missing/kernel", missing)
        disk = self.godwit("run", "b1", "--kernel", str(BIN / "beacon"), "--disk", "/missing/disk", code=1).stderr
        self.assertIn("/missing/disk", disk)
        tap = self.godwit("run", "b1", "--kernel", str(BIN / "beacon"), "--net", "tap=nosuchtap", code=1).stderr
        self.assertIn("nosuchtap", tap)
        self.godwit("run", "b1", "--kernel", str(BIN / "beacon"), "--memory", "1M", code=2)
        self.assert_nothing_left()

    def test_guest_without_a_power_button_is_stopped_by_force(self):
        self.boot()
        self.assertIn("still runs", self.godwit("stop", "b1", "--timeout", "1", code=1).stderr)
        self.godwit("stop", "b1", "--force")
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
