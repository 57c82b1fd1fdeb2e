#!/usr/bin/env python3
"""Draws bench/results/disk_move.json: the whole table as text, and four plots.

    bench/disk_move_pages.py [--out docs/results]

Writes disk-move.md and disk-move-{time,latency,bytes,cost}.svg, the same bytes for the same numbers.
"""
import argparse
import json
import math
from pathlib import Path

import measuring

SCHEMES = {"dbt": "#4477aa", "mirror": "#66ccee", "lr": "#228833", "slr": "#ccbb44", "aio": "#ee6677", "tiered": "#aa3377"}
CLASSES = (("destination_redundant", "again, to the destination", "#cc3311"),
           ("source_redundant", "again, to the source", "#ee99aa"),
           ("destination_guest", "guest, to the destination", "#4477aa"),
           ("source_guest", "guest, to the source", "#99bbdd"))
GAMMAS = (0, .25, .5, .75, 1)
MIB = 1 << 20
# Of one panel, and what is left around it.
WIDTH, HEIGHT, GAP, LEFT, TOP = 150, 84, 26, 86, 56


def number(value):
    """Short, never in powers of ten: 0.0123, 1.23, 12.3, 123."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


class Plot:
    """Panels by device pair (down) and workload (across), and a legend."""

    def __init__(self, title, pairs, workloads, legend):
        self.pairs, self.workloads = pairs, workloads
        self.parts = []
        self.text(LEFT, 18, title, size=14)
        for index, (name, colour) in enumerate(legend):
            self.rect(LEFT + index * 170, 27, 9, 9, colour)
            self.text(LEFT + index * 170 + 13, 35, name)
        for column, workload in enumerate(workloads):
            self.text(self.x(column) + WIDTH / 2, TOP - 6, workload.replace("_", " "), anchor="middle")
        for row, pair in enumerate(pairs):
            self.text(8, self.y(row) + HEIGHT / 2, pair.replace("-", " to "))

    def x(self, column):
        return LEFT + column * (WIDTH + GAP)

    def y(self, row):
        return TOP + row * (HEIGHT + GAP)

    def rect(self, x, y, width, height, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def line(self, points, colour, width=1.0):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    def text(self, x, y, text, anchor="start", size=11):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{text}</text>')

    def frame(self, row, column, top):
        """The panel's ground line, and what its upper edge stands for."""
        x, y = self.x(column), self.y(row)
        self.line([(x, y), (x, y + HEIGHT), (x + WIDTH, y + HEIGHT)], "#999999", 0.7)
        self.text(x + 2, y + 8, top, size=8)

    def write(self, path):
        width, height = self.x(len(self.workloads)), self.y(len(self.pairs))
        path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                        f'viewBox="0 0 {width} {height}" font-family="sans-serif">\n'
                        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def panels(plot, cells):
    """Row, column and cell of each panel."""
    for cell in cells:
        yield plot.pairs.index(cell["pair"]), plot.workloads.index(cell["workload"]), cell


def bar_places(plot, row, column):
    """The left edge of each scheme's bar, and the ground."""
    step = WIDTH / len(SCHEMES)
    return [plot.x(column) + step * index + 3 for index in range(len(SCHEMES))], plot.y(row) + HEIGHT, step - 6


def plot_time(plot, cells):
    for row, column, cell in panels(plot, cells):
        longest = max(each["seconds"] for each in cell["schemes"])
        plot.frame(row, column, f"{number(longest)} s")
        places, ground, width = bar_places(plot, row, column)
        for x, each in zip(places, cell["schemes"]):
            height = each["seconds"] / longest * (HEIGHT - 12)
            plot.rect(x, ground - height, width, height, SCHEMES[each["scheme"]])


def plot_latency(plot, cells):
    """Logarithmic, 10 us to 1 s everywhere: a bar to the mean, a thin line on to the 99th of a hundred."""
    def height(milliseconds):
        return (math.log10(min(max(milliseconds, 0.01), 1000)) + 2) / 5 * (HEIGHT - 12)

    for row, column, cell in panels(plot, cells):
        plot.frame(row, column, "1 s")
        places, ground, width = bar_places(plot, row, column)
        for x, each in zip(places, cell["schemes"]):
            colour = SCHEMES[each["scheme"]]
            plot.rect(x, ground - height(each["mean_ms"]), width, height(each["mean_ms"]), colour)
            plot.rect(x + width / 2 - 1, ground - height(each["p99_ms"]), 2, height(each["p99_ms"]), colour)
        for decade in (0.1, 1, 10, 100):
            y = ground - height(decade)
            plot.line([(plot.x(column), y), (plot.x(column) + 4, y)], "#999999", 0.7)


