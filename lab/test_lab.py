#!/usr/bin/python3
"""Tests of the laboratory itself, against a prepared `host` variant (prepared here if it is not)."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

LAB = Path(__file__).resolve().parent / "lab"

KVM_CHECK = r"""
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
int main(void) {
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int version = kvm < 0 ? -1 : ioctl(kvm, KVM_GET_API_VERSION, 0);
    int machine = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    printf("api %d machine %s\n", version, machine >= 0 ? "yes" : "no");
    return version == 12 && machine >= 0 ? 0 : 1;
}
"""


def lab(*arguments: str, limit: float = 90) -> subprocess.CompletedProcess[str]:
    """Run the tool to its end."""
    return subprocess.run([LAB, *arguments], capture_output=True, text=True, timeout=limit)


def emulators_of(parent: int) -> list[int]:
    """QEMU processes started by one `lab` process."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if "qemu" in Path(f"/proc/{child}/comm").read_text()]


def wait_gone(pid: int, limit: float) -> bool:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], limit)[0])
    finally:
        os.close(descriptor)


class LabTest(unittest.TestCase):
    """Shared folder and helpers."""

    @classmethod
    def setUpClass(cls) -> None:
        done = lab("prepare", limit=300)
        if done.returncode != 0:
            raise AssertionError(f"prepare failed: {done.stderr}")

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)

    def script(self, text: str, name: str = "script.sh") -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def program(self, source: str, *flags: str) -> str:
        path = self.folder / "program"
        subprocess.run(["gcc", "-O1", "-x", "c", "-", "-o", path, *flags], input=source, text=True, check=True)
        return str(path)


