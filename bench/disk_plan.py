#!/usr/bin/env python3
"""What many moves over shared devices cost when schemes are mixed, against each scheme alone (HS-7).

    bench/disk_plan.py [--mib 512] [--seeds 3] [--save]

Eight disks and more, each with a guest, in simulated time over bench/profiles: the same numbers on every machine.
Every plan, the single schemes' too, has its own order and number of moves at a time; cost is the sum of all disks'.
"""
import json
import statistics
import subprocess

import measuring

SCENARIOS = ("to_flash", "to_turning", "flash", "turning", "both_ways", "both_ways_twice")
NOISE = 1.03


def run(scenario, mib, seed, schemes):
    out = subprocess.run([str(measuring.BINARIES / "disk_plan_bench"), str(measuring.ROOT / "bench/profiles"), scenario,
                          str(mib), str(seed), schemes], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def judge(lines):
    """One cell over all seeds: mean costs, and their ratio."""
    mixed = statistics.mean(line["mixed"]["cost"] for line in lines)
    singles = {}
    for line in lines:
        for single in line["single"]:
            singles.setdefault(single["scheme"], []).append(single["cost"])
    singles = {scheme: statistics.mean(costs) for scheme, costs in singles.items()}
    best = min(singles, key=singles.get)
    off = [abs(run["forecast"] / max(run["cost"], 1e-9) - 1) for line in lines for run in [line["mixed"]]]
    return {"mixed": round(mixed, 4), "best_single": best, "best_single_cost": round(singles[best], 4),
            "ratio": round(mixed / max(singles[best], 1e-9), 4), "singles": {name: round(cost, 4)
                                                                             for name, cost in singles.items()},
            "seconds": round(statistics.mean(line["mixed"]["seconds"] for line in lines), 2),
            "forecast_off": round(statistics.mean(off), 3), "schemes": lines[0]["mixed"]["schemes"],
            "at_once": lines[0]["mixed"]["at_once"]}


def main():
    parser = measuring.options(__doc__.splitlines()[0], runs=1)
    parser.add_argument("--mib", type=int, default=512, help="of each disk (default 512)")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    cells = []
    for schemes in ("all", "safe"):
        for scenario in SCENARIOS:
            runs = [run(scenario, arguments.mib, seed, schemes) for seed in range(1, arguments.seeds + 1)]
            rows = []
            for index, line in enumerate(runs[0]):
                cell = {"scenario": scenario, "schemes_allowed": schemes, "gamma": line["gamma"], "disks": line["disks"],
                        **judge([lines[index] for lines in runs])}
                cells.append(cell)
                rows.append([cell["gamma"], cell["mixed"], cell["best_single_cost"], cell["best_single"], cell["ratio"],
                             cell["seconds"], cell["forecast_off"], " ".join(map(str, cell["at_once"])),
                             " ".join(f"{cell['schemes'].count(name)} {name}" for name in sorted(set(cell["schemes"])))])
            measuring.table(f"{scenario}, {runs[0][0]['disks']} disks, schemes: {schemes}",
                            ["gamma", "mixed", "best single", "by", "ratio", "s", "off", "at once", "plan"], rows)
    within = [cell["ratio"] <= NOISE for cell in cells]
    both_ways = [cell["ratio"] < 1 for cell in cells if cell["scenario"].startswith("both_ways")]
    print(f"\nat most {NOISE} of the best single scheme: {sum(within)} of {len(within)}; "
          f"both ways, strictly below it: {sum(both_ways)} of {len(both_ways)}")
    measuring.finish("disk_plan", {"mib": arguments.mib, "seeds": arguments.seeds, "simulated_time": True,
                                   "within_3_percent": [sum(within), len(within)],
                                   "both_ways_below": [sum(both_ways), len(both_ways)], "cells": cells}, arguments)


if __name__ == "__main__":
    main()
