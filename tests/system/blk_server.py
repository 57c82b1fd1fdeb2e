"""godwit-blk processes for tests, their control sockets, and an NBD client that remembers what it was told.

The directory of the programs is in GODWIT_BIN.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path

from adopted import Adopted

BIN = Path(os.environ.get("GODWIT_BIN", "build/release/bin"))
LIMIT_S = 60


class Refused(Exception):
    """A request at a control socket was answered with an error."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]


class Server:
    """One godwit-blk; its run directory and log lie in `folder`."""

    def __init__(self, folder, image, *flags, program=BIN / "godwit-blk", environment=None, wrapper=()):
        self.folder = Path(folder)
        self.words = [*wrapper, program, "serve", "--json", "--lock-wait", "5", *flags, image]
        self.environment = {**os.environ, "GODWIT_RUN_DIR": str(self.folder / "run"), **(environment or {})}
        self.log_path = self.folder / "server.log"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=log, env=self.environment)
        self.output = self.process.stdout
        line = self.output.readline()
        self.ready = json.loads(line) if line else None
        assert self.ready and self.ready["ok"], self.log_path.read_text()

    def call(self, method, **params):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(LIMIT_S)
            control.connect(self.ready["control"])
            control.send(json.dumps({"id": 1, "method": method, "params": params}).encode())
            packet = control.recv(1 << 17)
        if not packet:
            raise ConnectionError("the server has gone")
        answer = json.loads(packet)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    def disk(self):
        return self.call("disks")["disks"][0]

    def godwit(self, *words):
        """The command line; gives exit code, the document it prints, and its complaints."""
        done = subprocess.run([BIN / "godwit", "--json", *map(str, words)], capture_output=True, text=True,
                              timeout=LIMIT_S, env=self.environment)
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    def events(self, name):
        return [record for line in self.log_path.read_text().splitlines()
                if line.startswith("{") and (record := json.loads(line))["event"] == name]

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=LIMIT_S)
        self.output.close()
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=LIMIT_S)
        self.output.close()

    def follow(self, pid):
        """The present process has been exchanged for `pid`; gives how it ended."""
        code = self.process.wait(timeout=LIMIT_S)
        self.process = Adopted(pid)
        return code


class Client:
    """A plain NBD client over a UNIX socket, one command at a time."""

    MAGIC, OPTION, REQUEST, REPLY = b"NBDMAGIC", b"IHAVEOPT", 0x25609513, 0x67446698
    READ, WRITE, DISCONNECT = 0, 1, 2

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(str(path))
        assert self.take(18)[:16] == self.MAGIC + self.OPTION
        self.socket.sendall(struct.pack(">I", 3) + self.OPTION + struct.pack(">II", 1, 0))
        self.bytes = struct.unpack(">QH", self.take(10))[0]

    def take(self, count):
        got = b""
        while len(got) < count:
            part = self.socket.recv(count - len(got))
            if not part:
                raise ConnectionError("the server has gone")
            got += part
        return got

    def command(self, kind, offset, data=b"", count=0):
        count = len(data) or count
        self.socket.sendall(struct.pack(">IHHQQI", self.REQUEST, 0, kind, 7, offset, count) + data)
        magic, error, handle = struct.unpack(">IIQ", self.take(16))
        assert (magic, handle) == (self.REPLY, 7)
        if error:
            raise OSError(error, "the server answered an error")
        return self.take(count) if kind == self.READ else b""

    def close(self):
        self.socket.close()


class Writer(threading.Thread):
    """Writes numbered blocks until it is stopped or the server goes, and remembers for each block the newest number
    that was acknowledged, and the newest that was sent. What is read later must lie between them."""

    BLOCK = 4096

    def __init__(self, path, blocks, seed=1):
        super().__init__(daemon=True)
        self.client = Client(path)
        self.blocks, self.state = blocks, seed
        self.sent, self.told = [0] * blocks, [0] * blocks
        self.acknowledged = 0
        self.stopping = threading.Event()
        self.error = None

    def run(self):
        number = 0
        try:
            while not self.stopping.is_set():
                self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
                block = (self.state >> 33) % self.blocks
                number += 1
                self.sent[block] = number
                self.client.command(Client.WRITE, block * self.BLOCK, struct.pack(">QQ", block, number) * 256)
                self.told[block] = number
                self.acknowledged += 1
        except (ConnectionError, OSError) as error:
            self.error = error

    def stop(self):
        self.stopping.set()
        self.join(LIMIT_S)
        self.client.close()

    def violations(self, path):
        """Blocks that hold something else than what was written last, or torn."""
        client = Client(path)
        wrong = []
        for block in range(self.blocks):
            data = client.command(Client.READ, block * self.BLOCK, count=self.BLOCK)
            at, number = struct.unpack(">QQ", data[:16])
            whole = data == data[:16] * 256 and (number == 0 or at == block)
            if not whole or not self.told[block] <= number <= self.sent[block]:
                wrong.append((block, at, number, self.told[block], self.sent[block]))
        client.close()
        return wrong
