"""Exchanging all machines of a host: plan, order, concurrency, failures, cancelling, reports, history."""

import json
import signal
import subprocess
import unittest

from host_fixture import BIN, PATIENCE_S, HostTest


class ExchangeAll(HostTest):
    def setUp(self):
        super().setUp()
        self.start_daemon()

    def machines(self, *words, names="abcd"):
        for index, name in enumerate(names):
            self.run_machine(name, words[index] if index < len(words) else "")

    def builds(self):
        listed = self.good("GET", "/api/v1/machines")["machines"]
        return {machine["name"]: machine["vmm"]["build_id"] for machine in listed}

    def all(self, *faults, **body):
        return self.operate("/api/v1/exchange", {"program": str(self.fake("next", *faults))} | body)

    def outcomes(self, operation):
        return {machine["machine"]: machine["outcome"] for machine in operation["result"]["machines"]}

    # -- plan ------------------------------------------------------------------------------------------------

    def test_plan_tells_everything_and_touches_nothing(self):
        self.machines("blocked")
        before = self.good("GET", "/api/v1/machines"), self.vmm_pids()
        plan = self.good("PUT", "/api/v1/exchange/plan", {"program": str(self.fake("next"))})
        self.assertEqual((self.good("GET", "/api/v1/machines"), self.vmm_pids()), before)
        self.assertEqual(plan["counts"], {"exchange": 3, "nothing": 0, "refused": 1})
        first, second = plan["machines"][:2]
        self.assertEqual((first["action"], first["blockers"]), ("refused", ["its RAM cannot change hands"]))
        self.assertEqual(second["build_ids"], [self.builds()["b"], "fakefake-vmm.next"])
        self.assertEqual((second["expected_blackout_us"], second["expected_from"]), (None, "unknown"))
        self.assertEqual(second["carriers"], [{"resource": "memory", "carrier": "pointer"}])

    def test_plan_expects_what_was_measured_before_also_after_a_restart(self):
        self.machines(names="ab")
        self.operate("/api/v1/machines/a/exchange", {"program": str(self.fake("next"))})
        self.stop_daemon()
        self.start_daemon()
        plan = self.good("PUT", "/api/v1/exchange/plan", {"program": str(self.fake("other"))})
        self.assertEqual([(m["expected_blackout_us"], m["expected_from"]) for m in plan["machines"]],
                         [(1234, "machine"), (1234, "host")])
        one = self.good("PUT", "/api/v1/exchange/plan", {"machine": "b"})
        self.assertEqual([machine["machine"] for machine in one["machines"]], ["b"])
        self.assertEqual(self.ask("PUT", "/api/v1/exchange/plan", {"machine": "zz"})[0], 404)

    def test_program_that_is_no_vmm_is_refused_before_anything(self):
        self.machines(names="a")
        for program in ("/bin/true", str(self.fake("describes-nothing"))):
            operation = self.operate("/api/v1/exchange", {"program": program})
            self.assertEqual((operation["state"], operation["error"]["code"]), ("failed", "unsupported"))
            plan = self.good("PUT", "/api/v1/exchange/plan", {"program": program})
            self.assertIn("does not describe itself", plan["trouble"])
            self.assertEqual(plan["machines"][0]["action"], "refused")
        self.assertEqual(len(self.vmm_pids()), 1)

    def test_modes_with_requests_of_their_own_and_wrong_values_are_told(self):
        self.machines(names="a")
        for path, mode in (("exchange", "suspend"), ("machines/a/exchange", "suspend"), ("machines/a/exchange", "partition")):
            status, answer = self.ask("PUT", f"/api/v1/{path}", {"mode": mode})
            self.assertEqual((status, answer["error"]["code"]), (400, "invalid_argument"), answer)
            self.assertIn(f"--all --mode {mode}", answer["error"]["message"])
        for path in ("exchange", "exchange/plan"):
            for body in ({"mode": "magic"}, {"order": "random"}, {"concurrency": 0}, {"concurrency": 65},
                         {"keep_going": 1}, {"program": "relative"}, {"mood": "good"}, {"timing": "sometimes"},
                         {"timing": "early", "mode": "partition", "target_cpus": "0"}):
                self.assertEqual(self.ask("PUT", f"/api/v1/{path}", body)[0], 400, body)

    # -- run ---------------------------------------------------------------------------------------------------

    def test_all_run_the_new_build_and_a_second_time_does_nothing(self):
        self.machines()
        done = self.all(concurrency=2)
        self.assertEqual((done["state"], done["result"]["outcome"]), ("succeeded", "done"), done)
        self.assertEqual(done["result"]["counts"]["done"], 4)
        self.assertEqual(done["result"]["blackout_us"], {"p50": 1234, "p99": 1234, "max": 1234})
        self.assertEqual(set(self.builds().values()), {"fakefake-vmm.next"})
        again = self.all()
        self.assertEqual(again["result"]["counts"]["current"], 4)
        self.assertEqual(self.all(again=True)["result"]["counts"]["done"], 4)
        text = self.good("GET", "/metrics")
        self.assertIn('godwit_exchanges_total{mode="hot-restart",outcome="done"} 8', text)

    def test_order_is_kept(self):
        self.machines("", "idle", names="abc")
        self.all(order="idle-first", concurrency=1)
        begun = [event["machine"] for event in self.events()
                 if event["event"] == "exchange_all" and event["outcome"] == "under_way"]
        self.assertEqual(begun, ["b", "a", "c"])

    def test_failure_stops_the_rest_which_stays_at_the_old_build(self):
        self.machines("", "crash-on-exchange")
        before = self.builds()
        ended = self.all(concurrency=1)
        self.assertEqual(ended["state"], "failed")
        self.assertEqual(self.outcomes(ended), {"a": "done", "b": "lost", "c": "not_tried", "d": "not_tried"})
        self.assertEqual(ended["result"]["outcome"], "lost")
        self.assertEqual({name: self.builds()[name] for name in "cd"}, {name: before[name] for name in "cd"})

    def test_rolled_back_machines_do_not_stop_the_others_where_that_is_wanted(self):
        self.machines("blocked", names="abc")
        refused = self.all()
        self.assertEqual(set(self.outcomes(refused).values()), {"refused", "not_tried"})
        self.assertEqual(refused["result"]["outcome"], "rolled_back")
        kept = self.all(keep_going=True)
        self.assertEqual(self.outcomes(kept), {"a": "refused", "b": "done", "c": "done"})
        self.assertEqual((kept["result"]["outcome"], kept["error"]["code"]), ("partial", "conflict"))
        bad = self.all("crash-on-offer", keep_going=True, again=True)
        self.assertEqual(bad["result"]["counts"]["rolled_back"], 2)
        self.assertEqual(len(self.vmm_pids()), 3)

    def test_cancel_stops_before_the_next_commit(self):
        self.machines()
        self.all(keep_going=True)
        operation = self.good("PUT", "/api/v1/exchange", {"program": str(self.fake("silent-on-offer")),
                                                          "deadline_ms": 60000, "concurrency": 2})
        self.wait_event("exchange", machine="b", phase="prepare", since=operation["id"])
        status, _ = self.ask("PUT", "/api/v1/exchange", {})
        self.assertEqual(status, 409)  # One at a time.
        self.good("DELETE", f"/api/v1/operations/{operation['id']}")
        ended = self.finished(self.good("GET", f"/api/v1/operations/{operation['id']}"))
        self.assertEqual(ended["state"], "cancelled")
        self.assertTrue(ended["result"]["cancelled"])
        self.assertEqual(self.outcomes(ended),
                         {"a": "rolled_back", "b": "rolled_back", "c": "not_tried", "d": "not_tried"})
        self.assertEqual(set(self.builds().values()), {"fakefake-vmm.next"})

    def test_operation_shows_the_machines_by_phase(self):
        self.machines(names="ab")
        operation = self.good("PUT", "/api/v1/exchange", {"program": str(self.fake("silent-on-offer")),
                                                          "deadline_ms": 60000, "concurrency": 1})
        self.wait_event("exchange", machine="a", phase="prepare", since=operation["id"])
        progress = self.good("GET", f"/api/v1/operations/{operation['id']}")["progress"]
        self.assertEqual([(m["machine"], m["outcome"]) for m in progress["machines"]],
                         [("a", "under_way"), ("b", "waiting")])
        self.assertEqual(progress["machines"][0]["phase"], "prepare")
        self.good("DELETE", f"/api/v1/operations/{operation['id']}")

    # -- command line and history --------------------------------------------------------------------------------

    def test_command_line_shows_and_keeps(self):
        self.machines(names="ab")
        new = str(self.fake("next"))
        dry = self.godwit("exchange", "--all", "--to", new, "--dry-run")
        self.assertIn("2 to exchange. Nothing was touched.", dry.stdout)
        run = self.godwit("exchange", "--all", "--to", new)
        self.assertIn("2 machines run in their new VMM", run.stdout)
        self.assertIn("[2/2] b: done, stood still for 1.2 ms", run.stderr)
        failed = self.godwit("exchange", "--all", "--to", str(self.fake("crash-on-offer")), "--json", code=1)
        self.assertEqual(json.loads(failed.stdout)["outcome"], "rolled_back")
        self.godwit("exchange", "--all", "a", code=2)
        self.godwit("exchange", code=2)
        self.godwit("exchange", "a", "--mode", "partition", code=2)
        self.godwit("exchange", "a", "--mode", "magic", code=2)
        self.stop_daemon()
        history = json.loads(self.godwit("exchange", "--history", "--json").stdout)["reports"]
        self.assertEqual([report["operation"] for report in history],
                         ["exchange", "exchange", "exchange-all", "exchange", "exchange-all"])
        self.assertNotIn("machines", history[2])
        only = json.loads(self.godwit("exchange", "--history", "b", "--limit", "1", "--json").stdout)["reports"]
        self.assertEqual([(report["machine"], report["mode"]) for report in only], [("b", "hot-restart")])
        self.assertIn("rolled_back", self.godwit("exchange", "--history").stdout)

    def test_interrupt_cancels(self):
        self.machines(names="ab")
        command = subprocess.Popen(
            [BIN / "godwit", "exchange", "--all", "--to", str(self.fake("silent-on-offer")), "--deadline-ms", "60000"],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.wait_event("exchange", machine="a", phase="prepare")
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=PATIENCE_S)
        self.assertEqual(command.returncode, 1, (out, err))
        self.assertIn("cancelled", err)
        self.assertIn("1 rolled back, 1 not tried", out)


if __name__ == "__main__":
    unittest.main()
