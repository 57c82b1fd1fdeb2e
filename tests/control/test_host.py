"""godwitd as a process: its API, its VMM processes and what happens when any of them dies or falls silent."""

import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import time
import unittest

from host_fixture import BIN, PATIENCE_S, HostTest, UnixConnection, alive


class Life(HostTest):
    def test_machine_goes_through_its_life(self):
        self.start_daemon()
        machine = self.run_machine()
        self.assertEqual(machine["state"], "running")
        info = self.machine()
        self.assertEqual(info["statistics"], {"exits": 7})
        self.assertEqual(set(info["consoles"]), {"serial", "virtio"})
        self.assertEqual(self.good("PUT", "/api/v1/machines/web1/pause")["state"], "paused")
        self.assertEqual(self.good("PUT", "/api/v1/machines/web1/resume")["state"], "running")
        self.good("PUT", "/api/v1/machines/web1/balloon", {"bytes": 4096})
        self.good("PUT", "/api/v1/machines/web1/disks/disk0/refresh")
        self.assertEqual(self.ask("PUT", "/api/v1/machines/web1/disks/disk9/refresh")[0], 404)
        stopped = self.operate("/api/v1/machines/web1/stop", {})
        self.assertEqual(stopped["state"], "succeeded", stopped)
        self.assertEqual(stopped["result"]["reason"], "powered_off")
        self.assert_nothing_left()
        kinds = [event["event"] for event in self.events()]
        self.assertIn("started", kinds)
        self.assertIn("stopped", kinds)
        states = [event["state"] for event in self.events() if event["event"] == "state"]
        self.assertEqual(states, ["starting", "running", "paused", "running"])
        self.assertIn('godwit_machines_ended_total{reason="powered_off"} 1', self.good("GET", "/metrics"))

    def test_start_that_fails_passes_the_reason_on_and_leaves_nothing(self):
        self.start_daemon()
        status, answer = self.ask("POST", "/api/v1/machines", {"name": "web1", "kernel": {"path": "/missing/k"}})
        self.assertEqual(status, 404)
        self.assertEqual(answer["error"]["code"], "not_found")
        self.assertIn("/missing/k", answer["error"]["message"])
        self.assert_nothing_left()
        for words in ("start-crashes", "start-garbage"):
            status, answer = self.ask("POST", "/api/v1/machines",
                                      {"name": "web1", "kernel": {"path": "/k", "command_line": words}})
            self.assertGreaterEqual(status, 400, answer)
            self.wait_event("stopped", machine="web1", reason="start_failed")
        self.assertEqual(self.good("GET", "/api/v1/machines"), {"machines": []})

    def test_name_that_is_taken_is_refused(self):
        self.start_daemon()
        self.run_machine()
        status, answer = self.ask("POST", "/api/v1/machines", {"name": "web1", "kernel": {"path": "/k"}})
        self.assertEqual((status, answer["error"]["code"]), (409, "already_exists"))
        self.assertEqual(len(self.vmm_pids()), 1)

    def test_start_can_be_cancelled(self):
        self.start_daemon()
        connection = UnixConnection(self.run_dir / "godwitd.sock")
        connection.request("POST", "/api/v1/machines",
                           json.dumps({"name": "web1", "kernel": {"path": "/k", "command_line": "start-hangs"}}))
        begun = self.wait_event("operation", kind="run", state="running")
        self.good("DELETE", f"/api/v1/operations/{begun['operation']}")
        response = connection.getresponse()
        self.assertEqual(response.status, 409)
        self.assertEqual(json.loads(response.read())["error"]["code"], "cancelled")
        connection.close()
        self.assertEqual(self.good("GET", "/api/v1/machines"), {"machines": []})

    def test_guest_that_ignores_its_button_runs_on_until_forced(self):
        self.start_daemon()
        self.run_machine(command_line="deaf")
        stopped = self.operate("/api/v1/machines/web1/stop", {"timeout_s": 1})
        self.assertEqual((stopped["state"], stopped["error"]["code"]), ("failed", "timeout"))
        self.assertEqual(self.machine()["state"], "running")
        forced = self.operate("/api/v1/machines/web1/stop", {"force": True})
        self.assertEqual(forced["result"]["reason"], "killed")
        self.assert_nothing_left()

    def test_snapshot_and_restore_under_another_name(self):
        self.start_daemon()
        self.run_machine()
        directory = str(self.root / "shot")
        self.assertEqual(self.operate("/api/v1/machines/web1/snapshot", {"directory": directory})["state"], "succeeded")
        restored = self.finished(self.good("POST", "/api/v1/restore", {"directory": directory, "name": "web2"}))
        self.assertEqual(restored["result"]["name"], "web2")
        self.assertNotEqual(restored["result"]["id"], self.machine()["id"])
        status, answer = self.ask("POST", "/api/v1/restore", {"directory": str(self.root / "none")})
        self.assertEqual(status, 404, answer)
        self.assertEqual(self.ask("POST", "/api/v1/restore", {"directory": "relative"})[0], 400)


