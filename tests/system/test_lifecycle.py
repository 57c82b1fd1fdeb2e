"""Start, pause, snapshot, restore, reboot, power off, and every kind of bad input."""

import json
import os
import unittest

from vmm_harness import BEACON, MachineTest
from test_exchange import check_log

LOAD = "mem_set=16M mem_rate=20000 disk=journal disk_rate=200 report_ms=200"


class LifecycleTest(MachineTest):
    def begin(self, load=LOAD, **more):
        vmm = self.start(self.document(load, disks=[self.disk()], **more))
        console = self.console()
        console.read_until("populated")
        return vmm, console

    def finish(self, vmm, console):
        console.type("stop")
        final, _ = console.read_until("final", 60)
        self.assertTrue(final["ok"], final)
        self.assertEqual(vmm.wait_end(), 0)
        console.drain()
        check_log(self, console)
        return final

    def test_power_off_ends_the_process_and_leaves_nothing(self):
        vmm, console = self.begin()
        self.finish(vmm, console)
        left = [path.name for path in (self.directory / "machines/m").iterdir() if path.suffix == ".sock"]
        self.assertEqual(left, [])

    def test_pause_and_resume_hide_nothing_from_the_clock(self):
        vmm, console = self.begin()
        vmm.call("pause")
        self.assertEqual(vmm.call("status")["state"], "paused")
        vmm.call("pause")
        vmm.call("resume")
        self.assertEqual(vmm.call("status")["state"], "running")
        console.read_until("report", 30, console.lines())
        final = self.finish(vmm, console)
        self.assertEqual(final["clock"]["tsc_backwards"], 0)

    def test_stop_by_force_ends_at_once(self):
        vmm, _ = self.begin()
        vmm.call("stop", force=True)
        self.assertEqual(vmm.wait_end(), 0)

    def test_reboot_starts_the_kernel_again(self):
        vmm = self.start(self.document("mem_set=1M run_ms=300 exit=reboot"))
        console = self.console()
        _, index = console.read_until("final")
        console.read_until("boot", 30, index)
        vmm.call("stop", force=True)
        self.assertEqual(vmm.wait_end(), 0)

    def test_virtio_console_carries_lines_and_commands(self):
        vmm = self.start(self.document("mem_set=1M out=virtio"))
        console = self.console(port="virtio")
        console.read_until("populated")
        answer = console.ask("verify", "verified")
        self.assertGreater(answer["pages_verified"], 0)
        vmm.call("stop", force=True)
        vmm.wait_end()

    def test_snapshot_continues_here_and_restores_elsewhere(self):
        disk = self.disk()
        vmm = self.start(self.document(LOAD.replace("disk=journal", "disk=none"), disks=[disk]))
        console = self.console()
        console.read_until("populated")
        snapshot = self.directory / "snapshot"
        report = vmm.call("snapshot", directory=str(snapshot))
        self.assertGreater(report["written_bytes"], 16 << 20)
        self.assertGreater(report["state_bytes"], 1000)
        console.read_until("report", 30, console.lines())
        console.type("stop")
        self.assertTrue(console.read_until("final", 60)[0]["ok"])
        vmm.wait_end()
        before = sorted((path.name, path.stat().st_mtime_ns) for path in snapshot.iterdir())

        for copy_ram in (False, True):
            with self.subTest(copy_ram=copy_ram):
                restored = self.restore(snapshot, copy_ram=copy_ram)
                self.assertEqual(restored.ready, {"ok": True}, restored.ready)
                console = self.console()
                console.read_until("report", 30)
                if copy_ram:
                    report, restored = self.exchange(restored)
                    self.assertEqual(report["outcome"], "done", report)
                else:
                    report, _ = self.exchange(restored)
                    self.assertEqual(report["outcome"], "rolled_back", report)
                    self.assertEqual(report["failed_step"], "introduce", report)
                    self.assertEqual(len(report["blockers"]), 1, report)
                    self.assertIn("--copy-ram", report["blockers"][0])
                console.type("stop")
                final, _ = console.read_until("final", 60)
                self.assertTrue(final["ok"], final)
                self.assertEqual(final["clock"]["tsc_backwards"], 0)
                self.assertEqual(restored.wait_end(), 0)
        after = sorted((path.name, path.stat().st_mtime_ns) for path in snapshot.iterdir())
        self.assertEqual(before, after, "a restore must not change its snapshot")


