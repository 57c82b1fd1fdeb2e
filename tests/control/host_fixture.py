"""A godwitd of its own for each test, with stand-ins for godwit-vmm, and everything cleaned up afterwards."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

BIN = pathlib.Path(os.environ.get("GODWIT_BIN", pathlib.Path(__file__).parents[2] / "build/dev/bin"))
FAKE_VMM = pathlib.Path(__file__).with_name("fake_vmm.py")
# Only a bound for tests that fail: everything waits for events.
PATIENCE_S = float(os.environ.get("GODWIT_TEST_PATIENCE", "60"))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE_S)
        self.unix_path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


def processes_with(text):
    """Pids of processes with `text` in their arguments."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class HostTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="gwt-", dir="/tmp"))
        self.run_dir = self.root / "r"
        self.environment = dict(os.environ, GODWIT_RUN_DIR=str(self.run_dir), GODWIT_VMM=str(self.fake()),
                                GODWITD=str(BIN / "godwitd"),
                                GODWIT_SERVICE_PARTITION="off")  # Scripts are not found inside one.
        self.daemon_command = [BIN / "godwitd"]
        self.daemon = None
        self.addCleanup(self.clean)

    def clean(self):
        if self.daemon is not None:
            self.stop_daemon()
        for pid in processes_with(str(self.run_dir)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.root, ignore_errors=True)

    def fake(self, *faults):
        """A program that behaves like godwit-vmm but for the given faults."""
        path = self.root / ".".join(["fake-vmm", *faults])
        if not path.exists():
            path.symlink_to(FAKE_VMM)
        return path

    # -- godwitd ---------------------------------------------------------------------------------------------

    def start_daemon(self, *arguments):
        """Starts godwitd and gives the line it says when it is ready or has failed."""
        reader, writer = os.pipe()
        log = open(self.root / "godwitd.log", "ab")
        self.daemon = subprocess.Popen([*self.daemon_command, "--ready-fd", str(writer), *arguments],
                                       env=self.environment, pass_fds=[writer], stderr=log)
        log.close()
        os.close(writer)
        with os.fdopen(reader) as pipe:
            line = pipe.readline()
        self.assertTrue(line, self.daemon_log())
        return json.loads(line)

    def daemon_log(self):
        return (self.root / "godwitd.log").read_text(errors="replace")

    def stop_daemon(self):
        daemon, self.daemon = self.daemon, None
        daemon.terminate()
        self.assertEqual(daemon.wait(PATIENCE_S), 0, self.daemon_log())

    def kill_daemon(self):
        daemon, self.daemon = self.daemon, None
        daemon.kill()
        daemon.wait()

    # -- API ---------------------------------------------------------------------------------------------------

    def ask(self, method, path, body=None):
        connection = UnixConnection(self.run_dir / "godwitd.sock")
        try:
            text = body if isinstance(body, (str, bytes)) else None if body is None else json.dumps(body)
            connection.request(method, path, text)
            response = connection.getresponse()
            answer = response.read()
            return response.status, json.loads(answer) if answer[:1] == b"{" else answer.decode()
        finally:
            connection.close()

    def good(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        self.assertLess(status, 300, answer)
        return answer

    def run_machine(self, name="web1", command_line=""):
        return self.good("POST", "/api/v1/machines",
                         {"name": name, "kernel": {"path": "/boot/kernel", "command_line": command_line}})

    def machine(self, name="web1"):
        return self.good("GET", f"/api/v1/machines/{name}")

    def finished(self, operation):
        """The operation once it has ended."""
        end = time.monotonic() + PATIENCE_S
        while operation["state"] == "running":
            self.assertLess(time.monotonic(), end, operation)
            operation = self.good(
                "GET", f"/api/v1/operations/{operation['id']}?wait_ms=5000&revision={operation['revision']}")
        return operation

    def operate(self, path, body):
        return self.finished(self.good("PUT", path, body))

    def events(self, since=0):
        text = self.good("GET", f"/api/v1/events?since={since}&follow=false")
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    def wait_event(self, name, /, since=0, **members):
        """The first event of a kind after `since`, waiting for it."""
        connection = UnixConnection(self.run_dir / "godwitd.sock")
        try:
            connection.request("GET", f"/api/v1/events?since={since}")
            response = connection.getresponse()
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end:
                line = response.readline().decode()
                if line.startswith("data: "):
                    event = json.loads(line[6:])
                    if event["event"] == name and all(event.get(key) == value for key, value in members.items()):
                        return event
            return self.fail(f"no event {name} {members}")
        finally:
            connection.close()

    # -- what is left ------------------------------------------------------------------------------------------

    def vmm_pids(self):
        return [pid for pid in processes_with(str(self.run_dir)) if alive(pid) and
                b"--instance" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]

    def sockets(self, name="web1"):
        return sorted(path.name for path in (self.run_dir / "machines" / name).glob("*.sock"))

    def assert_nothing_left(self):
        # A process that was told to end, or has told why it ends, needs a moment to be gone.
        deadline = time.monotonic() + 10
        while self.vmm_pids() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.vmm_pids(), [])
        self.assertEqual(list((self.run_dir / "machines").iterdir()), [])

    # -- command line --------------------------------------------------------------------------------------------

    def godwit(self, *arguments, code=0, stdin=""):
        result = subprocess.run([BIN / "godwit", *arguments], env=self.environment, input=stdin, text=True,
                                capture_output=True, timeout=PATIENCE_S, check=False)
        if code is not None:
            self.assertEqual(result.returncode, code, (arguments, result.stdout[:2000], result.stderr[:2000], self.cli_daemon_log()))
        return result

    def cli_daemon_log(self):
        log = self.run_dir / "godwitd.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""
