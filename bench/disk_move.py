#!/usr/bin/env python3
"""What each scheme of moving a disk costs, and whether "auto" takes the right one.

    bench/disk_move.py [--mib 128] [--seed 1] [--save]

All cells of scheme x device pair x workload in simulated time over bench/profiles (HS-10): the same numbers on
every machine. MC is the cost at gamma 0, .25, .5, .75, 1 (src/block/move/cost.h).
"""
import json
import subprocess

import measuring

PAIRS = (("ssd", "hdd"), ("hdd", "ssd"), ("ssd", "ssd"), ("hdd", "hdd"))
WORKLOADS = ("random_read", "random_write", "skewed_80_20", "sequential", "oltp", "mail")


def run_cell(pair, workload, mib, seed):
    profiles = [str(measuring.ROOT / f"bench/profiles/{name}.profile") for name in pair]
    out = subprocess.run([str(measuring.BINARIES / "disk_move_bench"), *profiles, workload, str(mib), str(seed)],
                         check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in out.stdout.splitlines()]
    return lines[:-1], lines[-1]


def judge(schemes, choices, without=()):
    """For each gamma: the best scheme's cost, and that of the one auto took."""
    judged = []
    for index, choice in enumerate(choices):
        costs = {row["scheme"]: row["cost"][index] for row in schemes if row["scheme"] not in without}
        best = min(costs, key=costs.get)
        judged.append({"gamma": choice["gamma"], "auto": choice["scheme"], "best": best,
                       "ratio": round(costs[choice["scheme"]] / max(costs[best], 1e-9), 3)})
    return judged


def show(pair, workload, schemes, judged, judged_safe):
    mebibyte = 1 << 20
    rows = [[row["scheme"], row["seconds"], row["mean_ms"], row["p99_ms"], row["pause_ms"],
             row["first_copy"] / mebibyte, row["destination_guest"] / mebibyte,
             (row["destination_redundant"] + row["source_redundant"]) / mebibyte, *row["cost"]] for row in schemes]
    measuring.table(f"{pair[0]} to {pair[1]}, {workload}",
                    ["scheme", "s", "mean ms", "p99 ms", "pause ms", "first MiB", "guest MiB", "redundant",
                     "MC 0", ".25", ".5", ".75", "1"], rows)
    for name, choices in (("auto", judged), ("without lr", judged_safe)):
        print(f"  {name}: " + ", ".join(f"{each['gamma']}: {each['auto']} ({each['ratio']:.2f} x {each['best']})"
                                        for each in choices))


def main():
    parser = measuring.options(__doc__.splitlines()[0], runs=1)
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    cells, within, within_safe = [], [], []
    for pair in PAIRS:
        for workload in WORKLOADS:
            schemes, choices = run_cell(pair, workload, arguments.mib, arguments.seed)
            judged = judge(schemes, choices["auto"])
            judged_safe = judge(schemes, choices["auto_safe"], without=("lr",))
            show(pair, workload, schemes, judged, judged_safe)
            within += [each["ratio"] <= 1.1 for each in judged]
            within_safe += [each["ratio"] <= 1.1 for each in judged_safe]
            cells.append({"pair": "-".join(pair), "workload": workload, "auto": judged, "auto_safe": judged_safe,
                          "schemes": [{key: row[key] for key in
                                       ("scheme", "ended_as", "seconds", "mean_ms", "p99_ms", "requests", "pause_ms",
                                        "source_guest", "source_redundant", "destination_guest", "first_copy",
                                        "destination_redundant", "cost")} for row in schemes]})
    print(f"\nauto within 10 % of the best: {sum(within)} of {len(within)}; without lr: {sum(within_safe)}")
    measuring.finish("disk_move", {"mib": arguments.mib, "seed": arguments.seed, "simulated_time": True,
                                   "auto_within_10_percent": [sum(within), len(within)],
                                   "auto_safe_within_10_percent": [sum(within_safe), len(within_safe)],
                                   "cells": cells}, arguments)


if __name__ == "__main__":
    main()