class RunTest(LabTest):
    """One host."""

    def test_command_exit_code_and_output_pass_through(self) -> None:
        done = lab("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
        self.assertEqual((done.returncode, done.stdout), (7, "out\nerr\n"))

    def test_output_is_binary_safe_and_complete(self) -> None:
        done = subprocess.run([LAB, "run", "--", "dd", "if=/dev/zero", "bs=65536", "count=64"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        self.assertEqual(done.stdout.count(b"\0"), 64 * 65536)

    def test_files_go_in_and_results_come_back(self) -> None:
        payload = self.folder / "payload"
        (payload / "sub").mkdir(parents=True)
        blob = os.urandom(3 << 20)
        (payload / "sub" / "blob").write_bytes(blob)
        (self.folder / "note").write_text("hello\n")
        script = self.script('cat note /tmp/renamed; cp sub/blob "$LAB_OUT/copy"; echo "$WORD"')
        note = str(self.folder / "note")
        done = lab("run", "--payload", str(payload), "--file", note, "--file", f"{note}:/tmp/renamed",
                   "--env", "WORD=two words", "--out", str(self.folder / "out"), "--script", script)
        self.assertEqual((done.returncode, done.stdout), (0, "hello\nhello\ntwo words\n"))
        self.assertEqual((self.folder / "out" / "copy").read_bytes(), blob)

    def test_clock_runs_as_fast_as_ours(self) -> None:
        process = subprocess.Popen([LAB, "run", "--", "sh", "-c", "cat /proc/uptime; sleep 2; cat /proc/uptime"],
                                   stdout=subprocess.PIPE, text=True)
        lines = [(line, time.monotonic()) for line in process.stdout or []]
        process.wait(timeout=60)
        theirs = float(lines[1][0].split()[0]) - float(lines[0][0].split()[0])
        ours = lines[1][1] - lines[0][1]
        self.assertAlmostEqual(theirs / ours, 1, delta=0.25)

    def test_results_larger_than_a_socket_are_complete(self) -> None:
        for _ in range(4):
            done = lab("run", "--out", str(self.folder / "out"), "--", "sh", "-c",
                       'head -c 3000000 /dev/zero > "$LAB_OUT/blob"; head -c 600000 /dev/zero | tr "\\0" x')
            self.assertEqual((done.returncode, len(done.stdout)), (0, 600000), done.stderr)
            self.assertEqual((self.folder / "out" / "blob").stat().st_size, 3000000)

    def test_kvm_works_inside(self) -> None:
        done = lab("run", "--file", self.program(KVM_CHECK, "-static"), "--", "program")
        self.assertEqual((done.returncode, done.stdout), (0, "api 12 machine yes\n"))

    def test_program_brings_its_shared_libraries(self) -> None:
        done = lab("run", "--file", self.program(KVM_CHECK, "-fsanitize=address"), "--", "program")
        self.assertEqual((done.returncode, done.stdout), (0, "api 12 machine yes\n"), done.stderr)

    def test_time_limit_ends_the_run_with_124(self) -> None:
        started = time.monotonic()
        done = lab("run", "--timeout", "2", "--", "sh", "-c", "echo early; sleep 60")
        self.assertEqual((done.returncode, done.stdout), (124, "early\n"))
        self.assertIn("time limit of 2 s", done.stderr)
        self.assertLess(time.monotonic() - started, 10)

    def test_panic_is_reported_with_the_console(self) -> None:
        done = lab("run", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60")
        self.assertEqual(done.returncode, 125)
        self.assertIn("Kernel panic", done.stderr)

    def test_scratch_disks_have_the_wanted_size_and_take_o_direct(self) -> None:
        script = self.script(
            ". /lab/lib.sh; blockdev --getsize64 /dev/scratch; blockdev --getsize64 /dev/scratch2\n"
            "scratch_ext4 /mnt && dd if=/dev/zero of=/mnt/f bs=4096 count=64 oflag=direct 2> /dev/null && echo ok")
        done = lab("run", "--disk", "512M", "--disk", "4G", "--script", script)
        self.assertEqual((done.returncode, done.stdout), (0, f"{512 << 20}\n{4 << 30}\nok\n"), done.stderr)

    def test_json_report_is_written(self) -> None:
        report = self.folder / "report.json"
        lab("run", "--json", str(report), "--", "false")
        written = json.loads(report.read_text())
        self.assertEqual((written["exit_code"], written["timed_out"]), (1, False))
        self.assertLess(written["seconds"]["restored"], written["seconds"]["total"])


class ShellTest(LabTest):
    """The interactive terminal."""

    def test_shell_is_a_terminal_and_gives_its_exit_code(self) -> None:
        ours, theirs = pty.openpty()
        with subprocess.Popen([LAB, "shell"], stdin=theirs, stdout=theirs, stderr=theirs) as shell:
            os.close(theirs)
            os.write(ours, b"tty; test -t 0 && echo answer $((6 * 7)); exit 5\r")
            seen = b""
            with contextlib.suppress(OSError):  # the terminal reports EIO once the other side is gone
                while chunk := os.read(ours, 4096):
                    seen += chunk
            code = shell.wait(timeout=30)
        os.close(ours)
        self.assertEqual(code, 5)
        self.assertIn(b"answer 42", seen)
        self.assertIn(b"/dev/hvc0", seen)


class CopiesTest(LabTest):
    """Several hosts from one frozen image."""

    def test_two_at_once_do_not_see_each_other_and_draw_different_random_numbers(self) -> None:
        command = [LAB, "run", "--", "sh", "-c",
                   "[ ! -e /mine ] && touch /mine && sleep 1 && od -An -N16 -tx8 /dev/urandom && date +%s"]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        outputs = [run.communicate(timeout=60)[0].split() for run in runs]
        self.assertEqual([run.returncode for run in runs], [0, 0])
        self.assertNotEqual(outputs[0][:2], outputs[1][:2])
        for output in outputs:
            self.assertLess(abs(int(output[2]) - time.time()), 30)

    def test_pair_has_a_network_and_barriers(self) -> None:
        ping = 'lab_barrier up\nping -c 2 -W 5 "$LAB_PEER" > /dev/null && echo "peer answers"\n'
        a = self.script('. /lab/lib.sh; echo a > "$LAB_OUT/name"\n' + ping, "a.sh")
        b = self.script('. /lab/lib.sh; echo b > "$LAB_OUT/name"\n' + ping + "lab_barrier never\nexit 3", "b.sh")
        out = self.folder / "out"
        done = lab("pair", "--timeout", "6", "--script-a", a, "--script-b", b, "--out", str(out))
        self.assertEqual(done.returncode, 124, done.stderr)
        self.assertEqual(sorted(done.stdout.splitlines()), ["[a] peer answers", "[b] peer answers"])
        self.assertEqual((out / "a" / "name").read_text(), "a\n")

    def test_named_network_joins_two_runs(self) -> None:
        name = f"test-{os.getpid()}"
        command = [LAB, "run", "--net", name, "--", "sh", "-c",
                   'until ping -c 1 -W 1 "$LAB_PEER" > /dev/null; do :; done; echo "$LAB_NODE"; sleep 2']
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        outputs = sorted(run.communicate(timeout=60)[0] for run in runs)
        self.assertEqual(outputs, ["1\n", "2\n"])


class LeftoversTest(LabTest):
    """Nothing stays behind, whoever is killed."""

    def files(self) -> set[str]:
        cache = Path(json.loads(lab("status", "--json").stdout)["cache"])
        return {str(path) for path in cache.rglob("*")}

    def killed_by(self, number: int) -> tuple[int, set[str]]:
        """Start a run, kill the tool once the script talks; gives its return code and new files."""
        before = self.files()
        with subprocess.Popen([LAB, "run", "--", "sh", "-c", "echo up; sleep 60"],
                              stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            self.assertEqual(run.stdout.readline(), b"up\n")
            emulators = emulators_of(run.pid)
            self.assertEqual(len(emulators), 1)
            run.send_signal(number)
            code = run.wait(timeout=20)
        self.assertTrue(wait_gone(emulators[0], 20))
        return code, self.files() - before

    def test_kill_9_of_the_tool_leaves_nothing(self) -> None:
        self.assertEqual(self.killed_by(signal.SIGKILL), (-signal.SIGKILL, set()))

    def test_termination_leaves_nothing(self) -> None:
        self.assertEqual(self.killed_by(signal.SIGTERM), (128 + signal.SIGTERM, set()))


class UsageTest(unittest.TestCase):
    """Bad input gets one clear line and code 2. Needs no prepared host."""

    def refused(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run([LAB, *arguments], capture_output=True, text=True, timeout=60,
                              env={**os.environ, **environment})
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done.stderr

    def test_unknown_variant(self) -> None:
        self.assertIn("unknown variant 'huge'", self.refused("run", "--variant", "huge", "--", "true"))

    def test_missing_script(self) -> None:
        self.assertIn("cannot read /nowhere", self.refused("run", "--script", "/nowhere"))

    def test_missing_file(self) -> None:
        self.assertIn("no such file", self.refused("run", "--file", "/nowhere", "--", "true"))

    def test_malformed_size(self) -> None:
        self.assertIn("not a size", self.refused("run", "--disk", "big", "--", "true"))

    def test_cache_that_cannot_be_created(self) -> None:
        self.assertIn("set GODWIT_LAB_DIR", self.refused("status", GODWIT_LAB_DIR="/proc/nowhere"))


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
