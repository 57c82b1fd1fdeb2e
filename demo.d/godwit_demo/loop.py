"""One select loop for the descriptors the driver watches, and its waiting with a limit."""

import os
import select
import time


class Late(Exception):
    """Something did not happen within its limit."""


class Loop:
    """Descriptors with a function each, and one timer per name. One thread."""

    def __init__(self):
        self._readers = {}
        self._timers = {}

    def watch(self, fd, ready) -> None:
        """Call ready() whenever fd is readable."""
        self._readers[fd] = ready

    def forget(self, fd) -> None:
        """Stop watching; harmless if nothing was watched."""
        self._readers.pop(fd, None)

    def every(self, name, seconds, action) -> None:
        """Call action() in that interval until cancel(name)."""
        self._timers[name] = [time.monotonic() + seconds, seconds, action]

    def cancel(self, name) -> None:
        """End a timer; harmless if there is none."""
        self._timers.pop(name, None)

    def wait(self, what, limit_s, done) -> None:
        """Serve everything until done() is true; Late after the limit."""
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() >= deadline:
                raise Late(f"{what} did not happen within {limit_s:g} s")
            self._turn(deadline)

    def serve(self, seconds) -> None:
        """Serve everything for a while: time for the load to do its work, not a wait for an event."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._turn(end)

    def _turn(self, deadline) -> None:
        due = min([deadline, *(timer[0] for timer in self._timers.values())])
        ready, _, _ = select.select(list(self._readers), [], [], max(0.0, due - time.monotonic()))
        for fd in ready:
            if fd in self._readers:
                self._readers[fd]()
        self._run_timers()

    def _run_timers(self) -> None:
        now = time.monotonic()
        for timer in list(self._timers.values()):
            if timer[0] <= now:
                timer[0] = max(timer[0] + timer[1], now)
                timer[2]()


def read_available(fd) -> bytes:
    """What a descriptor has now; empty at its end."""
    try:
        return os.read(fd, 65536)
    except ConnectionError:
        return b""