class Faults(HostTest):
    def test_vmm_that_is_killed_is_reported_and_cleaned_up(self):
        self.start_daemon()
        pid = self.run_machine()["vmm"]["pid"]
        os.kill(pid, signal.SIGKILL)
        event = self.wait_event("stopped", machine="web1")
        self.assertEqual(event["reason"], "killed")
        self.assertIn("signal 9", event["detail"])
        self.assert_nothing_left()

    def test_vmm_that_hangs_keeps_nobody_else_waiting(self):
        self.start_daemon()
        self.run_machine(command_line="hang-on-info")
        self.run_machine("web2")
        info = self.machine()  # Answers within its limit with what is known.
        self.assertIn("did not answer", info["trouble"])
        self.assertEqual(self.machine("web2")["state"], "running")
        forced = self.operate("/api/v1/machines/web1/stop", {"force": True})
        self.assertEqual(forced["state"], "succeeded")
        self.assertEqual(len(self.vmm_pids()), 1)

    def test_vmm_that_talks_nonsense_loses_its_connection_and_gets_a_new_one(self):
        self.start_daemon()
        self.run_machine(command_line="garbage-on-set_balloon")
        status, answer = self.ask("PUT", "/api/v1/machines/web1/balloon", {"bytes": 4096})
        self.assertEqual((status, answer["error"]["code"]), (400, "corrupt"))
        end = time.monotonic() + PATIENCE_S
        while self.machine()["state"] != "running":
            self.assertLess(time.monotonic(), end, self.daemon_log())
        self.assertEqual(self.good("PUT", "/api/v1/machines/web1/pause")["state"], "paused")

    def test_vmm_that_dies_during_a_request_is_an_error_and_an_end(self):
        self.start_daemon()
        self.run_machine(command_line="crash-on-pause")
        status, _ = self.ask("PUT", "/api/v1/machines/web1/pause")
        self.assertEqual(status, 502)
        self.wait_event("stopped", machine="web1", reason="killed")
        self.assert_nothing_left()

    def test_leaving_while_a_machine_runs_is_quick_and_leaves_it(self):
        self.start_daemon()
        pid = self.run_machine(command_line="hang-on-pause")["vmm"]["pid"]
        connection = UnixConnection(self.run_dir / "godwitd.sock")
        connection.request("PUT", "/api/v1/machines/web1/pause")
        self.wait_event("started", machine="web1")
        self.stop_daemon()
        self.assertTrue(alive(pid))
        self.assertFalse((self.run_dir / "godwitd.sock").exists())
        connection.close()


