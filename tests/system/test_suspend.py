"""Exchange in suspend mode: godwitd and all its VMMs are replaced while the machines lie in memory."""

import json
import os
import signal
import socket
import subprocess
import threading
import unittest

from suspend_host import BIN, SuspendHost, cmdline, storage_bytes


class WholeHost(SuspendHost):
    def test_three_rounds_up_and_down_lose_nothing(self):
        """HE-2, HE-3, HE-7, HE-9: four machines, disk and consoles busy; both builds in turn."""
        self.start_daemon()
        self.run_machines(4)
        daemon = self.daemon.pid
        epoch = 1
        before = self.shared_memory_kib()
        builds = set()
        for place in (self.new, self.old, self.new):
            old_vmms = {machine["vmm"]["pid"] for machine in self.machines().values()}
            report = self.suspend(place)
            self.assertEqual((report["outcome"], report["daemon_replaced"]), ("done", True), report)
            self.assertNotEqual(*report["daemon_build_ids"])
            builds.add(report["daemon_build_ids"][1])
            self.assertEqual(len(report["machines"]), 4)
            for machine in report["machines"]:
                self.assertEqual(machine["outcome"], "done", machine)
                self.assertEqual(machine["epochs"], [epoch, epoch + 2], machine)
                self.assertNotEqual(*machine["build_ids"])
                self.assertEqual(machine["guest_bytes_copied"], 0)
                self.assertEqual(machine["frames_identical"], machine["frames_sampled"], machine)
                self.assertGreater(machine["frames_sampled"], 0, "pagemap needs CAP_SYS_ADMIN")
                self.assertGreater(machine["blackout_us"], 0)
                self.assertLess(machine["blackout_us"], 2_000_000)
            epoch += 2
            self.assertIn(str(place), cmdline(daemon), "godwitd is the new one, under the same number")
            self.assertFalse(old_vmms & set(self.processes("--incoming-fd")))
            self.assertEqual(self.processes("godwit-keeper"), [])
            self.assertEqual(set(self.settled().values()), {"running"})
            for name in self.consoles:
                self.runs(name)
        self.assertEqual(len(builds), 2)
        self.assertGreater(before, 4 * 16 * 1024)
        self.assertLessEqual(abs(self.shared_memory_kib() - before), before // 100)
        for name in self.consoles:
            self.content(name)
        self.wait_for(lambda: not self.machines(), "machines stay")

    def test_guest_memory_does_not_touch_storage(self):
        """HE-1: counted in the old VMM and its keeper while they hold the machine, and in the rest afterwards."""
        self.start_daemon("handover.source.10:hang")
        self.run_machines(2, "mem_set=128M mem_rate=4000 report_ms=200", memory=192, disks=False)
        holders = []

        def look():
            holders[:] = [pid for pid in self.processes("--spec") + self.processes("godwit-keeper")]
            return all(m["state"] == "frozen" for m in self.machines().values())

        report = {}
        exchange = threading.Thread(target=lambda: report.update(self.suspend(self.new, "--concurrency", "2")))
        exchange.start()
        self.wait_for(look, "never frozen")
        self.assertEqual(len(holders), 6, "per machine the old VMM, a keeper and its guard")
        moved = sum(storage_bytes(pid) for pid in holders)
        exchange.join()
        self.assertEqual(report["outcome"], "done", report)
        moved += sum(storage_bytes(pid) for pid in self.processes("--incoming-fd")) + storage_bytes(self.daemon.pid)
        self.assertLess(moved, 8 << 20, "programs, logs and reports, but not 2 x 192 MiB")
        for name in self.consoles:
            self.content(name)

    def test_host_without_machines_gets_its_new_godwitd(self):
        self.start_daemon()
        report = self.suspend(self.new)
        self.assertEqual((report["outcome"], report["daemon_replaced"], report["machines"]), ("done", True, []), report)
        self.assertIn(str(self.new), cmdline(self.daemon.pid))
        self.assertEqual(self.machines(), {})

    def test_one_machine_alone_keeps_godwitd(self):
        self.start_daemon()
        self.run_machines(2)
        other = self.machines()["m2"]["vmm"]["pid"]
        report = json.loads(self.godwit("exchange", "m1", "--mode", "suspend", "--to", str(self.new), "--json").stdout)
        self.assertEqual((report["outcome"], report["daemon_replaced"]), ("done", False), report)
        self.assertEqual(self.machines()["m2"]["vmm"]["pid"], other)
        self.runs("m1")
        self.content("m1")
        self.content("m2")

    def test_paused_machine_stays_paused(self):
        self.start_daemon()
        self.run_machines(1)
        self.godwit("pause", "m1")
        report = self.suspend(self.new)
        self.assertEqual((report["outcome"], report["machines"][0]["blackout_us"]), ("done", -1), report)
        self.assertEqual(self.settled(), {"m1": "paused"})
        self.godwit("resume", "m1")
        self.runs("m1")
        self.content("m1")


class Independent(SuspendHost):
    def test_machine_that_cannot_be_loaded_stays_frozen_and_is_recovered(self):
        """HE-5: the new VMM of one machine dies over its record; the others run, that one later too."""
        self.start_daemon()
        self.run_machines(3)
        place, flag = self.faulty("c", "m2", "exchange.destination.load:kill")
        report = self.suspend(place, code=3)
        self.assertEqual(report["outcome"], "partial", report)
        self.assertEqual([m["outcome"] for m in report["machines"]], ["done", "frozen", "done"], report)
        self.assertEqual(self.settled(), {"m1": "running", "m2": "frozen", "m3": "running"})
        self.runs("m1")
        self.runs("m3")
        plan = self.godwit("exchange", "--all", "--mode", "suspend", "--to", str(place), "--dry-run", code=1)
        self.assertIn("it is frozen", plan.stdout)
        self.godwit("recover", "m2", code=1)  # Its VMM still cannot.
        self.assertEqual(self.settled()["m2"], "frozen")
        flag.unlink()
        self.godwit("recover", "m2")
        for name in self.consoles:
            self.runs(name)
            self.content(name)
        self.wait_for(lambda: not self.processes("godwit-keeper"), "a keeper is left")

    def test_refused_request_leaves_the_one_under_way_its_answer(self):
        """A keeper is asked for an exchange while one is under way that is going to fail."""
        self.start_daemon()
        self.run_machines(1)
        place, _ = self.faulty("c", "m1", "exchange.destination.load:kill")
        self.suspend(place, code=3)
        slow, _ = self.faulty("d", "m1", "exchange.destination.build:hang")
        command = [BIN / "godwit", "exchange", "m1", "--to", str(slow), "--prepare-ms", "5000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=self.environment()) as client:
            self.wait_for(lambda: self.reached("exchange.destination.build"), "the new VMM does not build")
            keepers = [cmdline(pid).split() for pid in self.processes("godwit-keeper")]
            instance, = (words[words.index("--instance") + 1] for words in keepers if "--guard" not in words)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control, ours, theirs:
                control.connect(str(self.directory / f"machines/m1/vmm-{instance}.sock"))
                socket.send_fds(control, [json.dumps({"id": 1, "method": "exchange", "params": {}}).encode()],
                                [theirs.fileno()])
                self.assertEqual(json.loads(control.recv(65536))["error"]["code"], "conflict")
            for pid in self.processes(str(slow)) + self.processes("--incoming-fd"):
                if "godwit-vmm" in cmdline(pid):
                    os.kill(pid, signal.SIGKILL)
            out, _ = client.communicate(timeout=20)  # Without its answer: after 40 s.
        self.assertEqual(client.returncode, 1, out)
        self.godwit("exchange", "m1", "--to", str(self.new))
        self.runs("m1")
        self.content("m1")

    def test_frozen_machine_can_be_given_up(self):
        self.start_daemon()
        self.run_machines(1)
        place, _ = self.faulty("c", "m1", "exchange.destination.load:kill")
        self.suspend(place, code=3)
        self.assertEqual(self.settled(), {"m1": "frozen"})
        self.godwit("stop", "m1", "--force")
        self.wait_for(lambda: not self.machines() and not self.processes("godwit-keeper"), "something is left")


class Refused(SuspendHost):
    def unchanged(self, before):
        self.wait_for(lambda: len(self.processes("--incoming-fd")) == 0, "processes are left")
        self.assertEqual({n: m["vmm"]["pid"] for n, m in self.machines().items()}, before)
        self.assertEqual(set(self.settled().values()), {"running"})
        for name in self.consoles:
            self.runs(name)

    def pids(self):
        return {name: machine["vmm"]["pid"] for name, machine in self.machines().items()}

    def test_every_blocker_of_every_machine_is_told_before_anything_pauses(self):
        """HE-8: two machines whose RAM cannot change hands, one good one."""
        self.start_daemon()
        self.run_machines(1, "mem_set=4M report_ms=200", disks=False)
        for name in ("p1", "p2"):
            self.godwit("snapshot", "m1", str(self.directory / name))
            self.godwit("restore", str(self.directory / name), "--name", name, code=None)
        before = self.pids()
        self.assertEqual(len(before), 3, before)
        self.directory.joinpath("history.jsonl").unlink(missing_ok=True)
        report = self.suspend(self.new, code=1)
        self.assertEqual(report["outcome"], "rolled_back")
        text = "\n".join(report["blockers"])
        self.assertIn("'p1'", text)
        self.assertIn("'p2'", text)
        self.assertIn("--copy-ram", text)
        self.assertNotIn("pause", report["phases_us"])
        self.unchanged(before)

    def test_installation_without_a_working_godwitd(self):
        self.start_daemon()
        self.run_machines(1)
        before = self.pids()
        broken = self.installation("d", "godwitd-next", "godwit-vmm-next")
        (broken / "bin/godwitd").unlink()
        (broken / "bin/godwitd").symlink_to("/bin/false")
        report = self.suspend(broken, code=1)
        self.assertIn("does not start", "\n".join(report["blockers"]))
        self.unchanged(before)

    def test_plan_says_what_a_run_would_do(self):
        self.start_daemon()
        self.run_machines(1)
        before = self.pids()
        way = ["exchange", "--all", "--mode", "suspend"]
        for flags in (["--order", "name"], ["--keep-going"], ["--again"]):
            self.assertIn("does not go with --mode suspend", self.godwit(*way, *flags, code=2).stderr)
        plan = json.loads(self.godwit(*way, "--to", str(self.old), "--dry-run", "--json").stdout)
        self.assertEqual([machine["action"] for machine in plan["machines"]], ["exchange"], plan)
        alone = self.installation("d", "godwitd-next", "godwit-vmm-next")
        (alone / "bin/godwitd").unlink()
        self.assertIn("bin/godwitd", self.godwit(*way, "--to", str(alone), "--dry-run", code=1).stdout)
        self.unchanged(before)
        program = self.new / "bin/godwit-vmm"
        self.godwit(*way, "--to", str(program), "--dry-run")
        self.assertEqual(self.suspend(program)["outcome"], "done")
        self.runs("m1")
        self.content("m1")

    def test_abort_while_all_is_held_restores_all(self):
        """HE-6: a keeper hangs before it holds its machine; the others give back, nothing is left."""
        self.start_daemon("keeper.7:hang")
        self.run_machines(3)
        before = self.pids()
        memory = self.shared_memory_kib()
        report = self.suspend(self.new, "--deadline-ms", "800", "--concurrency", "3", code=1)
        self.assertEqual(report["outcome"], "rolled_back", report)
        for pid in self.processes("godwit-keeper"):  # Hanging on purpose.
            os.kill(pid, signal.SIGKILL)
        self.unchanged(before)
        self.assertLessEqual(abs(self.shared_memory_kib() - memory), memory // 100)
        for name in self.consoles:
            self.content(name)

    def test_machines_go_one_after_the_other_and_one_that_fails_stays(self):
        """HE-5: the second of three cannot be held when the first runs in its new VMM already."""
        place, _ = self.faulty("f", "m2", "handover.source.5:hang", base="godwit-vmm")
        self.start_daemon(place=place)
        self.run_machines(3)
        before = self.pids()
        report = self.suspend(self.old, "--deadline-ms", "800", "--concurrency", "1", code=None)
        self.assertEqual((report["outcome"], report["counts"]), ("partial", {"done": 2, "rolled_back": 1}), report)
        self.assertEqual([(machine["machine"], machine["outcome"]) for machine in report["machines"]],
                         [("m1", "done"), ("m2", "rolled_back"), ("m3", "done")])
        self.assertIn("m2 is rolled_back: ", report["reason"])
        self.assertIn("within 800 ms", report["reason"])
        self.assertEqual({name for name, pid in self.pids().items() if pid == before[name]}, {"m2"})
        self.assertEqual(self.machines()["m2"]["state"], "running")  # Whose exchange hangs on purpose.
        for name in ("m1", "m3"):
            self.runs(name)
            self.content(name)

    def test_new_godwitd_that_does_not_understand_its_arguments(self):
        self.start_daemon()
        self.run_machines(1)
        before = self.pids()
        picky = self.installation("d", "godwitd-next", "godwit-vmm-next")
        program = picky / "bin/godwitd"
        program.unlink()
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\nexec {BIN / "godwitd-next"} "$@" --no-such\n')
        program.chmod(0o755)
        report = self.suspend(picky, code=1)
        self.assertIn("does not start", "\n".join(report["blockers"]))
        self.unchanged(before)

    def test_godwitd_that_knows_no_check_is_asked_for_its_version(self):
        self.start_daemon()
        self.run_machines(1)
        older = self.installation("d", "godwitd-next", "godwit-vmm-next")
        program = older / "bin/godwitd"
        program.unlink()
        program.write_text(f'#!/bin/sh\n[ "$1" = --check ] && exit 109\nexec {BIN / "godwitd-next"} "$@"\n')
        program.chmod(0o755)
        self.assertEqual(self.suspend(older)["outcome"], "done")
        self.runs("m1")
        self.content("m1")

    def test_new_vmm_of_one_machine_that_does_not_start_stops_all(self):
        self.start_daemon()
        self.run_machines(2)
        before = self.pids()
        place, _ = self.faulty("c", "m1", "exchange.destination.build:kill")
        report = self.suspend(place, code=1)
        self.assertEqual(report["outcome"], "rolled_back", report)
        self.unchanged(before)
        self.assertEqual(self.suspend(self.new)["outcome"], "done")


if __name__ == "__main__":
    unittest.main()
