"""The wire between two lab hosts: a socket pair inside one process, or a meeting by name between two.

Frames travel as datagrams (SOCK_SEQPACKET): one message is one Ethernet frame.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
from pathlib import Path

from .errors import EXIT_TIMEOUT, LabError
from .layout import exclusive

# Enough for a burst of full TSO-less windows without dropping on the emulator's side.
_BUFFER_BYTES = 4 << 20


def wire() -> tuple[socket.socket, socket.socket]:
    """Two connected ends for hosts started by the same process."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        _enlarge(end)
    return ends


def meet(cache: Path, name: str, limit_s: float) -> tuple[socket.socket, int]:
    """Meet the other `lab run --net NAME`. Gives the connected socket and the node number (1 or 2).

    Whoever comes first owns the name and is node 1. The name is abstract, so it disappears with its
    owner and can never be left over.
    """
    key = hashlib.sha256(f"{cache}/{name}".encode()).hexdigest()[:24]
    address = f"\0godwit-lab-{os.getuid()}-{key}"
    meeting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with exclusive(cache, "net.lock"):
        try:
            meeting.bind(address)
            meeting.listen(1)
        except OSError:
            meeting.connect(address)
            _enlarge(meeting)
            return meeting, 2
    ready, _, _ = select.select([meeting], [], [], limit_s)
    if not ready:
        raise LabError(f"nobody else came to network '{name}' within {limit_s:g} s", EXIT_TIMEOUT)
    peer, _ = meeting.accept()
    meeting.close()
    _enlarge(peer)
    return peer, 1


def _enlarge(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
