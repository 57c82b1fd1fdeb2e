"""kill -9 of every process of a suspend-mode exchange at every numbered step: afterwards each machine runs in exactly
one place, or is frozen and can be recovered, and the guest has lost nothing."""

import os
import select
import signal
import unittest

from suspend_host import SuspendHost, cmdline


class KillSweep(SuspendHost):
    def owners(self, name):
        """Pids of VMM processes of this machine."""
        return [pid for pid in self.processes(f"--machine {name} ") if "godwit-keeper" not in cmdline(pid)]

    def kill_daemons(self):
        for pid in self.processes("bin/godwitd"):
            process = os.pidfd_open(pid)
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [])  # It holds its lock until it has ended, longer than its name shows.
            os.close(process)

    def check(self, fault, done, names=("m1", "m2")):
        """Exactly one copy of each, and what is frozen runs after `recover`."""
        states = self.settled()
        self.assertEqual(sorted(states), sorted(names), f"{fault}: {done.stderr}{self.logs()}")
        if fault in KEEPER_BEFORE_ITS_COMMIT:
            self.assertEqual(set(states.values()), {"running"}, f"{fault}: {done.stderr}")
        for name, state in states.items():
            if state == "frozen":
                self.godwit("recover", name)
        self.assertEqual(set(self.settled().values()), {"running"}, fault)
        for name in names:
            self.runs(name)
            self.wait_for(lambda n=name: len(self.owners(n)) == 1, f"{fault}: not one process for {name}")
        self.wait_for(lambda: not self.processes("godwit-keeper"), f"{fault}: a keeper is left")
        for name in names:
            self.content(name)
        print(fault, done.returncode, states, flush=True)

    def kill_at(self, fault):
        """Two machines, an exchange with a fault in all of a kind, then a godwitd without it."""
        self.start_daemon(f"{fault}:kill")
        self.run_machines(2)
        done = self.godwit("exchange", "--all", "--mode", "suspend", "--to", str(self.new), "--json", code=None)
        # Whichever godwitd serves now has the fault in its environment.
        self.assertTrue(self.reached(fault), f"{fault} was not reached")
        self.kill_daemons()
        self.restart_daemon()
        self.check(fault, done)

    def test_old_vmm_killed_before_its_offer_takes_only_its_own_guest(self):
        """Until then it is the only one that has the guest's state."""
        self.start_daemon()
        self.run_machines(2)
        place, _ = self.faulty("c", "m1", "exchange.destination.build:hang")
        client = self.godwit_in_background("exchange", "--all", "--mode", "suspend", "--to", str(place))
        self.wait_for(lambda: len(self.processes("godwit-keeper")) == 4, "no keepers")
        os.kill(self.machines()["m1"]["vmm"]["pid"], signal.SIGKILL)
        self.assertEqual(client.wait(60), 1)
        self.wait_for(lambda: list(self.machines()) == ["m2"], "m1 stays")
        self.runs("m2")
        self.content("m2")

    def m1_is_frozen_in(self, place):
        """As the godwitd of that place says."""
        try:
            return bool(self.processes(str(place / "bin/godwitd"))) and self.machines()["m1"]["state"] == "frozen"
        except (OSError, KeyError):
            return False  # One godwitd has gone, the other one comes.

    def test_guard_that_dies_as_it_takes_over_costs_only_its_own_machine(self):
        """guard.8: keeper and guard both dead, which loses the machine; nothing of it is left, the other one runs."""
        self.start_daemon("guard.8:kill")
        self.run_machines(2)
        place, _ = self.faulty("c", "m1", "exchange.destination.load:hang")
        client = self.godwit_in_background("exchange", "--all", "--mode", "suspend", "--to", str(place))
        self.wait_for(lambda: self.reached("exchange.destination.load"), "the new VMM does not load")
        # The new godwitd must have got the owner record from one of them before they die (src/control/README.md).
        self.wait_for(lambda: self.m1_is_frozen_in(place), "the new godwitd does not find m1")
        for pid in self.processes("--machine m1 "):
            if "godwit-keeper" in cmdline(pid) and "--guard" not in cmdline(pid):
                os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: self.reached("guard.8"), "the guard does not take over")
        client.wait(60)
        self.wait_for(lambda: list(self.machines()) == ["m2"], "m1 stays")
        self.wait_for(lambda: not self.processes("--machine m1 "), "processes of m1 stay")
        self.runs("m2")
        self.content("m2")

    def test_new_godwitd_killed_as_soon_as_it_starts(self):
        """It dies before it has adopted anything; machines go on without it, the next one finds them."""
        self.start_daemon()
        self.run_machines(2)
        broken = self.installation("e", "godwitd-next", "godwit-vmm-next")
        program = broken / "bin/godwitd"
        program.unlink()
        program.write_text('#!/bin/sh\n[ "$1" = --check ] && exit 0\nkill -9 $$\n')
        program.chmod(0o755)
        done = self.godwit("exchange", "--all", "--mode", "suspend", "--to", str(broken), "--json", code=None)
        self.daemon.wait()
        self.kill_daemons()
        self.wait_for(lambda: not self.processes("bin/godwitd"), "a godwitd is left")
        self.start_daemon()
        self.check("new godwitd", done)


# The old VMM from its offer on: before, the guest ends with the process that runs it. The new VMM until it has
# confirmed its claim, for the same reason.
# Nobody has run the guest, and the old VMM is there: it goes on by itself.
KEEPER_BEFORE_ITS_COMMIT = {"keeper.7", "keeper.8"}
FAULTS = [*(f"keeper.{number}" for number in range(1, 12)), "guard.3", "guard.6",
          *(f"control.suspend.{number}" for number in range(1, 9)),
          *(f"exchange.destination.{step}" for step in ("hello", "build", "prepared", "load", "claim", "claimed")),
          "handover.source.9", "handover.source.10"]


def add_test(fault):
    def test(self):
        self.kill_at(fault)
    setattr(KillSweep, "test_killed_at_" + fault.replace(".", "_"), test)


for each in FAULTS:
    add_test(each)


if __name__ == "__main__":
    unittest.main()
