"""What the processes of a failed run were doing, for whoever looks into it."""

import os

from .machine import processes_of

_FILES = ("comm", "wchan", "syscall", "stack", "stat")


def write(run_dir, path) -> None:
    """One block per thread of every process of this run directory: where it waits, and its CPU time."""
    with open(path, "w") as file:
        for pid in processes_of(run_dir):
            file.write(f"== process {pid}: {_read(f'/proc/{pid}/cmdline')}\n")
            for thread in sorted(_list(f"/proc/{pid}/task"), key=int):
                file.write(f"-- thread {thread}\n")
                for name in _FILES:
                    file.write(f"{name}: {_read(f'/proc/{pid}/task/{thread}/{name}')}\n")


def _list(path) -> list:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _read(path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(4096).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError as error:
        return f"({error.strerror})"
