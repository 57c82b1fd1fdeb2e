"""A console of the guest: its bytes go to a file, its JSON lines become events."""

import json
import os
import socket
import time

CONNECT_LIMIT_S = 10


class Console:
    """Client of one console socket of a machine. Bytes are judged elsewhere; here they are only kept."""

    def __init__(self, loop, path, copy_to):
        self._loop = loop
        self._path = path
        self._copy = open(copy_to, "wb", buffering=0)
        self._partial = b""
        self.events = []
        self.open = False
        self.reconnects = -1
        self._connect(CONNECT_LIMIT_S)

    def send(self, command) -> None:
        """A control line for the guest."""
        self._socket.sendall(command.encode() + b"\n")

    def count(self, name) -> int:
        """How many events of that name have come."""
        return sum(event.get("event") == name for event in self.events)

    def last(self, name):
        """The newest event of a name, or None."""
        return next((event for event in reversed(self.events) if event.get("event") == name), None)

    def close(self) -> None:
        """Give everything back."""
        self._drop()
        self._copy.close()

    def _connect(self, limit_s) -> None:
        """The socket appears when the machine has started."""
        deadline = time.monotonic() + limit_s
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(self._path)
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.open = True
        self.reconnects += 1
        self._loop.watch(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._drop()
            self._try_again()
            return
        self._copy.write(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._line(line)

    def _try_again(self) -> None:
        """A connection may end while the machine lives; what it wrote meanwhile is kept for us."""
        if os.path.exists(self._path):
            try:
                self._connect(0)
            except OSError:
                pass

    def _line(self, line) -> None:
        if line.startswith(b'{"n":'):
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.events.append({"event": "damaged"})

    def _drop(self) -> None:
        if self.open:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self.open = False