def plot_bytes(plot, cells):
    for row, column, cell in panels(plot, cells):
        most = max(1, *(sum(each[key] for key, _, _ in CLASSES) for each in cell["schemes"]))
        plot.frame(row, column, f"{number(most / MIB)} MiB" if most > 1 else "none")
        places, ground, width = bar_places(plot, row, column)
        for x, each in zip(places, cell["schemes"]):
            y = ground
            for key, _, colour in CLASSES:
                height = each[key] / most * (HEIGHT - 20)
                y -= height
                if height > 0.05:
                    plot.rect(x, y, width, height, colour)
            plot.text(x + width / 2, ground + 8, each["scheme"], anchor="middle", size=7)


def plot_cost(plot, cells):
    for row, column, cell in panels(plot, cells):
        most = max(max(each["cost"]) for each in cell["schemes"])
        plot.frame(row, column, number(most))

        def place(index, cost, row=row, column=column, most=most):
            return (plot.x(column) + 4 + index * (WIDTH - 8) / (len(GAMMAS) - 1),
                    plot.y(row) + HEIGHT - cost / most * (HEIGHT - 12))

        costs = {each["scheme"]: each["cost"] for each in cell["schemes"]}
        for scheme, values in costs.items():
            plot.line([place(index, cost) for index, cost in enumerate(values)], SCHEMES[scheme], 1.4)
        for index, (choice, safe) in enumerate(zip(cell["auto"], cell["auto_safe"])):
            x, y = place(index, costs[choice["auto"]][index])
            plot.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="none" stroke="black"/>')
            x, y = place(index, costs[safe["auto"]][index])
            plot.parts.append(f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="none" stroke="black"/>')


def table(result):
    """Everything, in the order it was measured."""
    lines = ["# Moving a disk: every scheme, device pair and workload", "",
             f"Made by `bench/disk_move_pages.py` from `bench/results/disk_move.json` (commit {result['commit']}, disks of "
             f"{result['mib']} MiB, seed {result['seed']}, simulated time); README.md says how it was measured.", "",
             "Latencies are those of the guest's `n` reads and writes while its disk moved; `pause` is how long its requests "
             "were held at the end. Bytes in MiB: `first` is the copy itself, at the destination; `src` and `dst` what the "
             "`guest` wrote there and what was written `again`. MC is the migration cost at gamma 0 (the guest's speed alone) to 1 "
             "(wear alone); **bold**: the least of the cell."]
    for cell in result["cells"]:
        least = [min(each["cost"][index] for each in cell["schemes"]) for index in range(len(GAMMAS))]
        lines += ["", f"## {cell['pair'].replace('-', ' to ')}, {cell['workload'].replace('_', ' ')}", "",
                  "| scheme | s | mean ms | p99 ms | n | pause ms | first | src guest | src again | dst guest | dst again | "
                  + " | ".join(f"MC {gamma}" for gamma in GAMMAS) + " |", "|---" + "|---:" * 15 + "|"]
        for each in cell["schemes"]:
            costs = [f"**{number(cost)}**" if cost == least[index] else number(cost)
                     for index, cost in enumerate(each["cost"])]
            sizes = [number(each[key] / MIB) for key in ("first_copy", "source_guest", "source_redundant",
                                                         "destination_guest", "destination_redundant")]
            lines.append("| " + " | ".join([each["scheme"], number(each["seconds"]), number(each["mean_ms"]),
                                            number(each["p99_ms"]), str(each["requests"]), number(each["pause_ms"]),
                                            *sizes, *costs]) + " |")
        for kind, name in (("auto", "auto"), ("auto_safe", "auto without lr")):
            choices = [f"{choice['auto']} at {choice['gamma']:g} ({choice['ratio']:.2f})" for choice in cell[kind]]
            lines += ["", f"{name}, and its cost over the least it may have: " + ", ".join(choices)]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=measuring.ROOT / "docs/results")
    out = parser.parse_args().out
    result = json.loads((measuring.RESULTS / "disk_move.json").read_text())
    cells = result["cells"]
    pairs = list(dict.fromkeys(cell["pair"] for cell in cells))
    workloads = list(dict.fromkeys(cell["workload"] for cell in cells))
    legend = list(SCHEMES.items())
    for name, title, what, draw in (
            ("time", "How long a move takes", legend, plot_time),
            ("latency", "Latency of the guest's requests meanwhile: mean (bar), p99 (line), 10 us to 1 s, logarithmic", legend,
             plot_latency),
            ("bytes", "Written beside the first copy", [(text, colour) for _, text, colour in CLASSES], plot_bytes),
            ("cost", "Migration cost over gamma, 0 to 1; circles: what auto takes, squares: without lr", legend, plot_cost)):
        plot = Plot(title, pairs, workloads, what)
        draw(plot, cells)
        plot.write(out / f"disk-move-{name}.svg")
    (out / "disk-move.md").write_text(table(result))


if __name__ == "__main__":
    main()
