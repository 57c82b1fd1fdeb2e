"""godwit as its users see it: output, exit codes, consoles, and the godwitd it starts by itself."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
import unittest

from host_fixture import BIN, PATIENCE_S, HostTest


class Commands(HostTest):
    def run_web1(self, *more):
        return self.godwit("run", "web1", "--kernel", "/boot/kernel", *more)

    def test_run_starts_a_daemon_and_a_machine(self):
        result = self.run_web1("--cpus", "2", "--memory", "512M", "--disk", "a.img,ro", "--net", "tap=tap0")
        self.assertRegex(result.stdout, r"^web1 is running: 2 vCPU, 512M memory, VMM process \d+\n$")
        table = self.godwit("ps").stdout.splitlines()
        self.assertRegex(table[0], r"^NAME +STATE +VCPUS +MEMORY +PID +BUILD +EPOCH +UP$")
        self.assertRegex(table[1], r"^web1 +running +2 +512M +\d+ ")
        info = json.loads(self.godwit("info", "web1", "--json").stdout)
        self.assertEqual(info["spec"]["disks"][0]["path"], os.path.join(os.getcwd(), "a.img"))
        self.assertIn("console serial", self.godwit("info", "web1").stdout)
        self.godwit("stop", "web1", "--force")
        self.assertEqual(self.godwit("ps", "--json").stdout, '{"machines":[]}\n')

    def test_pause_resume_balloon_and_disk(self):
        self.run_web1()
        self.assertEqual(self.godwit("pause", "web1").stdout, "web1 stands still\n")
        self.assertEqual(json.loads(self.godwit("ps", "--json").stdout)["machines"][0]["state"], "paused")
        self.assertEqual(json.loads(self.godwit("resume", "web1", "--json").stdout)["state"], "running")
        self.godwit("balloon", "web1", "64M")
        self.godwit("balloon", "web1", "1000", code=2)
        self.godwit("disk", "refresh", "web1", "disk0")
        self.godwit("disk", "refresh", "web1", "disk7", code=1)
        self.godwit("disk", "refresh", "web1", "../x", code=2)

    def test_exchange_reports_and_its_exit_codes(self):
        self.run_web1()
        result = self.godwit("exchange", "web1", "--json")
        self.assertEqual(json.loads(result.stdout)["outcome"], "done")
        self.assertIn("stood still for 1.2 ms", self.godwit("exchange", "web1").stdout)
        failed = self.godwit("exchange", "web1", "--to", str(self.fake("crash-on-offer")), "--json", code=1)
        self.assertEqual(json.loads(failed.stdout)["outcome"], "rolled_back")
        self.assertIn("runs on", json.loads(failed.stderr)["error"]["message"])
        self.godwit("run", "web2", "--kernel", "/k", "--cmdline", "crash-after-commit")
        self.godwit("exchange", "web2", code=3)
        self.godwit("exchange", "web1", "--to", "/missing/vmm", code=1)

    def test_snapshot_and_restore(self):
        self.run_web1()
        self.godwit("snapshot", "web1", str(self.root / "shot"))
        self.assertIn("web2 is running", self.godwit("restore", str(self.root / "shot"), "--name", "web2").stdout)
        self.godwit("restore", str(self.root / "none"), code=1)

    def test_mistakes_are_told_apart_by_exit_codes(self):
        for arguments in (["fly"], ["run", "web1"], ["run", "WEB", "--kernel", "k"], ["info", "a/b"],
                          ["run", "web1", "--kernel", "k", "--memory", "lots"],
                          ["run", "web1", "--kernel", "k", "--disk", "x,rw"],
                          ["run", "web1", "--spec", "/missing/file"]):
            self.godwit(*arguments, code=2)
        self.assertFalse((self.run_dir / "godwitd.sock").exists(), "bad input starts nothing")
        error = json.loads(self.godwit("info", "web9", "--json", code=1).stderr)["error"]
        self.assertEqual(error["code"], "not_found")
        error = json.loads(self.godwit("ps", "--wings", "--json", code=2).stderr)["error"]
        self.assertEqual(error["code"], "invalid_argument")
        self.godwit("run", "web1", "--kernel", "/missing/kernel", code=1)
        self.environment["GODWIT_RUN_DIR"] = str(self.root / ("x" * 100))
        self.assertIn("GODWIT_RUN_DIR", self.godwit("ps", code=2).stderr)

    def test_many_commands_at_once_share_one_daemon(self):
        commands = [subprocess.Popen([BIN / "godwit", "ps", "--json"], env=self.environment, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
        for command in commands:
            out, error = command.communicate(timeout=PATIENCE_S)
            self.assertEqual((out, error), ('{"machines":[]}\n', ""))

    def test_machine_outlives_the_daemon_the_command_line_started(self):
        self.run_web1()
        before = json.loads(self.godwit("info", "web1", "--json").stdout)["vmm"]["pid"]
        version = self.ask("GET", "/api/v1/version")[1]
        os.kill(version["pid"], signal.SIGKILL)
        after = json.loads(self.godwit("info", "web1", "--json").stdout)
        self.assertEqual((after["vmm"]["pid"], after["state"]), (before, "running"))

    def test_events_as_text_and_json(self):
        self.run_web1()
        self.assertIn("started  web1", self.godwit("events").stdout)
        lines = [json.loads(line) for line in self.godwit("events", "--json").stdout.splitlines()]
        since = str(lines[-2]["id"])
        rest = [json.loads(line) for line in self.godwit("events", "--json", "--since", since).stdout.splitlines()]
        self.assertEqual(rest, lines[-1:])

    def test_help_and_version_need_no_daemon(self):
        self.assertIn("Examples:", self.godwit("run", "--help").stdout)
        self.assertRegex(self.godwit("version").stdout, r"^godwit \S+ \(build [0-9a-f]+\)\n$")
        self.assertIn("build_id", json.loads(self.godwit("version", "--json").stdout))
        self.assertFalse(self.run_dir.exists())

    def test_manual_pages_are_well_formed(self):
        self.godwit("generate", "man", str(self.root / "man"))
        pages = sorted((self.root / "man").iterdir())
        self.assertGreater(len(pages), 15)
        for page in pages:
            result = subprocess.run(["man", "--warnings=all", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)],
                                    capture_output=True, text=True, check=True)
            self.assertEqual(result.stderr, "", page)

    def complete(self, line):
        script = self.root / "completion"
        script.write_text(self.godwit("completion", "bash").stdout)
        words = line.split(" ")
        code = (f"source {script}; COMP_WORDS=({' '.join(word or chr(39) * 2 for word in words)}); "
                f"COMP_CWORD={len(words) - 1}; _godwit; echo ${{COMPREPLY[@]}}")
        return subprocess.run(["bash", "-c", code], env=self.environment, capture_output=True, text=True,
                              check=True).stdout.split()

    def test_completion_knows_commands_flags_and_machines(self):
        self.assertEqual(self.complete("godwit ex"), ["exchange"])
        self.assertEqual(self.complete("godwit exchange --to"), ["--to"])
        self.assertEqual(self.complete("godwit disk re"), ["refresh"])
        self.assertEqual(self.complete("godwit run x --serial o"), ["on", "off"])
        self.run_web1()
        self.assertEqual(self.complete("godwit stop w"), ["web1"])


class Console(HostTest):
    def setUp(self):
        super().setUp()
        self.godwit("run", "web1", "--kernel", "/boot/kernel")

    def test_pipes_carry_bytes_until_the_machine_ends(self):
        result = self.godwit("console", "web1", stdin="hello\npoweroff\n")
        self.assertEqual(result.stdout, "serial of web1, epoch 1\nHELLO\nPOWEROFF\n")
        result = self.godwit("console", "web1", code=1)
        self.assertIn("there is no machine", result.stderr)

    def test_files_carry_bytes_too(self):
        typed = self.root / "typed"
        typed.write_text("a file\npoweroff\n")
        with open(typed, encoding="ascii") as stdin:
            result = subprocess.run([BIN / "godwit", "console", "web1", "--port", "virtio"], env=self.environment,
                                    stdin=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        self.assertEqual(result.stdout, "virtio of web1, epoch 1\nA FILE\nPOWEROFF\n")

    def test_console_comes_back_after_an_exchange(self):
        console = subprocess.Popen([BIN / "godwit", "console", "web1"], env=self.environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(console.stdout.readline(), "serial of web1, epoch 1\n")
        self.godwit("exchange", "web1")
        self.assertEqual(console.stdout.readline(), "serial of web1, epoch 2\n")
        console.stdin.write("poweroff\n")
        console.stdin.flush()
        self.assertEqual(console.stdout.readline(), "POWEROFF\n")
        console.stdin.close()
        self.assertEqual(console.wait(PATIENCE_S), 0)
        console.stdout.close()

    def read_until(self, terminal, text):
        data = b""
        end = time.monotonic() + PATIENCE_S
        while text not in data:
            self.assertTrue(select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0], data)
            data += os.read(terminal, 4096)
        return data

    def test_terminal_is_raw_and_put_back(self):
        for how in ("escape", "signal"):
            outer, inner = pty.openpty()
            before = termios.tcgetattr(inner)
            console = subprocess.Popen([BIN / "godwit", "console", "web1"], env=self.environment, stdin=inner,
                                       stdout=inner, stderr=inner)
            self.read_until(outer, b"epoch 1\n")
            self.assertFalse(termios.tcgetattr(inner)[3] & termios.ICANON)
            os.write(outer, b"abc")
            self.read_until(outer, b"ABC")
            if how == "escape":
                os.write(outer, b"\x1d.")
                self.assertEqual(console.wait(PATIENCE_S), 0)
            else:
                console.send_signal(signal.SIGTERM)
                self.assertEqual(console.wait(PATIENCE_S), -signal.SIGTERM)
            self.assertEqual(termios.tcgetattr(inner), before)
            os.close(outer)
            os.close(inner)

    def test_interrupt_cancels_an_exchange(self):
        exchange = subprocess.Popen([BIN / "godwit", "exchange", "web1", "--deadline-ms", "60000", "--to",
                                     str(self.fake("silent-on-offer"))], env=self.environment, text=True,
                                    stderr=subprocess.PIPE)
        self.wait_event("exchange", phase="prepare")
        exchange.send_signal(signal.SIGINT)
        _, error = exchange.communicate(timeout=PATIENCE_S)
        self.assertEqual(exchange.returncode, 1, error)
        self.assertTrue(re.search("cancelled; the guest runs on", error), error)


if __name__ == "__main__":
    unittest.main()
