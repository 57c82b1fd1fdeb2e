#!/usr/bin/env python3
"""The demo's judge refuses what it must refuse: every check is shown one thing wrong.

usage: test_judge.py DIRECTORY-OF-PROGRAMS (not used)
"""

import copy
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo.d"))
sys.argv[1:2] = []
from godwit_demo import heartbeat, judge, report  # noqa: E402

EXCHANGE = {"outcome": "done", "guest_bytes_copied": 0, "frames_sampled": 8, "frames_identical": 8,
            "build_ids": ["a", "b"], "epochs": [1, 2], "blackout_us": 900, "phases_us": {"pause": 1}}
FINAL = {"ok": True, "errors": 0, "pages_verified": 10, "blocks_verified": 10,
         "disk": {"inflight": 0, "flushed": 5, "newest_acknowledged": 5}, "clock": {"tsc_backwards": 0},
         "net": {"rx": 5, "lost": 0, "doubled": 0, "errors": 0}}
NETWORK = {"sent": 9, "not_sent": 0, "damaged": 0, "echo_replies": 1,
           "from_guest": {"received": 9, "first": 1, "lost": 0, "doubled": 0, "reordered": 0}}


def changed(value, path, new):
    """A deep copy with one place changed."""
    result = copy.deepcopy(value)
    target = result
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = new
    return result


class ExchangeTest(unittest.TestCase):
    def test_good_chain_passes(self):
        back = {**EXCHANGE, "build_ids": ["b", "a"], "epochs": [2, 3]}
        self.assertEqual(judge._exchange_violations([EXCHANGE, back], 2), [])

    def test_each_wrong_field_is_a_violation(self):
        for path, value in ((["outcome"], "rolled_back"), (["guest_bytes_copied"], 4096), (["frames_identical"], 7),
                            (["frames_sampled"], 0), (["build_ids"], ["a", "a"]), (["epochs"], [2, 2]),
                            (["blackout_us"], -1)):
            with self.subTest(path):
                self.assertEqual(len(judge._exchange_violations([changed(EXCHANGE, path, value)], 1)), 1)

    def test_missing_exchange_and_broken_chain_are_violations(self):
        self.assertEqual(len(judge._exchange_violations([EXCHANGE], 2)), 1)
        self.assertEqual(len(judge._exchange_violations([EXCHANGE, EXCHANGE], 2)), 1)


class GuestTest(unittest.TestCase):
    def test_good_final_passes(self):
        self.assertEqual(judge._guest_violations(FINAL, True), [])

    def test_each_wrong_field_is_a_violation(self):
        for path, value in ((["ok"], False), (["errors"], 1), (["pages_verified"], 0), (["blocks_verified"], 0),
                            (["disk", "inflight"], 1), (["disk", "flushed"], 4), (["clock", "tsc_backwards"], 1),
                            (["net", "lost"], 1), (["net", "doubled"], 1), (["net", "rx"], 0)):
            with self.subTest(path):
                self.assertEqual(len(judge._guest_violations(changed(FINAL, path, value), True)), 1)

    def test_no_final_is_a_violation(self):
        self.assertEqual(len(judge._guest_violations(None, False)), 1)


class NetworkTest(unittest.TestCase):
    def test_good_account_passes(self):
        self.assertEqual(judge._network_violations(NETWORK), [])

    def test_each_wrong_field_is_a_violation(self):
        for path, value in ((["damaged"], 1), (["echo_replies"], 0), (["from_guest", "lost"], 1),
                            (["from_guest", "doubled"], 1), (["from_guest", "received"], 0),
                            (["from_guest", "first"], 3)):
            with self.subTest(path):
                self.assertEqual(len(judge._network_violations(changed(NETWORK, path, value))), 1)

    def test_account_counts(self):
        account = heartbeat.Account()
        for sequence in (1, 2, 4, 4, 3, 9):
            account.add(sequence)
        self.assertEqual(account.as_json(), {"received": 6, "first": 1, "lost": 4, "doubled": 1, "reordered": 1})


class ReportTest(unittest.TestCase):
    def test_nothing_run_is_not_verified(self):
        self.assertFalse(report.as_json([], None)["verified"])

    def test_one_violation_is_not_verified(self):
        self.assertFalse(report.as_json([{"violations": []}, {"violations": ["x"]}], ["a", "b"])["verified"])
        self.assertTrue(report.as_json([{"violations": []}], ["a", "b"])["verified"])


if __name__ == "__main__":
    unittest.main()