class Adoption(HostTest):
    def test_killed_daemon_finds_its_machines_again(self):
        self.start_daemon()
        first = self.run_machine("web1")
        second = self.run_machine("web2")
        self.kill_daemon()
        os.kill(second["vmm"]["pid"], signal.SIGKILL)  # While nobody looks.
        self.start_daemon()
        machine = self.machine("web1")
        self.assertEqual((machine["state"], machine["id"], machine["vmm"]["pid"]),
                         ("running", first["id"], first["vmm"]["pid"]))
        self.assertEqual([entry["name"] for entry in self.good("GET", "/api/v1/machines")["machines"]], ["web1"])
        events = {(event["event"], event.get("machine")) for event in self.events()}
        self.assertIn(("adopted", "web1"), events)
        self.assertIn(("stopped", "web2"), events)
        os.kill(machine["vmm"]["pid"], signal.SIGKILL)
        self.wait_event("stopped", machine="web1", reason="killed")
        self.assert_nothing_left()

    def test_exchange_that_outlives_its_daemon_ends_with_one_owner(self):
        self.start_daemon()
        old = self.run_machine()["vmm"]["pid"]
        self.good("PUT", "/api/v1/machines/web1/exchange",
                  {"program": str(self.fake("silent-on-offer")), "deadline_ms": 1000})
        self.wait_event("exchange", phase="prepare")
        self.kill_daemon()
        self.start_daemon()
        self.assertEqual(self.machine()["vmm"]["pid"], old)
        self.assertEqual(self.good("GET", "/api/v1/machines")["machines"][0]["state"], "running")

    def test_exchange_committed_without_a_daemon_is_adopted(self):
        self.start_daemon()
        old = self.run_machine(command_line="lingers")["vmm"]["pid"]
        self.operate("/api/v1/machines/web1/exchange", {})
        new = self.machine()["vmm"]["pid"]
        self.assertNotEqual(old, new)
        self.kill_daemon()
        self.start_daemon()
        machine = self.machine()
        self.assertEqual((machine["vmm"]["pid"], machine["vmm"]["epoch"]), (new, 2))
        reports = self.good("GET", "/api/v1/machines/web1/reports")["reports"]
        self.assertEqual([report["outcome"] for report in reports], ["done"])

    def test_machines_that_cannot_be_looked_at_are_not_taken_for_dead(self):
        self.start_daemon()
        pids = {name: self.run_machine(name)["vmm"]["pid"] for name in ("m1", "m2", "m3", "m4", "m5", "m6")}
        self.kill_daemon()
        good, self.daemon_command = self.daemon_command, [
            "/bin/sh", "-c", 'ulimit -n 20; exec "$@"', "sh", *self.daemon_command]
        self.start_daemon()  # With descriptors for some of them; it may even lack them for its own API.
        self.assertIn("machine_in_doubt", self.daemon_log())
        self.kill_daemon()
        self.daemon_command = good
        self.start_daemon()
        self.assertEqual({name: self.machine(name)["vmm"]["pid"] for name in pids}, pids)
        self.assertEqual({self.machine(name)["state"] for name in pids}, {"running"})

    def test_machine_in_doubt_is_found_as_soon_as_it_can_be(self):
        """A socket that cannot be connected to for another reason than that nobody is there."""
        self.start_daemon()
        pid = self.run_machine()["vmm"]["pid"]
        self.kill_daemon()
        path = next((self.run_dir / "machines/web1").glob("vmm-*.sock"))
        hidden = self.root / "hidden"
        path.rename(hidden)
        path.symlink_to(path)  # ELOOP
        self.start_daemon()
        machine = self.machine()
        self.assertEqual((machine["state"], machine["vmm"]), ("unresponsive", None))
        self.assertIn("symbolic links", machine["trouble"])
        for way, method, body in (("stop", "PUT", {"force": True}), ("recover", "PUT", {})):
            self.assertEqual(self.ask(method, f"/api/v1/machines/web1/{way}", body)[0], 409)
        path.unlink()
        hidden.rename(path)
        self.wait_event("state", machine="web1", state="running")
        self.assertEqual(self.machine()["vmm"]["pid"], pid)

    def test_dead_sockets_and_foreign_directories_are_cleaned_up(self):
        self.start_daemon()
        self.stop_daemon()
        left = self.run_dir / "machines/ghost"
        left.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
            dead.bind(str(left / "vmm-0123abcd.sock"))
        self.start_daemon()
        self.assertEqual(self.good("GET", "/api/v1/machines"), {"machines": []})
        self.assert_nothing_left()


