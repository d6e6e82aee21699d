#!/usr/bin/env python3
"""Draws the tables of docs/benchmarks.md as docs/images/*.svg.

    pip install -r host/benches/plots/requirements.txt
    host/benches/plots/plot.py            # all of them
    host/benches/plots/plot.py http       # docs/images/http.svg only
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "modhost", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
IMAGES = ROOT / "docs/images"


def table(first_heading):
    """The rows of the table whose first column has this heading, as lists of cells."""
    lines = (ROOT / "docs/benchmarks.md").read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(f"| {first_heading} |")]
    if not starts:
        sys.exit(f"docs/benchmarks.md has no table whose first heading is `{first_heading}`")
    start = starts[0]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def save(figure, name):
    IMAGES.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(IMAGES / name, metadata={"Date": None})


def neighbors():
    rows = table("beside it")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    places = range(len(rows))
    for axis, title, p50, p99 in ((axes[0], "acknowledgement", 2, 3), (axes[1], "reply", 5, 6)):
        axis.barh([place + 0.2 for place in places], [float(row[p50]) for row in rows], 0.38, label="p50", color="#4878a8")
        axis.barh([place - 0.2 for place in places], [float(row[p99]) for row in rows], 0.38, label="p99", color="#d88c3a")
        axis.set_yticks(list(places), [row[0] for row in rows])
        axis.set_xlabel(f"{title}, ms")
    axes[0].invert_yaxis()
    axes[1].legend(frameon=False)
    save(figure, "neighbors.svg")


def tenants():
    rows = table("tenants")
    counts = [int(row[0].replace(",", "")) for row in rows]
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.4))
    for axis, column, label in zip(axes, (1, 2, 3, 5), ("start, ms", "memory, MiB", "reload, ms", "CPU per event, µs")):
        axis.plot(counts, [float(row[column].replace(",", "")) for row in rows], marker="o", color="#4878a8")
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.margins(y=0.1)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("tenants")
        axis.set_title(label, fontsize=9)
    save(figure, "tenants.svg")


def number(cell):
    return float(cell.replace(",", ""))


def http():
    rows = table("server")
    lines = {
        "bare axum handler": ("#b0b0b0", ":", "v"),
        "host, no module": ("#8fb0d0", "--", "s"),
        "host, module": ("#4878a8", "-", "o"),
        "`wasmtime serve`": ("#6aa56a", "-", "^"),
        "Flask, gunicorn": ("#d88c3a", "-", "D"),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for axis, column, label in ((axes[0], 2, "events per second"), (axes[1], 6, "p99, µs")):
        for name, (color, style, marker) in lines.items():
            points = [(number(row[1]), number(row[column])) for row in rows if row[0] == name]
            if points:
                axis.plot(*zip(*points), style, marker=marker, color=color, label=name.replace("`", ""))
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:,.0f}")
        connections = sorted({number(row[1]) for row in rows})
        axis.set_xticks(connections, [f"{count:.0f}" for count in connections])
        axis.minorticks_off()
        axis.set_xlabel("connections")
        axis.set_title(label, fontsize=9)
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, "http.svg")


def modules():
    rows = table("modules")
    counts = [number(row[0]) for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(6, 2.4))
    for axis, columns, label in ((axes[0], {"": 1}, "events per second"), (axes[1], {"p50": 3, "p99": 4}, "latency, µs")):
        for (name, column), color in zip(columns.items(), ("#4878a8", "#d88c3a")):
            axis.plot(counts, [number(row[column]) for row in rows], marker="o", color=color, label=name)
        axis.set_xscale("log")
        axis.set_xticks(counts, [f"{count:.0f}" for count in counts])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel("modules")
        axis.set_title(label, fontsize=9)
    axes[1].legend(frameon=False)
    save(figure, "modules.svg")


PLOTS = {"http": http, "neighbors": neighbors, "tenants": tenants, "modules": modules}

for name in sys.argv[1:] or PLOTS:
    PLOTS[name]()
