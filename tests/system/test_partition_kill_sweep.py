"""kill -9 at every named point of a partitioned exchange, in the old godwitd, in the new one and in the VMMs it
starts: afterwards every guest runs on, content, and every frame of the pool has the one owner that serves."""

import json
import signal
import sys
import unittest

from test_partition_exchange import BIN, PATIENCE_S, POOL_FRAMES, PartitionBase

OLD = ["control.division.1", "control.division.2", "control.division.3", "control.division.4", "control.division.5",
       "control.division.6", "control.division.7", "partition.old.1", "partition.old.2", "partition.old.3",
       "partition.old.4", "partition.old.5", "partition.old.6", "partition.give.1", "partition.give.2"]
NEW = ["partition.new.1", "control.heir.take", "partition.take.1", "partition.new.2", "partition.new.3",
       "partition.inherit.claim", "partition.new.4", "partition.new.5", "partition.new.6"]
VMM = ["partition.take.2", "exchange.destination.claim", "exchange.destination.claimed", "partition.take.3",
       "partition.take.extent"]
SAMPLE = {"control.division.6", "partition.new.3", "exchange.destination.claim", "partition.take.extent"}
FULL = "--full" in sys.argv


class KillSweep(PartitionBase):
    def sweep(self, points, prepare):
        for point in points:
            if FULL or point in SAMPLE:
                with self.subTest(point=point):
                    self.kill_at(point, prepare)
                self.clean()
                self.setUp()

    def kill_at(self, point, prepare):
        environment = dict(self.environment)
        prepare(point)
        self.start_daemon("--pool", "512M")
        self.environment = environment
        self.boot("a", "b")
        command = self.begin()
        try:
            command.communicate(timeout=PATIENCE_S)
        finally:
            command.kill()
            command.communicate()
        if point in OLD:
            self.assertEqual(self.daemon.wait(PATIENCE_S), -signal.SIGKILL)
        self.assertTrue(self.reached(point), "the point was not reached")
        self.someone_serves_everything()

    def reached(self, point):
        logs = [self.root / "godwitd.log", *self.run_dir.glob("machines/*/vmm.log")]
        return any(f'"point":"{point}"' in log.read_text(errors="replace") for log in logs)

    def someone_serves_everything(self):
        listed = json.loads(self.godwit("ps", "--json").stdout)["machines"]
        self.assertEqual([(machine["name"], machine["state"]) for machine in listed],
                         [("a", "running"), ("b", "running")])
        pool = self.pool()
        self.assertEqual({extent["owner"] for extent in pool["extents"]}, {pool["instance"]})
        self.assertEqual(pool["bytes"], POOL_FRAMES << 21)
        self.guests_are_content()

    def test_old_godwitd(self):
        self.sweep(OLD, lambda point: self.environment.update(GODWIT_FAULT=f"{point}:kill"))

    def test_new_godwitd(self):
        self.sweep(NEW, lambda point: self.instead_of(
            "godwitd", f'GODWIT_FAULT={point}:kill exec {BIN / "godwitd"} "$@"'))

    def test_new_vmm(self):
        self.sweep(VMM, lambda point: self.instead_of(
            "godwit-vmm", f'GODWIT_FAULT={point}:kill exec {BIN / "godwit-vmm-next"} "$@"'))


if __name__ == "__main__":
    unittest.main(argv=[argument for argument in sys.argv if argument != "--full"])
