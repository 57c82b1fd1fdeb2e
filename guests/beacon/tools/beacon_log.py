#!/usr/bin/env python3
"""Checks what beacon wrote: no line lost or doubled, every checksum right, no error reported.

Reads a console log from a file or standard input and prints a summary as JSON. The exit code is 1 if
a line is missing, repeated or damaged, or if beacon itself reported an error; 2 for wrong usage.
As a module: `Log` takes bytes as they come and keeps the parsed events.
"""

import argparse
import json
import sys

TRAILER = ',"crc":"'


def fnv1a32(data: bytes) -> int:
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


class Log:
    """Lines of one run of beacon, fed in any pieces."""

    def __init__(self):
        self.events = []
        self.violations = []
        self._partial = b""
        self._lines = 0

    def feed(self, data: bytes) -> list:
        """Takes bytes, returns the events completed by them."""
        first_new = len(self.events)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._line(line.rstrip(b"\r"))
        return self.events[first_new:]

    def close(self) -> None:
        """The log is complete: a line without an end is a violation."""
        if self._partial.strip(b"\r"):
            self._violation(f"unfinished line: {self._partial[:80]!r}")
        self._partial = b""

    def last(self, name: str):
        """The newest event of a name, or None."""
        return next((e for e in reversed(self.events) if e.get("event") == name), None)

    def summary(self) -> dict:
        counts = {}
        for event in self.events:
            counts[event["event"]] = counts.get(event["event"], 0) + 1
        final = self.last("final")
        errors = [e for e in self.events if e["event"] in ("error", "panic")]
        return {
            "lines": len(self.events),
            "events": counts,
            "violations": self.violations,
            "beacon_errors": errors,
            "final_ok": final["ok"] if final else None,
            "ok": not self.violations and not errors and (final is None or final["ok"]),
        }

    def _violation(self, text: str) -> None:
        self.violations.append(f"line {self._lines}: {text}")

    def _line(self, raw: bytes) -> None:
        self._lines += 1
        # The very first byte of the guest is a B on the serial port, before any line.
        if not raw or (not self.events and raw == b"B"):
            return
        try:
            text = raw.decode("ascii")
            event = json.loads(text)
            body, crc = text.rsplit(TRAILER, 1)
            number, _ = event["n"], event["event"]
        except (ValueError, KeyError, TypeError):
            self._violation(f"not a line of beacon: {raw[:80]!r}")
            return
        if crc != f'{fnv1a32(body.encode()):08x}"}}':
            self._violation(f"checksum of n={number} is wrong")
            return
        expected = self.events[-1]["n"] + 1 if self.events else 0
        if number != expected:
            self._violation(f"n={number}, expected {expected}")
        self.events.append(event)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("log", nargs="?", help="console log (default: standard input)")
    parser.add_argument("--require-final", action="store_true", help="fail without a final line")
    arguments = parser.parse_args()
    log = Log()
    if arguments.log:
        with open(arguments.log, "rb") as file:
            log.feed(file.read())
    else:
        log.feed(sys.stdin.buffer.read())
    log.close()
    summary = log.summary()
    if arguments.require_final and summary["final_ok"] is None:
        summary["ok"] = False
        summary["violations"].append("no final line")
    if not log.events:
        summary["ok"] = False
        summary["violations"].append("no line of beacon at all")
    json.dump(summary, sys.stdout, indent=2)
    print()
    return 0 if summary["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
