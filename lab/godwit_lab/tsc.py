"""How fast this machine's time stamp counter runs, for the command line of the emulated host.

An emulated rdtsc reads this machine's counter. The kernel measures its speed against an emulated timer, and on a
busy machine that has come out four times too low; the frozen host then ran four times too fast for good.
"""

from __future__ import annotations

import ctypes
import mmap
import time

_RDTSC = bytes.fromhex("0f3148c1e2204809d0c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret
_TRIES = 50
_INTERVAL_S = 0.1


def khz() -> int:
    """Counts per millisecond, rounded to 1000."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_RDTSC)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    first = _reading(read)
    time.sleep(_INTERVAL_S)
    second = _reading(read)
    return round((second[1] - first[1]) * 1_000_000 / (second[0] - first[0]) / 1000) * 1000


def _reading(read) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """(nanoseconds, counter) from the try that was interrupted least."""
    tries = []
    for _ in range(_TRIES):
        before = time.monotonic_ns()
        counter = read()
        after = time.monotonic_ns()
        tries.append((after - before, (before + after) // 2, counter))
    _, nanoseconds, counter = min(tries)
    return nanoseconds, counter
