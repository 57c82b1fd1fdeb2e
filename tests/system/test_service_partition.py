"""The successor waits in a service partition: what it can do there, what it is refused, and that it leaves."""

import json
import os
import pathlib
import socket
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/control"), str(ROOT / "guests/beacon/tools")]

import vmm_harness  # noqa: E402
from host_fixture import BIN, HostTest  # noqa: E402

LOAD = "mem_set=16M mem_rate=10000 disk=journal disk_qd=4 disk_flush=16 disk_rate=200 report_ms=100"
NAMESPACES = ("user", "mnt", "pid", "net", "ipc")


def namespaces_of(pid):
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in NAMESPACES}


def status_of(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


class PartitionTest(HostTest):
    def setUp(self):
        super().setUp()
        self.environment |= {"GODWIT_VMM": str(BIN / "godwit-vmm")}
        self.environment.pop("GODWIT_SERVICE_PARTITION", None)
        self.image = self.root / "disk.raw"
        with open(self.image, "wb") as file:
            file.truncate(64 << 20)

    def begin(self, *arguments, load=LOAD, **environment):
        """A host with one machine, and its console."""
        self.environment |= environment
        self.start_daemon(*arguments)
        self.good("POST", "/api/v1/machines", {
            "name": "web1", "vcpus": 2, "memory": {"bytes": 128 << 20}, "disks": [{"path": str(self.image)}],
            "kernel": {"path": str(BIN / "beacon"), "command_line": load}})
        self.console = self.attach()
        self.addCleanup(self.console.socket.close)
        self.console.read_until("report")

    def attach(self):
        return vmm_harness.Console(self.run_dir / "machines/web1/console-serial.sock")

    def exchange(self, program="godwit-vmm-next", machine="web1"):
        operation = self.operate(f"/api/v1/machines/{machine}/exchange", {"program": str(BIN / program)})
        reports = self.good("GET", "/api/v1/reports")["reports"]
        report = reports[-1]
        self.assertEqual(report["operation"], "exchange", operation)
        return report

    def runs_on(self):
        self.console.read_until("report", 30, self.console.lines())

    def pid(self):
        return self.machine()["vmm"]["pid"]

    def finish(self):
        """The guest checks everything it has and powers off."""
        start = self.console.lines()
        self.console.type("stop")
        final, _ = self.console.read_until("final", 60, start)
        self.assertTrue(final["ok"], final)
        self.assertEqual(final["errors"], 0)


class LifeTest(PartitionTest):
    def test_successor_has_namespaces_of_its_own_and_lives_on_as_the_vmm(self):
        self.begin()
        first = self.pid()
        for program in ("godwit-vmm-next", "godwit-vmm"):
            report = self.exchange(program)
            self.assertEqual(report["outcome"], "done", report)
            partition = report["service_partition"]
            self.assertEqual((partition["confined"], partition["left"], partition["refused"]), (True, True, 0),
                             partition)
            calls = report["inverse_calls"]
            self.assertEqual([calls[name] for name in ("offer", "grant", "take_over", "settle")], [1, 1, 1, 1])
            self.assertGreaterEqual(calls["preview"], 1)
            self.runs_on()
            own, host = namespaces_of(self.pid()), namespaces_of(os.getpid())
            self.assertEqual([kind for kind in NAMESPACES if own[kind] == host[kind]], [])
            status = status_of(self.pid())
            self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"))
            # Out of its partition it has the ids of the daemon again, and none of root's powers over the host.
            self.assertEqual(status["Uid"].split(), [str(os.geteuid())] * 4)
            if os.geteuid() == 0:
                self.assertGreater(partition["user"], 0x6fffffff)
                self.assertGreater(report["frames_sampled"], 0)
                self.assertEqual(report["frames_identical"], report["frames_sampled"])
        self.assertNotEqual(self.pid(), first)
        other = self.attach()  # The console is where it was.
        other.read_until("report")
        other.socket.close()
        snapshot = self.root / "snap"
        self.assertEqual(self.operate("/api/v1/machines/web1/snapshot", {"directory": str(snapshot)})["state"],
                         "succeeded")
        self.assertEqual(sorted(path.name for path in snapshot.iterdir()), ["machine.json", "ram.raw", "state.bin"])
        self.assertEqual(snapshot.stat().st_uid, os.geteuid())
        self.runs_on()
        self.finish()

    def test_machine_is_adopted_by_the_next_daemon_and_exchanged_again(self):
        self.begin()
        self.assertEqual(self.exchange()["outcome"], "done")
        pid = self.pid()
        self.kill_daemon()
        self.start_daemon()
        self.assertEqual(self.pid(), pid)
        self.runs_on()
        self.assertEqual(self.exchange("godwit-vmm")["outcome"], "done")
        self.runs_on()
        self.finish()

    def test_guest_that_reboots_after_an_exchange_finds_its_kernel(self):
        self.begin(load=LOAD + " exit=reboot")
        self.assertEqual(self.exchange()["outcome"], "done")
        self.finish()
        self.console.read_until("populated", 30, self.console.lines())
        self.runs_on()

    def test_switched_off_it_is_an_ordinary_process_and_the_report_says_so(self):
        self.begin("--service-partition", "off")
        report = self.exchange()
        self.assertEqual((report["outcome"], report["service_partition"]),
                         ("done", {"confined": False, "reason": "switched off"}))
        self.assertEqual(namespaces_of(self.pid()), namespaces_of(os.getpid()))
        self.finish()


class RequestTest(PartitionTest):
    def ask_vmm(self, method, fds=(), **params):
        """The answer of the VMM itself, past godwitd."""
        path = next((self.run_dir / "machines/web1").glob("vmm-*.sock"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(30)
            client.connect(str(path))
            socket.send_fds(client, [json.dumps({"id": 1, "method": method, "params": params}).encode()], list(fds))
            return json.loads(client.recv(65536))

    def test_process_outside_of_a_partition_refuses_what_only_one_inside_is_asked(self):
        self.begin()
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        self.addCleanup(os.close, root)
        own = {"uid": os.geteuid(), "gid": os.getegid()}
        for _ in range(2):  # One that never was in a partition, and one that has left it.
            self.assertEqual(self.ask_vmm("leave_partition", [root], **own)["error"]["code"], "conflict")
            self.assertEqual(self.ask_vmm("pagemap", [root])["error"]["code"], "invalid_argument")
            self.assertFalse(self.ask_vmm("status")["result"]["confined"])
            self.assertEqual(self.ask_vmm("status")["result"]["pid"], self.pid())
            self.assertEqual(self.exchange()["outcome"], "done")
        self.finish()


class RefusingHostTest(PartitionTest):
    """A host whose kernel gives no more user namespaces: godwitd runs in one that may have none below it."""

    def setUp(self):
        super().setUp()
        self.daemon_command = ["unshare", "--user", "--map-root-user", "sh", "-c",
                               'echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$@"', BIN / "godwitd"]

    def test_preferred_partition_is_left_out_and_the_report_says_why(self):
        self.begin()
        report = self.exchange()
        self.assertEqual((report["outcome"], report["service_partition"]["confined"]), ("done", False), report)
        self.assertIn("does not let a process be confined: create its namespaces",
                      report["service_partition"]["reason"])
        self.runs_on()
        self.finish()

    def test_required_partition_refuses_the_exchange(self):
        self.begin("--service-partition", "require")
        pid = self.pid()
        report = self.exchange()
        self.assertEqual(report["outcome"], "rolled_back", report)
        self.assertIn("create its namespaces", report["reason"])
        self.assertEqual(self.vmm_pids(), [pid])
        self.assertEqual(len([name for name in self.sockets() if name.startswith("vmm-")]), 1)
        self.runs_on()
        self.finish()


class FeatureTest(PartitionTest):
    def test_missing_cpu_feature_is_refused_by_name_before_anything_pauses(self):
        """HR-7: the new build is offered a processor without a feature the guest has."""
        self.begin()
        pid = self.pid()
        self.kill_daemon()
        self.environment["GODWIT_FAULT"] = "machine.cpuid.without:cx16"
        self.start_daemon()
        plan = self.good("PUT", "/api/v1/exchange/plan", {"program": str(BIN / "godwit-vmm-next")})
        machine = plan["machines"][0]
        self.assertEqual(machine["action"], "refused", machine)
        self.assertIn("bits 13 (cx16)", machine["blockers"][0])
        report = self.exchange()
        self.assertEqual((report["outcome"], report["failed_step"]), ("rolled_back", "sync"), report)
        self.assertIn("bits 13 (cx16)", report["reason"])
        self.assertEqual(report["phases_us"]["pause"], 0)
        self.assertEqual(self.pid(), pid)
        self.runs_on()
        self.finish()


class KillTest(PartitionTest):
    def test_successor_killed_at_any_point_before_its_claim_changes_nothing(self):
        """HR-1. One machine, one daemon after the other: each gives its successors another fault."""
        self.begin()
        pid = self.pid()
        for point in ("hello", "build", "prepared", "preload", "grant", "devices", "load", "claim"):
            self.kill_daemon()
            self.environment["GODWIT_FAULT"] = f"exchange.destination.{point}:kill"
            self.start_daemon()
            report = self.exchange()
            self.assertEqual((report["outcome"], report["service_partition"]["confined"]), ("rolled_back", True),
                             (point, report))
            self.assertEqual((self.pid(), self.vmm_pids()), (pid, [pid]), point)
            self.runs_on()
        self.finish()

    def test_owner_whose_daemon_died_at_the_switch_is_let_out_by_the_next_one(self):
        self.begin(GODWIT_FAULT="control.let_out:kill")
        self.good("PUT", "/api/v1/machines/web1/exchange", {"program": str(BIN / "godwit-vmm-next")})
        self.daemon.wait()
        self.daemon = None
        self.environment.pop("GODWIT_FAULT")
        self.start_daemon()
        self.runs_on()
        self.assertEqual(status_of(self.pid())["Uid"].split(), [str(os.geteuid())] * 4)
        other = self.attach()
        other.read_until("report")
        other.socket.close()
        self.finish()


class TrespassTest(PartitionTest):
    """HR-2: tried before the rights are granted, each is blocked, told and without effect on the guest."""

    def refused(self, what, event, reason):
        self.begin(GODWIT_FAULT=f"exchange.destination.trespass:{what}")
        pid = self.pid()
        report = self.exchange()
        self.assertEqual(report["outcome"], "rolled_back", report)
        self.assertIn(reason, report["reason"])
        partition = report["service_partition"]
        self.assertEqual((partition["refused"], partition["left"]), (1, False), partition)
        self.assertIn(event, partition["refused_calls"][0])
        told = self.wait_event("partition_refused")
        self.assertEqual((told["machine"], told["what"]), ("web1", partition["refused_calls"][0]))
        self.assertEqual(self.pid(), pid)
        self.runs_on()
        self.finish()

    def test_write_to_guest_memory_ends_the_successor(self):
        self.refused("write", "write to memory at 0x7", "its service partition refused it: write to memory at 0x7")

    def test_guest_memory_cannot_be_mapped_for_writing(self):
        self.refused("map", "mmap of guest memory for writing", "mmap of guest memory for writing was refused")

    def test_mapping_of_guest_memory_cannot_be_made_writable(self):
        self.refused("protect", "mprotect of guest memory for writing at 0x7", "was refused: it: Permission denied")

    def test_guest_memory_cannot_be_opened_again_for_writing(self):
        self.refused("reopen", "open of guest memory for writing", "No such file or directory")

    def test_disk_cannot_be_opened(self):
        self.refused("disk", "open of a disk", "disk.raw' was refused")

    def test_other_system_calls_are_refused_by_name(self):
        self.refused("mount", "system call mount", "mount was refused: it: Operation not permitted")


if __name__ == "__main__":
    unittest.main()