class BadInputTest(MachineTest):
    def refused(self, document, *words, code=None):
        vmm = self.start(document, expect_error=True)
        self.assertIn("error", vmm.ready, vmm.ready)
        message = vmm.ready["error"]["message"]
        for word in words:
            self.assertIn(word, message)
        if code:
            self.assertEqual(vmm.ready["error"]["code"], code, message)
        self.assertEqual(vmm.wait_end(), 1)
        sockets = list((self.directory / "machines" / document["name"]).glob("*.sock"))
        self.assertEqual(sockets, [])

    def test_missing_kernel(self):
        document = self.document("")
        document["kernel"]["path"] = "/nowhere/vmlinux"
        self.refused(document, "/nowhere/vmlinux", code="not_found")

    def test_kernel_that_is_none(self):
        path = self.directory / "kernel"
        path.write_bytes(os.urandom(8192))
        document = self.document("")
        document["kernel"]["path"] = str(path)
        self.refused(document, str(path))

    def test_missing_disk(self):
        self.refused(self.document("", disks=["/nowhere/disk.raw"]), "/nowhere/disk.raw", code="not_found")

    def test_disk_in_use(self):
        disk = self.disk()
        self.start(self.document("", name="first", disks=[disk]))
        self.refused(self.document("", name="second", disks=[disk]), str(disk), code="busy")

    def test_tap_that_does_not_exist(self):
        document = self.document("")
        document["nets"] = [{"tap": "nosuchtap0"}]
        self.refused(document, "nosuchtap0", "ip tuntap add")

    def test_more_ram_than_the_host_has(self):
        document = self.document("", memory_mebibytes=8 << 20)
        self.refused(document, "memory", code="resource_exhausted")

    def test_malformed_documents(self):
        for change, word in (({"vcpus": 0}, "vcpus"), ({"vcpus": "two"}, "vcpus"), ({"surprise": 1}, "surprise"),
                             ({"vcpus": 65}, "65"), ({"name": "Ä"}, "name")):
            with self.subTest(change=change):
                document = {**self.document(""), **change}
                name = document["name"]
                spec = self.directory / "bad.json"
                spec.write_text(json.dumps(document))
                document["name"] = "m"
                vmm = self.start_raw(spec)
                self.assertIn("error", vmm.ready)
                self.assertIn(word, vmm.ready["error"]["message"], name)

    def start_raw(self, spec):
        from vmm_harness import VMM_OLD, Vmm
        vmm = Vmm(self.directory, "m", VMM_OLD, ["--spec", str(spec)])
        self.vmms.append(vmm)
        return vmm

    def test_document_that_is_not_json(self):
        spec = self.directory / "bad.json"
        spec.write_text('{"name": ')
        self.assertIn("error", self.start_raw(spec).ready)

    def test_corrupt_snapshots(self):
        vmm = self.start(self.document("mem_set=1M report_ms=100"))
        self.console().read_until("populated")
        good = self.directory / "good"
        vmm.call("snapshot", directory=str(good))
        vmm.call("stop", force=True)
        vmm.wait_end()
        import shutil
        state = next(path for path in good.iterdir() if path.name.startswith("state"))
        for kind in ("truncated", "mutated", "missing", "short-ram"):
            with self.subTest(kind=kind):
                bad = self.directory / kind
                shutil.copytree(good, bad)
                target = bad / state.name
                data = bytearray(target.read_bytes())
                if kind == "truncated":
                    target.write_bytes(data[:-10])
                elif kind == "mutated":
                    data[len(data) // 2] ^= 0x40
                    target.write_bytes(data)
                elif kind == "missing":
                    target.unlink()
                else:
                    ram = next(path for path in bad.iterdir() if "ram" in path.name or "memory" in path.name)
                    os.truncate(ram, 1 << 20)
                restored = self.restore(bad)
                self.assertIn("error", restored.ready, kind)
                self.assertEqual(restored.wait_end(), 1)


if __name__ == "__main__":
    unittest.main()