class Exchange(HostTest):
    def exchange(self, program=None, command_line="", **body):
        self.start_daemon()
        self.before = self.run_machine(command_line=command_line)
        if program is not None:
            body["program"] = str(program)
        operation = self.operate("/api/v1/machines/web1/exchange", body)
        self.after = self.machine()
        return operation

    def assert_rolled_back(self, operation, reason):
        self.assertEqual(operation["state"], "failed", operation)
        self.assertEqual(operation["result"]["outcome"], "rolled_back", operation)
        self.assertIn(reason, operation["error"]["message"])
        self.assertIn("failed_step", operation["result"])
        self.assertIn(operation["result"]["side"], ("source", "destination"))
        self.assertEqual(self.after["vmm"]["pid"], self.before["vmm"]["pid"])
        self.assertEqual(self.after["state"], "running")
        self.assertEqual(self.vmm_pids(), [self.before["vmm"]["pid"]])
        self.assertEqual(len(self.sockets()), 3)

    def test_success_changes_the_owner_and_leaves_one_process(self):
        operation = self.exchange()
        self.assertEqual(operation["state"], "succeeded", operation)
        self.assertEqual(operation["result"]["blackout_us"], 1234)
        self.assertNotEqual(self.after["vmm"]["pid"], self.before["vmm"]["pid"])
        self.assertEqual(self.after["vmm"]["epoch"], 2)
        self.assertEqual(self.vmm_pids(), [self.after["vmm"]["pid"]])
        self.assertEqual(len(self.sockets()), 3)
        self.assertIn('godwit_exchange_blackout_seconds_bucket{le="0.0025"} 1', self.good("GET", "/metrics"))
        self.assertEqual(json.loads((self.run_dir / "history.jsonl").read_text())["outcome"], "done")
        again = self.operate("/api/v1/machines/web1/exchange", {})
        self.assertEqual(again["state"], "succeeded", again)
        self.assertEqual(self.machine()["vmm"]["epoch"], 3)

    def test_program_that_is_missing_is_bad_input(self):
        self.start_daemon()
        self.run_machine()
        self.assertEqual(self.ask("PUT", "/api/v1/machines/web1/exchange", {"program": "/missing/vmm"})[0], 404)
        self.assertEqual(self.ask("PUT", "/api/v1/machines/web1/exchange", {"program": "vmm"})[0], 400)
        self.assertEqual(len(self.vmm_pids()), 1)

    def test_program_that_is_no_program_rolls_back(self):
        text = self.root / "text"
        text.write_text("nothing to run")
        text.chmod(0o755)
        self.assert_rolled_back(self.exchange(text), "Exec format error")

    def test_successor_that_does_not_start_rolls_back(self):
        self.assert_rolled_back(self.exchange(self.fake("start-fails")), "no such file")

    def test_successor_that_crashes_at_start_rolls_back(self):
        self.assert_rolled_back(self.exchange(self.fake("start-crashes")), "signal 6")

    def test_successor_that_talks_nonsense_rolls_back(self):
        self.assert_rolled_back(self.exchange(self.fake("start-garbage")), "ready")

    def test_successor_that_crashes_on_the_offer_rolls_back(self):
        self.assert_rolled_back(self.exchange(self.fake("crash-on-offer")), "went away")

    def test_successor_that_hangs_rolls_back(self):
        self.assert_rolled_back(self.exchange(self.fake("hang-on-offer"), deadline_ms=500), "too slow")

    def test_predecessor_that_dies_after_the_commit_is_an_exchange(self):
        operation = self.exchange(command_line="crash-after-commit")
        self.assertEqual(operation["result"]["outcome"], "failed_after_commit", operation)
        self.assertNotEqual(self.after["vmm"]["pid"], self.before["vmm"]["pid"])
        self.assertEqual((self.after["state"], self.after["vmm"]["epoch"]), ("running", 2))
        self.assertEqual(self.vmm_pids(), [self.after["vmm"]["pid"]])

    def test_claim_that_comes_late_finds_the_offer_taken_back(self):
        """The source dies after its offer and the successor is slow: it is killed only when it cannot claim any more."""
        self.start_daemon()
        self.run_machine(command_line="crash-after-commit")
        operation = self.operate("/api/v1/machines/web1/exchange", {"program": str(self.fake("hang-on-commit"))})
        self.assertEqual(operation["result"]["outcome"], "lost", operation)
        self.wait_event("stopped", machine="web1", reason="killed")
        self.assert_nothing_left()

    def test_silent_predecessor_does_not_lose_its_guest_to_a_late_claim(self):
        """Both are stopped in the middle: the record, not the answers, says who lives."""
        self.start_daemon()
        old = self.run_machine()["vmm"]["pid"]
        operation = self.good("PUT", "/api/v1/machines/web1/exchange",
                              {"program": str(self.fake("silent-on-offer")), "deadline_ms": 1000})
        self.wait_event("exchange", phase="prepare")
        new = next(pid for pid in self.vmm_pids() if pid != old)
        os.kill(new, signal.SIGSTOP)
        self.assertEqual(self.finished(operation)["result"]["outcome"], "rolled_back")
        self.assertEqual(self.vmm_pids(), [old])

    def test_machine_without_a_record_is_not_exchanged(self):
        operation = self.exchange(command_line="no-record")
        self.assert_rolled_back(operation, "owner record")

    def test_predecessor_that_dies_before_the_commit_takes_the_guest_along(self):
        self.start_daemon()
        self.run_machine(command_line="crash-on-exchange")
        operation = self.operate("/api/v1/machines/web1/exchange", {})
        self.assertEqual(operation["result"]["outcome"], "lost", operation)
        self.wait_event("stopped", machine="web1", reason="killed")
        self.assert_nothing_left()

    def test_successor_that_ends_before_a_dying_predecessor_saves_no_guest(self):
        self.start_daemon()
        self.run_machine(command_line="slow-death-on-exchange")
        operation = self.operate("/api/v1/machines/web1/exchange", {})
        self.assertEqual(operation["result"]["outcome"], "lost", operation)
        self.assert_nothing_left()

    def test_retired_process_that_lingers_is_ended(self):
        operation = self.exchange(command_line="lingers")
        self.assertEqual(operation["state"], "succeeded", operation)
        self.assertEqual(self.vmm_pids(), [self.after["vmm"]["pid"]])

    def test_cancel_before_the_commit_rolls_back(self):
        self.start_daemon()
        self.before = self.run_machine()
        operation = self.good("PUT", "/api/v1/machines/web1/exchange",
                              {"program": str(self.fake("silent-on-offer")), "deadline_ms": 60000})
        self.wait_event("exchange", phase="prepare")
        status, answer = self.ask("PUT", "/api/v1/machines/web1/pause")
        self.assertEqual((status, answer["error"]["code"]), (409, "conflict"))
        self.good("DELETE", f"/api/v1/operations/{operation['id']}")
        ended = self.finished(operation)
        self.assertEqual((ended["state"], ended["result"]["outcome"]), ("cancelled", "rolled_back"))
        self.assertEqual(self.machine()["vmm"]["pid"], self.before["vmm"]["pid"])
        self.assertEqual(self.vmm_pids(), [self.before["vmm"]["pid"]])

    def test_cancel_while_the_successor_starts_rolls_back(self):
        self.start_daemon()
        self.before = self.run_machine()
        operation = self.good("PUT", "/api/v1/machines/web1/exchange", {"program": str(self.fake("start-hangs"))})
        self.good("DELETE", f"/api/v1/operations/{operation['id']}")
        self.assertEqual(self.finished(operation)["state"], "cancelled")
        self.assertEqual(self.vmm_pids(), [self.before["vmm"]["pid"]])

    def test_force_stops_in_the_middle(self):
        self.start_daemon()
        self.run_machine()
        operation = self.good("PUT", "/api/v1/machines/web1/exchange",
                              {"program": str(self.fake("silent-on-offer")), "deadline_ms": 60000})
        self.wait_event("exchange", phase="prepare")
        forced = self.operate("/api/v1/machines/web1/stop", {"force": True})
        self.assertEqual(forced["state"], "succeeded", forced)
        self.assertEqual(self.finished(operation)["state"], "failed")
        self.assert_nothing_left()


