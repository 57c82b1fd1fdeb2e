#!/usr/bin/env python3
"""godwit-blk's NBD door against clients that others wrote: qemu-io, qemu-img, and fio's nbd engine through libnbd.

The directory of the programs is in GODWIT_BIN.
"""

import json
import os
import random
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

PROGRAM = Path(os.environ["GODWIT_BIN"]) / "godwit-blk"
DISK_BYTES = 64 << 20
LIMIT_S = 60


class Server:
    def __init__(self, folder, address, *flags):
        self.image = folder / "disk.raw"
        if not self.image.exists():
            with open(self.image, "wb") as image:
                image.truncate(DISK_BYTES)
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--json", "--cached", "--nbd", address, "--name", "disk", "--lock-wait", "0",
             *flags, self.image],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "GODWIT_RUN_DIR": str(folder / "run")})
        line = self.process.stdout.readline()
        self.ready = json.loads(line) if line else None

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, self.errors = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S)
    return done.returncode, done.stdout + done.stderr


class NbdDoor(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def serve(self, address, *flags):
        server = Server(self.folder, address, *flags)
        self.addCleanup(server.end)
        self.assertTrue(server.ready and server.ready["ok"], server.ready)
        return server, server.ready["nbd"]

    def check(self, *words):
        code, text = run(*words)
        self.assertEqual(code, 0, text)
        return text

    def test_qemu_writes_reads_discards_and_sees_the_holes(self):
        server, uri = self.serve(str(self.folder / "nbd.sock"))
        text = self.check("qemu-io", "-f", "raw", uri,
                          "-c", "write -P 7 0 1M", "-c", "read -P 7 0 1M", "-c", "write -z 64k 64k",
                          "-c", "read -P 0 64k 64k", "-c", "discard 0 32k", "-c", "flush",
                          "-c", "write -f -P 9 4096 4096", "-c", "read -P 9 4096 4096")
        self.assertNotIn("failed", text)
        found = json.loads(self.check("qemu-img", "map", "-f", "raw", "--output=json", uri))
        self.assertIn((1 << 20, True), [(part["start"], part["zero"]) for part in found])
        code, text = run("qemu-io", "-f", "raw", uri, "-c", f"read {DISK_BYTES} 512")
        self.assertNotEqual(code, 0, text)
        self.assertEqual(server.end(), 0)
        with open(server.image, "rb") as image:
            image.seek(1 << 19)
            self.assertEqual(image.read(4096), b"\x07" * 4096)

    def test_an_image_is_copied_in_over_tcp_and_compares_equal(self):
        server, uri = self.serve("127.0.0.1:0")
        reference = self.folder / "reference.raw"
        chance = random.Random(1)
        with open(reference, "wb") as image:
            image.truncate(DISK_BYTES)
            for _ in range(20):
                image.seek(chance.randrange(0, DISK_BYTES // 4096 - 64) * 4096)
                image.write(chance.randbytes(chance.randrange(1, 64) * 4096))
        self.check("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", reference, uri)
        self.check("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, reference)
        self.assertEqual(server.end(), 0)
        self.check("cmp", server.image, reference)

    def test_fio_verifies_what_it_wrote(self):
        _, uri = self.serve(str(self.folder / "nbd.sock"))
        job = self.folder / "job.fio"
        job.write_text(f"[verify]\nioengine=nbd\nuri={uri}\nrw=randwrite\nbsrange=4k-64k\niodepth=32\nsize=32m\n"
                       "verify_state_save=0\nfsync=32\nverify=crc32c\nverify_fatal=1\n")
        self.check("fio", "--minimal", job)

    def test_a_read_only_export_refuses_writers_and_two_servers_exclude_each_other(self):
        server, uri = self.serve(str(self.folder / "nbd.sock"))
        second = Server(self.folder, str(self.folder / "second.sock"))
        self.assertEqual(second.end(), 1)
        self.assertIn(b"is in use by", second.errors)
        self.assertEqual(server.end(), 0)
        _, uri = self.serve(str(self.folder / "nbd.sock"), "--read-only")
        code, text = run("qemu-io", "-f", "raw", uri, "-c", "write 0 512")
        self.assertNotEqual(code, 0, text)
        self.check("qemu-io", "-r", "-f", "raw", uri, "-c", "read 0 512")

    def test_wrong_use_is_told_in_one_line(self):
        for words in (["serve", "--nbd", "nonsense", str(self.folder / "none.raw")],
                      ["serve", "--nbd", str(self.folder / "s"), str(self.folder / "none.raw")]):
            code, text = run(PROGRAM, *words)
            self.assertEqual((code, text.count("\n")), (1, 1), text)
        code, text = run(PROGRAM, "serve", "image.raw")
        self.assertNotEqual(code, 0, text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
