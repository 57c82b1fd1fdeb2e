#!/usr/bin/env python3
"""A godwit-blk is exchanged for another process while NBD clients use it; the other one may be of no use, and either
may die on the way. What was acknowledged is there afterwards, and connections stay open."""

import os
import random
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from blk_server import BIN, LIMIT_S, Client, Refused, Server, Writer

DISK_BYTES = 64 << 20
WRITTEN_BLOCKS = 4096
SHORT_MS = 700  # For successors that hang.


def gone(pid):
    try:
        os.kill(pid, 0)
        return False
    except ProcessLookupError:
        return True


class BlkExchange(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.image = self.folder / "disk.raw"
        self.socket = self.folder / "nbd.sock"
        self.empty_image()

    def empty_image(self):
        """What an earlier writer has left would be taken for this one's."""
        with open(self.image, "wb") as image:
            image.truncate(DISK_BYTES)

    def serve(self, *flags, nbd=None, **options):
        server = Server(self.folder, self.image, "--cached", "--nbd", nbd or self.socket, *flags, **options)
        self.addCleanup(server.kill)
        return server

    def writer(self):
        writer = Writer(self.socket, WRITTEN_BLOCKS)
        writer.start()
        self.addCleanup(writer.stop)
        self.wait_for_writes(writer)
        return writer

    def wait_for_writes(self, writer, count=200):
        """Until so many more writes were acknowledged."""
        wanted = writer.acknowledged + count
        self.wait_until(lambda: writer.acknowledged >= wanted or not writer.is_alive())
        self.assertTrue(writer.is_alive(), writer.error)

    def wait_until(self, reached):
        """Looks fifty times a second: what is waited for happens in another process, which tells nobody."""
        limit, never = time.monotonic() + LIMIT_S, threading.Event()
        while not reached():
            self.assertLess(time.monotonic(), limit, "it does not happen")
            never.wait(0.02)

    def check(self, writer):
        """Nothing that was acknowledged is lost, nothing was torn."""
        writer.stop()
        self.assertEqual(writer.violations(self.socket), [])

    def exchange(self, server, **params):
        report = server.call("exchange", **params)
        self.assertEqual(report["outcome"], "done", report)
        self.assertEqual(server.follow(report["to"]["pid"]), 0)
        return report

    def test_many_times_while_fio_verifies(self):
        server = self.serve()
        job = self.folder / "job.fio"
        job.write_text(f"[verify]\nioengine=nbd\nuri={server.ready['nbd']}\nrw=randwrite\nbsrange=4k-64k\niodepth=32\n"
                       "size=32m\nverify_state_save=0\nfsync=64\nverify=crc32c\nverify_fatal=1\nverify_backlog=64\n")
        enough, runs, failures = threading.Event(), [], []

        def load():
            while not (enough.is_set() or failures):
                done = subprocess.run(["fio", "--minimal", job], capture_output=True, text=True)
                (runs if done.returncode == 0 else failures).append(done.stdout + done.stderr)

        threads = [threading.Thread(target=load)]
        threads[0].start()
        self.addCleanup(threads[0].join)
        self.addCleanup(enough.set)
        pauses = []
        for number in range(20):
            with self.subTest(exchange=number):
                before = server.call("disks")["metrics"]["changes"]
                self.wait_until(lambda: failures or server.call("disks")["metrics"]["changes"] >= before + 300)
                self.assertEqual(failures, [])
                code, report, complaint = server.godwit("disk", "exchange", "disk")
                self.assertEqual((code, report["outcome"]), (0, "done"), complaint)
                self.assertEqual(report["from"]["pid"], server.process.pid)
                self.assertEqual(server.follow(report["to"]["pid"]), 0)
                self.assertEqual(server.call("status")["pid"], report["to"]["pid"])
                pauses.append(report["pause_us"])
        enough.set()
        threads[0].join()
        self.assertEqual(failures, [])
        self.assertEqual(server.events("client_refused"), [])
        print(f"pause: median {sorted(pauses)[10] / 1e3:.2f} ms, longest {max(pauses) / 1e3:.2f} ms, "
              f"fio ran {len(runs)} times")
        self.assertEqual(server.end(), 0)
        self.assertFalse(self.socket.exists() or Path(server.ready["control"]).exists())

    def test_a_copy_over_tcp_comes_out_right(self):
        reference = self.folder / "reference.raw"
        with open(reference, "wb") as image:
            image.write(random.Random(3).randbytes(DISK_BYTES))
        server = self.serve(nbd="127.0.0.1:0")
        uri = server.ready["nbd"]
        with subprocess.Popen(["qemu-img", "convert", "-n", "-r", "64M", "-f", "raw", "-O", "raw", reference, uri]) as copy:
            exchanged = 0
            while copy.poll() is None:
                exchanged += self.exchange(server)["nbd_clients"]
                time.sleep(0.1)  # Exchanges alone would leave the copy no time.
            self.assertEqual(copy.returncode, 0)
        self.assertGreater(exchanged, 2)
        done = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", uri, reference], capture_output=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(server.end(), 0)

    def test_clients_in_the_middle_of_something(self):
        """One that has not finished its greeting, one of whose write a part was sent, one that does not read."""
        server = self.serve()
        greeting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        greeting.settimeout(LIMIT_S)
        greeting.connect(str(self.socket))
        greeting.sendall(struct.pack(">I", 3) + Client.OPTION + struct.pack(">I", 1)[:2])
        half, deaf = Client(self.socket), Client(self.socket)
        data = random.Random(5).randbytes(8 << 20)
        half.socket.sendall(struct.pack(">IHHQQI", Client.REQUEST, 0, Client.WRITE, 9, 0, len(data)) + data[:5 << 20])
        reads = 24
        for number in range(reads):
            deaf.socket.sendall(struct.pack(">IHHQQI", Client.REQUEST, 0, Client.READ, number, number << 20, 1 << 20))
        carried = [self.exchange(server) for _ in range(3)]
        for report in carried:
            self.assertEqual(report["nbd_clients"], 3)
            self.assertGreater(report["carried_bytes"], (5 << 20) + (reads - 8 << 20))
        half.socket.sendall(data[5 << 20:])
        self.assertEqual(half.take(16), struct.pack(">IIQ", Client.REPLY, 0, 9))
        self.assertEqual(half.command(Client.READ, 0, count=len(data)), data)
        for number in range(reads):
            self.assertEqual(deaf.take(16), struct.pack(">IIQ", Client.REPLY, 0, number))
            self.assertEqual(len(deaf.take(1 << 20)), 1 << 20)
        self.assertEqual(deaf.command(Client.READ, 4096, count=4096), data[4096:8192])
        greeting.sendall(struct.pack(">I", 1)[2:] + struct.pack(">I", 0))
        self.assertEqual(greeting.recv(18, socket.MSG_WAITALL), Client.MAGIC + Client.OPTION + b"\0\3")
        self.assertEqual(struct.unpack(">QH", greeting.recv(10, socket.MSG_WAITALL))[0], DISK_BYTES)
        for client in (half.socket, deaf.socket, greeting):
            client.close()
        self.assertEqual(self.exchange(server)["carried_bytes"], 0)
        self.assertEqual(server.events("client_refused"), [])

    def test_a_successor_of_no_use_leaves_the_old_one_serving(self):
        server = self.serve()
        writer = self.writer()
        garbage, script = self.folder / "garbage", self.folder / "script"
        garbage.write_bytes(b"\x7fELF" + bytes(200))
        script.write_text("#!/bin/sh\nexec sleep 1000\n")
        talker = self.folder / "talker"
        talker.write_text("#!/usr/bin/env python3\nimport socket\ns = socket.socket(fileno=3)\ns.send(b'nonsense')\n"
                          "s.recv(1)\n")
        for program in (garbage, script, talker):
            program.chmod(0o755)
        for program, step, code in (("/bin/true", "introduce", "peer_closed"), (garbage, "start", "io"),
                                    (script, "introduce", "timeout"), (talker, "introduce", "corrupt")):
            with self.subTest(program=program):
                limits = {"prepare_ms": SHORT_MS} if code == "timeout" else {}
                report = server.call("exchange", program=str(program), **limits)
                self.assertEqual((report["outcome"], report["failed_step"], report["error_code"]),
                                 ("rolled_back", step, code), report)
                self.assertTrue(report["to"]["pid"] == 0 or gone(report["to"]["pid"]))
                self.assertEqual(report["pause_us"], -1)
                self.wait_for_writes(writer)
        for program in (self.folder / "none", "relative", self.image):
            with self.subTest(program=program), self.assertRaises(Refused):
                server.call("exchange", program=str(program))
        code, _, complaint = server.godwit("disk", "exchange", "disk", "--to", "/bin/true")
        self.assertEqual(code, 1)
        self.assertIn("the old one serves on", complaint)
        self.assertEqual(server.godwit("disk", "exchange", "none")[0], 1)
        self.assertEqual(server.process.pid, server.call("status")["pid"])
        self.check(writer)
        self.exchange(server)

    def test_a_successor_that_dies_or_hangs_before_the_commit(self):
        for point, step in (("start", "introduce"), ("prepare", "offer"), ("users", "hand_over"), ("claim", "hand_over")):
            for way, code in (("kill", "peer_closed"), ("hang", "timeout")):
                with self.subTest(point=point, way=way):
                    self.empty_image()
                    server = self.serve(environment={"GODWIT_FAULT": f"doors.exchange.successor.{point}:{way}"})
                    writer = self.writer()
                    for _ in range(2):
                        limit = {"offer": "prepare_ms", "introduce": "prepare_ms"}.get(step, "deadline_ms")
                        report = server.call("exchange", **({limit: SHORT_MS} if way == "hang" else {}))
                        self.assertEqual((report["outcome"], report["failed_step"], report["error_code"]),
                                         ("rolled_back", step, code), report)
                        self.assertTrue(gone(report["to"]["pid"]))
                        self.assertEqual(report["pause_us"] > 0, step == "hand_over")
                        self.wait_for_writes(writer)
                    self.assertEqual(server.call("status")["pid"], server.process.pid)
                    self.check(writer)
                    self.assertEqual(server.end(), 0)

    def test_a_successor_that_dies_after_the_commit(self):
        """Nobody serves then, and the next server finds all that was acknowledged."""
        for point in ("claimed", "running"):
            with self.subTest(point=point):
                self.empty_image()
                server = self.serve(environment={"GODWIT_FAULT": f"doors.exchange.successor.{point}:kill"})
                writer = self.writer()
                report = server.call("exchange")
                self.assertEqual((report["outcome"], report["failed_step"]), ("failed_after_commit", "hand_over"))
                self.assertEqual(server.process.wait(LIMIT_S), 1)
                writer.join(LIMIT_S)
                self.assertIsInstance(writer.error, OSError)
                again = self.serve()
                self.check(writer)
                self.assertEqual(again.end(), 0)

    def test_a_successor_that_hangs_after_the_commit_keeps_the_image(self):
        """The old one has ended and has not touched anything since: it is for the operator to end the other."""
        server = self.serve(environment={"GODWIT_FAULT": "doors.exchange.successor.claimed:hang"})
        writer = self.writer()
        code, report, complaint = server.godwit("disk", "exchange", "disk", "--deadline-ms", SHORT_MS)
        self.assertEqual((code, report["outcome"]), (3, "failed_after_commit"), complaint)
        self.assertEqual(server.follow(report["to"]["pid"]), 1)
        with self.assertRaises(AssertionError):
            Server(self.folder, self.image, "--nbd", self.folder / "other.sock", "--lock-wait", "0")
        server.kill()
        again = self.serve()
        self.check(writer)
        self.assertEqual(again.end(), 0)

    def test_the_old_one_is_killed_on_the_way(self):
        """Before the users were sent the next server takes the image; afterwards the successor serves them on."""
        for point in ("start", "introduce", "offer", "rest", "hand_over"):
            with self.subTest(point=point):
                self.empty_image()
                server = self.serve(environment={"GODWIT_FAULT": f"doors.exchange.source.{point}:kill"})
                writer = self.writer()
                with self.assertRaises(ConnectionError):
                    server.call("exchange")
                self.assertEqual(server.process.wait(LIMIT_S), -signal.SIGKILL)
                writer.join(LIMIT_S)
                again = self.serve()
                self.check(writer)
                self.assertEqual(again.end(), 0)
        self.empty_image()
        server = self.serve(environment={"GODWIT_FAULT": "doors.exchange.source.sent:kill"})
        writer = self.writer()
        with self.assertRaises(ConnectionError):
            server.call("exchange")
        self.wait_for_writes(writer, 1000)
        self.assertEqual(server.follow(server.call("status")["pid"]), -signal.SIGKILL)
        self.check(writer)
        self.assertEqual(server.end(), 0)

    def test_what_excludes_an_exchange_is_told(self):
        server = self.serve(environment={"GODWIT_FAULT": "doors.exchange.successor.prepare:hang"})
        server.call("disk_move", disk="disk0", destination=str(self.folder / "there.raw"), scheme="dbt",
                    limit_bytes_per_second=1 << 20)
        with self.assertRaisesRegex(Refused, "conflict: .*is being moved"):
            server.call("exchange")
        server.call("cancel_disk_move")
        self.wait_until(lambda: server.disk()["move"] is None)
        for name, value in (("prepare_ms", 0), ("deadline_ms", "soon"), ("program", 7)):
            with self.assertRaisesRegex(Refused, "invalid_argument"):
                server.call("exchange", **{name: value})
        reports = []
        first = threading.Thread(target=lambda: reports.append(server.call("exchange", prepare_ms=3000)))
        first.start()
        self.wait_until(lambda: server.call("status")["state"] == "exchanging")
        for method, params in (("exchange", {}), ("disk_move", {"disk": "disk0", "scheme": "dbt",
                                                                "destination": str(self.folder / "there.raw")})):
            with self.assertRaisesRegex(Refused, "busy: .*is being exchanged"):
                server.call(method, **params)
        # SIGTERM waits for the end of it.
        server.process.send_signal(signal.SIGTERM)
        first.join(LIMIT_S)
        self.assertEqual(reports[0]["outcome"], "rolled_back")
        self.assertEqual(server.process.wait(LIMIT_S), 0)

    def test_a_disk_that_was_moved_and_one_that_is_only_read(self):
        server = self.serve()
        writer = self.writer()
        there = self.folder / "there.raw"
        self.assertEqual(server.godwit("disk", "move", "disk", there, "--scheme", "mirror")[0], 0)
        before = server.disk()
        self.exchange(server)
        self.assertEqual(server.disk(), before)
        self.wait_for_writes(writer)
        self.image.unlink()
        self.assertEqual(server.godwit("disk", "move", "disk", self.image, "--scheme", "dbt")[0], 0)
        self.wait_for_writes(writer)
        self.check(writer)
        self.assertEqual(server.end(), 0)
        reader = self.serve("--read-only", "--profile", self.slow_profile())
        client = Client(self.socket)
        self.exchange(reader)
        with self.assertRaises(OSError):
            client.command(Client.WRITE, 0, b"x" * 512)
        self.assertEqual(len(client.command(Client.READ, 0, count=512)), 512)
        client.close()
        with self.assertRaisesRegex(Refused, "unsupported"):
            reader.call("disk_move", disk="disk0", destination=str(there) + "2", scheme="dbt")

    def test_a_service_manager_is_told_which_process_serves(self):
        for address in (str(self.folder / "notify"), f"\0godwit-test-{os.getpid()}"):
            with self.subTest(address=address), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(LIMIT_S)
                manager.bind(address)
                server = self.serve(environment={"NOTIFY_SOCKET": address.replace("\0", "@")})
                self.assertEqual(manager.recv(100), b"READY=1")
                report = self.exchange(server)
                told = {manager.recv(100) for _ in range(2)}  # The new one says that it is ready, too.
                self.assertEqual(told, {b"READY=1", f"MAINPID={report['to']['pid']}".encode()})
                self.assertEqual(server.end(), 0)

    def slow_profile(self):
        profile = self.folder / "slow.profile"
        profile.write_text("name slow\nread_latency_us 20000\n")
        return profile

    def test_requests_that_do_not_end_in_time_are_waited_for_no_longer(self):
        profile = self.folder / "stuck.profile"
        profile.write_text("name stuck\nread_latency_us 3000000\n")
        server = self.serve("--profile", profile)
        client = Client(self.socket)
        client.socket.sendall(struct.pack(">IHHQQI", Client.REQUEST, 0, Client.READ, 7, 0, 4096))
        self.wait_until(lambda: server.call("disks")["metrics"]["in_flight"] > 0)
        report = server.call("exchange", deadline_ms=200)
        self.assertEqual((report["outcome"], report["failed_step"], report["error_code"]),
                         ("rolled_back", "rest", "timeout"))
        self.assertEqual(len(client.take(16 + 4096)), 16 + 4096)
        self.assertEqual(len(client.command(Client.READ, 0, count=512)), 512)
        client.close()
        self.exchange(server)


if __name__ == "__main__":
    unittest.main(verbosity=2)
