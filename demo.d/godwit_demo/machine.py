"""One machine under `godwit`, driven through its command line as a user would."""

import json
import os
import signal
import subprocess

from .loop import read_available


class Failed(Exception):
    """A command of godwit ended with an error."""


class Machine:
    """Runs godwit's commands inside the loop, so that consoles and network are served meanwhile."""

    def __init__(self, loop, godwit, name, run_dir, log_path):
        self._loop = loop
        self._godwit = godwit
        self._log = open(log_path, "ab", buffering=0)
        self._environment = {**os.environ, "GODWIT_RUN_DIR": run_dir}
        self._run_dir = run_dir
        self.name = name

    def command(self, *words, limit_s) -> dict:
        """godwit WORDS --json; what it printed. Its exit code is under "exit_code"."""
        process = subprocess.Popen([self._godwit, *words, "--json"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environment)
        collected = {process.stdout: b"", process.stderr: b""}
        ended = set()

        def take(stream):
            data = read_available(stream.fileno())
            collected[stream] += data
            if not data:
                ended.add(stream)
                self._loop.forget(stream.fileno())

        try:
            # Only stdout is waited for: a daemon started by the command may keep stderr.
            for stream in collected:
                self._loop.watch(stream.fileno(), lambda stream=stream: take(stream))
            self._loop.wait(f"the end of 'godwit {words[0]}'", limit_s, lambda: process.stdout in ended)
            code = process.wait(timeout=limit_s)
            output, complaint = collected[process.stdout], collected[process.stderr]
        finally:
            for stream in collected:
                self._loop.forget(stream.fileno())
                stream.close()
            if process.poll() is None:
                process.kill()
                process.wait()
        self._log.write(f"$ godwit {' '.join(words)} --json\n".encode() + output + complaint
                        + f"[exit code {code}]\n".encode())
        return {**_object_of(output), "exit_code": code, "complaint": complaint.decode(errors="replace").strip()}

    def must(self, *words, limit_s) -> dict:
        """As command(), but an exit code that is not 0 is Failed with godwit's own words."""
        answer = self.command(*words, limit_s=limit_s)
        if answer["exit_code"] != 0:
            reason = answer["complaint"] or json.dumps(answer)
            raise Failed(f"'godwit {words[0]}' ended with exit code {answer['exit_code']}: {reason[-600:]}")
        return answer

    @property
    def run_directory(self) -> str:
        """Where godwit keeps sockets and records of this run."""
        return self._run_dir

    def console_path(self, port) -> str:
        """Socket of a console port, "serial" or "virtio"."""
        return os.path.join(self._run_dir, "machines", self.name, f"console-{port}.sock")

    def close(self) -> None:
        """End whatever of this run directory still lives. Nothing to do after a clean run."""
        for pid in processes_of(self._run_dir):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._log.close()


def processes_of(run_dir) -> list:
    """Processes started with this run directory in their environment, this one and its parents excepted."""
    wanted = b"GODWIT_RUN_DIR=" + run_dir.encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in (os.getpid(), os.getppid()):
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(entry))
        except OSError:
            continue
    return found


def _object_of(output) -> dict:
    """The JSON object a command printed: all of its output, or its last line."""
    for text in (output, output.strip().rpartition(b"\n")[2]):
        try:
            value = json.loads(text)
        except ValueError:
            continue
        return value if isinstance(value, dict) else {"list": value}
    return {}
