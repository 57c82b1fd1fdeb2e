"""The host's end of the guest's network: sends a heartbeat, takes the guest's, and keeps account.

The formats are in guests/beacon/README.md. beacon speaks Ethernet directly, a Linux guest UDP.
"""

import socket
import struct

ETHERTYPE = 0x88B5
UDP_PORT = 7735
HEARTBEAT, ECHO_REQUEST, ECHO_REPLY = 1, 2, 3
ECHO_EVERY = 10
WINDOW = 64
_FRAME = struct.Struct("<4sIQQ")
_CHECK = struct.Struct("<I")


def fnv1a32(data) -> int:
    """The checksum of frames and lines."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def encode(kind, sequence) -> bytes:
    """One frame without its Ethernet header."""
    body = _FRAME.pack(b"GWHB", kind, sequence, 0)
    return body + _CHECK.pack(fnv1a32(body))


def decode(data):
    """(kind, sequence), or None for what is not an intact frame."""
    size = _FRAME.size + _CHECK.size
    if len(data) < size:
        return None
    magic, kind, sequence, _ = _FRAME.unpack_from(data)
    intact = _CHECK.unpack_from(data, _FRAME.size)[0] == fnv1a32(data[: _FRAME.size])
    return (kind, sequence) if magic == b"GWHB" and intact else None


class Account:
    """Counts a sequence: lost, doubled, reordered. Nothing before the first one is expected."""

    def __init__(self):
        self.received = self.lost = self.doubled = self.reordered = 0
        self.first = self._newest = None
        self._missing = set()

    def add(self, sequence) -> None:
        """One arrived."""
        self.received += 1
        if self._newest is None:
            self.first = self._newest = sequence
        elif sequence > self._newest:
            self._missing.update(range(max(self._newest + 1, sequence - WINDOW), sequence))
            self.lost += sequence - self._newest - 1
            self._newest = sequence
        elif sequence in self._missing:
            self._missing.discard(sequence)
            self.lost -= 1
            self.reordered += 1
        else:
            self.doubled += 1

    def as_json(self) -> dict:
        """The counts."""
        return {"received": self.received, "first": self.first, "lost": self.lost,
                "doubled": self.doubled, "reordered": self.reordered}


class Peer:
    """The host's end on one tap. kind "raw" for beacon, "udp" for a Linux guest."""

    def __init__(self, loop, kind, tap, guest_address=""):
        self._loop = loop
        self._raw = kind == "raw"
        if self._raw:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
            self._socket.bind((tap, ETHERTYPE))
            self._mac = self._socket.getsockname()[4]
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("", UDP_PORT))
            self._guest = (guest_address, UDP_PORT)
        self._socket.setblocking(False)
        self._sequence = 0
        self._asked = set()
        self.sent = self.damaged = self.echo_replies = self.not_sent = 0
        self.account = Account()
        loop.watch(self._socket.fileno(), self._readable)

    def start(self, rate_hz) -> None:
        """Heartbeats from now on; every tenth also asks for an echo."""
        self._loop.every("heartbeat", 1 / rate_hz, self._beat)

    def stop(self) -> None:
        """Sends nothing more; what comes is still counted."""
        self._loop.cancel("heartbeat")

    def close(self) -> None:
        """Give the socket back."""
        self.stop()
        self._loop.forget(self._socket.fileno())
        self._socket.close()

    def as_json(self) -> dict:
        """The counts of both directions as this end saw them."""
        return {"sent": self.sent, "not_sent": self.not_sent, "damaged": self.damaged,
                "echo_requests": self.echo_replies + len(self._asked), "echo_replies": self.echo_replies,
                "from_guest": self.account.as_json()}

    def _beat(self) -> None:
        if not self._send(HEARTBEAT, self._sequence + 1):
            return
        self._sequence += 1
        if self._sequence % ECHO_EVERY == 0 and self._send(ECHO_REQUEST, self._sequence):
            self._asked.add(self._sequence)

    def _send(self, kind, sequence) -> bool:
        data = encode(kind, sequence)
        try:
            if self._raw:
                header = b"\xff" * 6 + self._mac + ETHERTYPE.to_bytes(2, "big")
                self._socket.send((header + data).ljust(60, b"\0"))
            else:
                self._socket.sendto(data, self._guest)
        except OSError:
            self.not_sent += 1
            return False
        self.sent += 1
        return True

    def _readable(self) -> None:
        try:
            data, address = self._socket.recvfrom(2048)
        except OSError:
            return
        if self._raw:
            if address[2] == socket.PACKET_OUTGOING:
                return
            data = data[14:]
        frame = decode(data)
        if frame is None:
            self.damaged += 1
        elif frame[0] == ECHO_REPLY:
            self.echo_replies += frame[1] in self._asked
            self._asked.discard(frame[1])
        elif frame[0] == HEARTBEAT:
            self.account.add(frame[1])