class Api(HostTest):
    def test_only_its_own_user_may_connect(self):
        self.start_daemon()
        self.assertEqual(stat.S_IMODE(os.stat(self.run_dir / "godwitd.sock").st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.run_dir).st_mode), 0o700)

    def raw(self, data):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE_S)
            client.connect(str(self.run_dir / "godwitd.sock"))
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := client.recv(65536):
                    answer += piece
            except (BrokenPipeError, ConnectionResetError):
                return b""
            return answer

    def test_garbage_gets_an_error_and_hurts_nobody(self):
        self.start_daemon()
        for data in (b"", b"\0" * 1000, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\r\n" * 5000,
                     b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n",
                     b"GET /api/v1/machines/%00%0a%ff HTTP/1.1\r\n\r\n",
                     b"POST /api/v1/machines HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                     b"POST /api/v1/machines HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                     b"POST /api/v1/machines HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
                     b"POST /api/v1/machines HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
                     b"PUT /api/v1/machines/web1/stop HTTP/1.1\r\nContent-Length: 3\r\n\r\n\xff\xfe{",
                     b"POST /api/v1/machines HTTP/1.1\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60000,
                     b"POST /api/v1/machines HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                     b"Content-Length: 5\r\n\r\n--x\r\n"):
            answer = self.raw(data)
            if answer:
                self.assertRegex(answer.split(b"\r\n")[0], rb"HTTP/1.1 4\d\d", data[:60])
                self.assertIn(b'"error"', answer)
        self.assertEqual(self.good("GET", "/api/v1/machines"), {"machines": []})
        self.assertIsNone(self.daemon.poll())

    def test_silent_connections_do_not_keep_others_out(self):
        self.start_daemon()
        silent = []
        for _ in range(20):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.connect(str(self.run_dir / "godwitd.sock"))
            client.send(b"GET /api/v1/mach")
            silent.append(client)
        self.assertEqual(self.good("GET", "/api/v1/version")["api"], "v1")
        for client in silent:
            client.close()

    def test_bad_machine_documents_name_the_path(self):
        self.start_daemon()
        for body in ({"name": "web1", "kernel": {"path": "/k"}, "vcpus": 1000}, {"name": "web1", "wings": 2},
                     {"kernel": {"path": "/k"}}):
            status, answer = self.ask("POST", "/api/v1/machines", body)
            self.assertEqual((status, answer["error"]["code"]), (400, "invalid_argument"), answer)
        self.assertEqual(list((self.run_dir / "machines").iterdir()), [])

    def test_events_can_be_replayed_and_followed(self):
        self.start_daemon()
        self.run_machine()
        events = self.events()
        self.assertEqual([event["id"] for event in events if "id" in event],
                         sorted(event["id"] for event in events if "id" in event))
        middle = events[len(events) // 2]["id"]
        self.assertTrue(all(event["id"] > middle for event in self.events(middle)))
        self.operate("/api/v1/machines/web1/stop", {"force": True})
        self.assertEqual(self.wait_event("stopped", since=middle)["machine"], "web1")
        self.assertEqual(self.ask("GET", "/api/v1/events?since=x")[0], 400)

    def test_too_many_followers_are_refused(self):
        self.start_daemon()
        followers = []
        for _ in range(16):
            connection = UnixConnection(self.run_dir / "godwitd.sock")
            connection.request("GET", "/api/v1/events")
            followers.append(connection.getresponse())
            self.assertEqual(followers[-1].status, 200)
        self.assertEqual(self.ask("GET", "/api/v1/events")[0], 503)
        self.assertEqual(self.good("GET", "/api/v1/version")["api"], "v1")
        for follower in followers:
            follower.close()


class Start(HostTest):
    def test_second_daemon_is_refused_and_the_first_goes_on(self):
        self.start_daemon()
        first = self.daemon
        line = self.start_daemon()
        self.assertEqual(line["error"]["code"], "busy")
        self.assertEqual(self.daemon.wait(PATIENCE_S), 1)
        self.daemon = first
        self.assertEqual(self.good("GET", "/api/v1/version")["pid"], first.pid)

    def test_path_too_long_for_a_socket_is_a_clear_error(self):
        self.environment["GODWIT_RUN_DIR"] = str(self.root / ("x" * 100))
        line = self.start_daemon()
        self.assertEqual(line["error"]["code"], "invalid_argument")
        self.assertIn("GODWIT_RUN_DIR", line["error"]["message"])
        self.assertEqual(self.daemon.wait(PATIENCE_S), 1)
        self.daemon = None

    def test_run_directory_that_cannot_be_used_is_a_clear_error(self):
        for path in (self.root / "file/run", self.root / "open"):
            (self.root / "file").write_text("")
            (self.root / "open").mkdir(exist_ok=True)
            (self.root / "open").chmod(0o777)
            self.environment["GODWIT_RUN_DIR"] = str(path)
            line = self.start_daemon()
            self.assertIn(str(path), line["error"]["message"])
            self.daemon.wait(PATIENCE_S)
            self.daemon = None

    def test_name_too_long_for_a_socket_is_refused_before_anything_starts(self):
        self.run_dir = self.root / ("d" * 40)
        self.environment["GODWIT_RUN_DIR"] = str(self.run_dir)
        self.start_daemon()
        status, answer = self.ask("POST", "/api/v1/machines", {"name": "w" * 48, "kernel": {"path": "/k"}})
        self.assertEqual(status, 400, answer)
        self.assertIn("is the limit", answer["error"]["message"])

    def test_idle_daemon_ends_only_without_machines(self):
        self.start_daemon("--exit-when-idle", "1")
        self.run_machine()
        with self.assertRaises(subprocess.TimeoutExpired):
            self.daemon.wait(2.5)
        self.operate("/api/v1/machines/web1/stop", {"force": True})
        self.assertEqual(self.daemon.wait(PATIENCE_S), 0)
        self.daemon = None
        self.assertFalse((self.run_dir / "godwitd.sock").exists())

    def test_programs_are_there(self):
        for program in ("godwit", "godwitd"):
            self.assertTrue((pathlib.Path(BIN) / program).exists())


if __name__ == "__main__":
    unittest.main()
