"""The partitioned exchange on real processes: a second godwitd beside the first, machines that move to it by
pointers under memory load, and everything that can go wrong before the estate is sealed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "control"))
from host_fixture import BIN, PATIENCE_S, HostTest, alive, processes_with  # noqa: E402
from vmm_harness import Console  # noqa: E402

LOAD = "mem_set=16M mem_rate=20000 report_ms=100"
POOL_FRAMES = 256
CPUS = sorted(os.sched_getaffinity(0))


def cpu_groups():
    return set(pathlib.Path("/sys/fs/cgroup/cpuset").glob("godwit-[0-9]*"))


class PartitionBase(HostTest):
    """A host with a pool, a new installation beside it, and guests that check themselves."""

    def setUp(self):
        super().setUp()
        self.assertGreater(len(CPUS), 1, "two CPUs are needed to divide a host")
        self.environment["GODWIT_VMM"] = str(BIN / "godwit-vmm")
        self.consoles = {}
        self.groups_before = cpu_groups()
        self.prefix = self.root / "new"
        (self.prefix / "bin").mkdir(parents=True)
        (self.prefix / "bin/godwitd").symlink_to(BIN / "godwitd")
        (self.prefix / "bin/godwit-vmm").symlink_to(BIN / "godwit-vmm-next")

    def stop_daemon(self):
        # In the end the first godwitd has left and the second one serves.
        daemon, self.daemon = self.daemon, None
        daemon.kill()
        daemon.wait(PATIENCE_S)

    def clean(self):
        for console in self.consoles.values():
            console.socket.close()
        super().clean()
        for group in cpu_groups() - self.groups_before:  # Of godwitds that were killed, both.
            try:
                group.rmdir()
            except OSError:
                pass

    def boot(self, *names, memory="64M,pool"):
        for name in names:
            self.godwit("run", name, "--kernel", str(BIN / "beacon"), "--memory", memory, "--cmdline", LOAD)
            self.consoles[name] = Console(self.run_dir / "machines" / name / "console-serial.sock")
            self.consoles[name].read_until("populated")

    def begin(self, *arguments):
        return subprocess.Popen([BIN / "godwit", "exchange", "--all", "--mode", "partition", "--target-cpus",
                                 str(CPUS[-1]), "--to", str(self.prefix), "--json", *arguments],
                                env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def instead_of(self, program, text):
        path = self.prefix / "bin" / program
        path.unlink()
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def hold_the_start_of(self, machine):
        """Its new VMM does not start before let_it_fail(), and not then."""
        gate = self.root / "gate"
        os.mkfifo(gate)
        self.gate = os.open(gate, os.O_RDWR | os.O_CLOEXEC)
        self.addCleanup(os.close, self.gate)
        self.instead_of("godwit-vmm", f'case " $* " in *" --machine {machine} "*) read -r word < {gate}; exit 1;; esac\n'
                                      f'exec {BIN / "godwit-vmm-next"} "$@"')

    def let_it_fail(self):
        os.write(self.gate, b"now\n")

    def heir(self):
        return [pid for pid in processes_with("--join-fd") if pid in processes_with(str(self.run_dir)) and alive(pid)]

    def pool(self):
        pool = self.good("GET", "/api/v1/pool")
        self.assertEqual(sum(extent["frames"] for extent in pool["extents"]), POOL_FRAMES)
        at = 0
        for extent in pool["extents"]:  # Each frame in exactly one extent (MP-3).
            self.assertEqual(extent["first_frame"], at)
            at += extent["frames"]
        return pool

    def owners(self):
        """Who owns the memory of which machine."""
        found = {}
        for extent in self.pool()["extents"]:
            if extent["purpose"] == "machine":
                found.setdefault(extent["machine"], set()).add(extent["owner"])
        return found

    def builds(self):
        return {machine["name"]: machine["vmm"]["build_id"]
                for machine in self.good("GET", "/api/v1/machines")["machines"]}

    def all_cpus_are_theirs(self):
        machines = self.good("GET", "/api/v1/machines")["machines"]
        for pid in [self.good("GET", "/api/v1/version")["pid"], *(machine["vmm"]["pid"] for machine in machines)]:
            self.assertEqual(os.sched_getaffinity(pid), set(CPUS), pid)
            groups = pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
            self.assertNotIn("/godwit-", groups)  # Nothing is divided any more.

    def guests_are_content(self):
        """Each goes on, checks everything it has, and powers off."""
        for console in self.consoles.values():
            console.read_until("report", start=console.lines())
        for console in self.consoles.values():
            start = console.lines()
            console.type("stop")
            final, _ = console.read_until("final", 60, start)
            self.assertTrue(final["ok"], final)
            self.assertEqual(final["errors"], 0)
            self.assertGreater(final["pages_verified"], 0)
        for name in self.consoles:
            self.wait_event("stopped", machine=name)
        self.assert_nothing_left()
        self.assertEqual(self.pool()["free_bytes"], POOL_FRAMES << 21)


class PartitionTest(PartitionBase):
    # -- it works ----------------------------------------------------------------------------------------------

    def test_machines_move_by_pointers_and_the_new_godwitd_inherits_the_rest(self):
        self.start_daemon("--pool", "512M")
        self.boot("a", "b", "c")
        before, old_pid = self.builds(), self.daemon.pid
        old_owner = self.pool()["instance"]
        samples = []
        ended = threading.Event()

        def sample():
            while not ended.is_set():
                try:
                    samples.append({name: len(owners) == 1 and owners != {old_owner}
                                    for name, owners in self.owners().items()})
                except (OSError, AssertionError) as error:
                    if isinstance(error, AssertionError) and "godwitd ends" not in str(error):
                        samples.append(error)
                    ended.wait(0.01)  # The API changes hands.

        watcher = threading.Thread(target=sample)
        watcher.start()
        command = self.begin()
        out, err = command.communicate(timeout=PATIENCE_S)
        ended.set()
        watcher.join()
        self.assertEqual(command.returncode, 0, (out, err, self.daemon_log()[-6000:]))
        report = json.loads(out)
        self.assertEqual((report["outcome"], report["counts"]["done"]), ("done", 3), report)
        self.assertEqual(self.daemon.wait(PATIENCE_S), 0)
        partition = report["partition"]
        # MP-1: both ran at once before the first machine moved.
        self.assertGreaterEqual(partition["together_us"], 1_000_000)
        self.assertGreaterEqual(min(partition["beats_together"]), 5)
        # MP-2, MP-3: by pointers, and the log proves every change of owner.
        self.assertEqual([(move["machine"], move["frames"]) for move in partition["moves"]],
                         [("a", 32), ("b", 32), ("c", 32)])
        self.assertLessEqual(max(move["extents"] for move in partition["moves"]), 2)
        self.assertGreater(partition["changes_proven"], 6)
        for single in self.good("GET", "/api/v1/reports")["reports"]:
            if single["operation"] == "exchange":
                self.assertEqual(single["guest_bytes_copied"], 0)
                self.assertEqual(single["frames_identical"], single["frames_sampled"])
                self.assertLess(single["blackout_us"], 500_000)
        # MP-4: some machine ran on the new instance while another one was still on the old.
        for sampled in samples:
            self.assertIsInstance(sampled, dict, sampled)
        self.assertTrue(any(len(set(sampled.values())) == 2 for sampled in samples), samples[-5:])
        # MP-5, MP-6: the rest was inherited after the deadline, scrubbed, and all of it is the new one's.
        estate = partition["estate"]
        self.assertGreaterEqual(estate["waited_us"], estate["notice_us"])
        self.assertGreaterEqual(estate["frames_scrubbed"], 1)
        self.assertEqual(len(estate["cpus"]), 1)
        version = self.good("GET", "/api/v1/version")
        self.assertNotEqual(version["pid"], old_pid)
        pool = self.pool()
        self.assertEqual({extent["owner"] for extent in pool["extents"]}, {pool["instance"]})
        self.assertEqual({extent["purpose"] for extent in pool["extents"]}, {"free", "machine"})
        self.all_cpus_are_theirs()
        now = self.builds()
        self.assertEqual((set(now), set(now.values()) & set(before.values())), ({"a", "b", "c"}, set()))
        history = json.loads(self.godwit("exchange", "--history", "--json").stdout)["reports"]
        self.assertEqual((history[-1]["operation"], history[-1]["mode"]), ("exchange-all", "partition"))
        self.guests_are_content()

    def test_a_second_round_goes_back_the_same_way(self):
        self.start_daemon("--pool", "512M")
        self.boot("a")
        for program in ("godwit-vmm-next", "godwit-vmm"):
            (self.prefix / "bin/godwit-vmm").unlink()
            (self.prefix / "bin/godwit-vmm").symlink_to(BIN / program)
            command = self.begin()
            out, err = command.communicate(timeout=PATIENCE_S)
            self.assertEqual(command.returncode, 0, (out, err))
        self.daemon.wait(PATIENCE_S)
        self.boot("b")  # The new godwitd gives memory of the same pool away.
        self.assertEqual(len(self.owners()), 2)
        self.guests_are_content()

    # -- it is given up ----------------------------------------------------------------------------------------

    def given_up(self, command, before, owner):
        """Everything is as it was: all machines run in the old build, their memory is the old instance's."""
        out, err = command.communicate(timeout=PATIENCE_S)
        self.assertEqual(command.returncode, 1, (out, err))
        report = json.loads(out)
        self.assertEqual(report["outcome"], "rolled_back", report)
        self.assertIsNone(self.daemon.poll())
        self.assertEqual(self.builds(), before)
        self.assertEqual(self.heir(), [])
        pool = self.pool()
        self.assertEqual({extent["owner"] for extent in pool["extents"]}, {owner})
        self.assertEqual({extent["purpose"] for extent in pool["extents"]}, {"free", "machine"})
        self.assertEqual(pool["instance"], owner)
        self.all_cpus_are_theirs()
        self.guests_are_content()
        return report

    def begun_until_one_has_moved(self):
        self.start_daemon("--pool", "512M")
        self.boot("a", "b")
        before, owner = self.builds(), self.pool()["instance"]
        self.hold_the_start_of("b")
        command = self.begin()
        self.wait_event("exchange_all", machine="a", outcome="done")
        self.assertNotEqual(self.builds()["a"], before["a"])
        self.assertTrue(self.heir())
        return command, before, owner

    def test_killed_new_godwitd_leaves_all_machines_with_the_old_one(self):
        command, before, owner = self.begun_until_one_has_moved()
        os.kill(min(self.heir()), signal.SIGKILL)  # The other one would be a child that is about to be a VMM.
        self.let_it_fail()
        report = self.given_up(command, before, owner)
        self.assertEqual({machine["outcome"] for machine in report["machines"]}, {"rolled_back"})

    def test_interrupt_brings_all_machines_back(self):
        command, before, owner = self.begun_until_one_has_moved()
        command.send_signal(signal.SIGINT)
        report = self.given_up(command, before, owner)
        self.assertTrue(report["cancelled"])

    def test_machine_that_cannot_move_brings_all_back(self):
        command, before, owner = self.begun_until_one_has_moved()
        self.let_it_fail()
        report = self.given_up(command, before, owner)
        reasons = {machine["machine"]: machine["reason"] for machine in report["machines"]}
        self.assertIn("a machine could not be moved", reasons["a"])
        self.assertIn("ended before it was ready", reasons["b"])

    def test_old_vmm_killed_after_its_successor_runs_brings_all_back(self):
        """The machine belongs to the new VMM and its memory stays with it; it goes back like one that has moved."""
        old = self.root / "old-vmm"
        old.write_text(f'#!/bin/sh\nGODWIT_FAULT=handover.source.9:kill exec {BIN / "godwit-vmm"} "$@"\n')
        old.chmod(0o755)
        self.environment["GODWIT_VMM"] = str(old)
        self.start_daemon("--pool", "512M")
        self.boot("a", "b")
        before, owner = self.builds(), self.pool()["instance"]
        pid = self.machine("a")["vmm"]["pid"]
        report = self.given_up(self.begin(), before, owner)
        self.assertFalse(alive(pid))
        self.assertEqual([machine["outcome"] for machine in report["machines"]], ["rolled_back", "not_tried"], report)

    def test_machine_goes_back_into_the_program_it_ran_before_the_last_godwitd(self):
        self.start_daemon("--pool", "512M")
        self.boot("a", "b")
        self.godwit("exchange", "a", "--to", str(BIN / "godwit-vmm-next"))
        self.kill_daemon()
        self.start_daemon("--pool", "512M")
        before, owner = self.builds(), self.pool()["instance"]
        self.assertNotEqual(before["a"], before["b"])
        self.hold_the_start_of("b")
        command = self.begin()
        self.wait_event("exchange_all", machine="a", outcome="done")
        self.let_it_fail()
        self.given_up(command, before, owner)

    def test_killed_old_godwitd_leaves_everything_to_the_new_one(self):
        command, _, owner = self.begun_until_one_has_moved()
        self.kill_daemon()
        self.let_it_fail()
        command.kill()
        command.communicate()
        listed = json.loads(self.godwit("ps", "--json").stdout)["machines"]  # Waits for the one that serves now.
        self.assertEqual({machine["name"] for machine in listed}, {"a", "b"})
        pool = self.pool()
        self.assertNotEqual(pool["instance"], owner)
        self.assertEqual({extent["owner"] for extent in pool["extents"]}, {pool["instance"]})
        self.guests_are_content()

    def test_old_godwitd_that_hangs_after_its_seal_is_fenced(self):
        self.environment["GODWIT_FAULT"] = "control.division.7:hang"
        self.start_daemon("--pool", "512M")
        self.boot("a")
        out, err = self.begin().communicate(timeout=PATIENCE_S)
        report = json.loads(out)
        self.assertEqual(report["outcome"], "done", (out, err))
        # MP-5: its deadline alone is no proof; it was killed, and only then was anything claimed.
        self.assertGreater(report["partition"]["estate"]["waited_us"], 1_500_000)
        self.assertEqual(self.daemon.wait(PATIENCE_S), -signal.SIGKILL)
        self.guests_are_content()

    def test_both_killed_in_the_middle_of_the_estate_leave_it_to_a_third(self):
        self.start_daemon("--pool", "512M")
        self.boot("a", "b")
        self.instead_of("godwitd", f'GODWIT_FAULT=partition.new.4:kill exec {BIN / "godwitd"} "$@"')
        command = self.begin()
        _, err = command.communicate(timeout=PATIENCE_S)
        self.assertEqual(command.returncode, 1, err)
        self.assertIn("knows nothing of this exchange", err)
        pool = self.pool()
        self.assertEqual({extent["owner"] for extent in pool["extents"]}, {pool["instance"]})
        self.all_cpus_are_theirs()
        self.guests_are_content()

    # -- it is refused -----------------------------------------------------------------------------------------

    def test_what_speaks_against_it_is_told_before_anything_is_touched(self):
        self.start_daemon("--pool", "512M")
        self.boot("a")
        self.boot("own", memory="64M")
        before = self.builds(), self.vmm_pids(), self.pool()
        way = ["exchange", "--all", "--mode", "partition", "--to", str(self.prefix)]
        dry = self.godwit(*way, "--target-cpus", str(CPUS[-1]), "--dry-run", code=1)
        self.assertIn("its memory is not in the host's pool", dry.stdout)
        real = self.godwit(*way, "--target-cpus", str(CPUS[-1]), code=1)
        self.assertIn("1 refused", real.stdout)
        for cpus in ("0-1000", "5-3", "nonsense", ",".join(map(str, CPUS))):
            self.godwit(*way, "--target-cpus", cpus, code=None)
        self.godwit(*way, code=2)
        self.godwit(*way, "--target-cpus", str(CPUS[-1]), "--keep-going", code=2)
        self.godwit("exchange", "a", "--mode", "partition", "--target-cpus", str(CPUS[-1]), code=2)
        (self.prefix / "bin/godwitd").unlink()
        alone = self.godwit(*way, "--target-cpus", str(CPUS[-1]), "--dry-run", code=1)
        self.assertIn("new godwitd", alone.stdout)
        self.assertEqual((self.builds(), self.vmm_pids(), self.pool()), before)

    def test_full_pool_is_told_by_the_plan(self):
        self.start_daemon("--pool", "512M")
        self.boot("a", memory="512M,pool")
        dry = self.godwit("exchange", "--all", "--mode", "partition", "--to", str(self.prefix), "--target-cpus",
                          str(CPUS[-1]), "--dry-run", code=1)
        self.assertIn("memory pool is full", dry.stdout)
        self.guests_are_content()

    def test_new_godwitd_that_cannot_start_changes_nothing(self):
        self.start_daemon("--pool", "512M")
        self.boot("a")
        before, owner = self.builds(), self.pool()["instance"]
        (self.prefix / "bin/godwitd").unlink()
        (self.prefix / "bin/godwitd").symlink_to("/bin/false")
        self.given_up(self.begin(), before, owner)

    # -- the pool ----------------------------------------------------------------------------------------------

    def test_pool_outlives_its_godwitd_and_says_when_it_is_full_or_absent(self):
        self.start_daemon("--pool", "512M")
        self.boot("a")
        full = self.godwit("run", "b", "--kernel", str(BIN / "beacon"), "--memory", "1G,pool", code=1)
        self.assertIn("has 448 MiB free, the machine wants 1024 MiB", full.stderr)
        owner = self.pool()["instance"]
        self.kill_daemon()
        self.start_daemon("--pool", "1G")
        self.assertEqual(self.pool()["instance"], owner)
        self.boot("b")
        snapshot = self.root / "snapshot"
        self.godwit("snapshot", "a", str(snapshot))
        self.godwit("restore", str(snapshot), "--name", "c")
        self.consoles["c"] = Console(self.run_dir / "machines/c/console-serial.sock")
        self.assertEqual(set(self.owners()), {"a", "b", "c"})
        self.guests_are_content()
        self.stop_daemon()
        self.start_daemon("--pool", "0")
        none = self.godwit("run", "d", "--kernel", str(BIN / "beacon"), "--memory", "64M,pool", code=1)
        self.assertIn("this host has no memory pool", none.stderr)

    def test_machine_whose_document_cannot_be_read_keeps_its_memory(self):
        """As after a downgrade to a godwitd that does not know a member of it."""
        self.start_daemon("--pool", "512M")
        self.boot("a", "b")
        self.kill_daemon()
        (self.run_dir / "machines/a/spec.json").write_text('{"name": "a", "of_a_later_version": true}')
        self.start_daemon("--pool", "512M")
        self.assertIn("machine_document_unreadable", self.daemon_log())
        self.assertEqual(set(self.owners()), {"a", "b"})
        self.guests_are_content()


if __name__ == "__main__":
    unittest.main()
