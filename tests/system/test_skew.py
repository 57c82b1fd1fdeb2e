"""Upgrade, downgrade and skew: builds that do not save the same, under disk and memory load."""

import json
import subprocess
import unittest

from test_exchange import ExchangeBase
from vmm_harness import BIN, VMM_OLD

NEWER = BIN / "godwit-vmm-newer"        # reads vmm-consoles up to version 2 and writes that
OPTIONAL = BIN / "godwit-vmm-optional"  # saves an optional section more
ROUNDS = 3


def description_of(program):
    return json.loads(subprocess.run([program, "--describe"], stdout=subprocess.PIPE, check=True).stdout)


class SkewTest(ExchangeBase):
    def done(self, vmm, program):
        self.assertEqual(vmm.call("plan", successor=description_of(program))["blockers"], [])
        report, successor = self.exchange(vmm, program)
        self.assertEqual((report["outcome"], report["build_ids"][1]),
                         ("done", description_of(program)["build_id"]), report)
        self.assertEqual(vmm.wait_end(), 0)
        return successor

    def goes_on(self, console):
        console.read_until("report", 30, console.lines())

    def test_builds_differ(self):
        sections = {program: {s["name"]: s["version"] for s in description_of(program)["sections"]}
                    for program in (VMM_OLD, NEWER)}
        self.assertEqual(sections[NEWER].pop("vmm-consoles"), sections[VMM_OLD].pop("vmm-consoles") + 1)
        self.assertEqual(sections[NEWER], sections[VMM_OLD])

    def test_optional_section_goes_there_and_back(self):
        vmm, console = self.begin()
        for _ in range(ROUNDS):
            for program in (OPTIONAL, VMM_OLD):
                vmm = self.done(vmm, program)
                self.goes_on(console)
        self.finish(vmm, console)

    def test_newer_version_goes_there_and_is_refused_back_before_the_pause(self):
        vmm, console = self.begin()
        vmm = self.done(vmm, NEWER)
        for _ in range(ROUNDS):
            self.goes_on(console)
            blockers = vmm.call("plan", successor=description_of(VMM_OLD))["blockers"]
            self.assertEqual(len(blockers), 1, blockers)
            self.assertIn("vmm-consoles", blockers[0])
            report, successor = self.exchange(vmm, VMM_OLD)
            self.assertEqual((report["outcome"], len(report["blockers"])), ("rolled_back", 1), report)
            self.assertIn("vmm-consoles", report["reason"])
            self.assertEqual([report["phases_us"][phase] for phase in ("prepare", "sync", "pause", "commit")], [0] * 4)
            self.assertEqual(vmm.call("status")["state"], "running")
            self.assertNotEqual(successor.wait_end(), 0)
            vmm = self.done(vmm, NEWER)
        self.finish(vmm, console)

    def test_processor_with_fewer_features_is_a_blocker(self):
        vmm, console = self.begin()
        less = description_of(VMM_OLD)
        for row in less["cpuid"]:
            if row[0] == 1:
                row[4] = 0
        blockers = vmm.call("plan", successor=less)["blockers"]
        self.assertEqual(len(blockers), 1, blockers)
        self.assertIn("CPU features", blockers[0])
        self.assertIn("protocol 7", vmm.call("plan", successor=less | {"handover_protocol": 7})["blockers"][0])
        self.goes_on(console)
        self.finish(vmm, console)


if __name__ == "__main__":
    unittest.main()
