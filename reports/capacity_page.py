"""The report of a capacity search: report.html and report.md from steps.csv, scaling.csv, law.csv, plan.csv.

Reads the directory that `flatline capacity` has written; computes nothing but the figure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from reports.figures.capacity import capacity
from reports.numbers import ABSENT
from reports.page import Block, Cell, Headline, Page, Picture, Section, Table, Text
from reports.render import render_html, render_markdown
from reports.style import save

__all__ = ["build_capacity_report"]

_STEP_COLUMNS = (
    ("nodes", "nodes", 1.0),
    ("clients", "clients", 1.0),
    ("heartbeats_per_s", "heartbeats/s", 1.0),
    ("lateness_p99_s", "late p99, ms", 1e3),
    ("handshake_p99_s", "handshake p99, ms", 1e3),
    ("detection_p99_s", "detection p99, s", 1.0),
    ("false_suspicions", "false suspicions", 1.0),
    ("cpu_percent", "gateways, % of a core", 1.0),
    ("generator_cpu_percent", "generator, %", 1.0),
    ("rss_bytes", "gateways, MiB", 2.0**-20),
    ("load_average", "load average", 1.0),
)
_PLAN_COLUMNS = (
    ("users", "users"),
    ("cores", "cores"),
    ("cores_hi", "cores, upper end"),
    ("gib", "GiB"),
    ("gib_hi", "GiB, upper end"),
    ("nodes", "nodes"),
    ("store_commands_per_s", "Redis commands/s"),
    ("store_shards", "Redis shards"),
    ("store_mbit_per_s", "Redis Mbit/s"),
    ("client_mbit_per_s", "clients Mbit/s"),
)
_READING = (
    ("knee", "the most clients with which every threshold of the scenario still held"),
    ("heartbeats/s", "of real time: a faster run beats as much more often as its clients would"),
    ("late", "how long after it was due a heartbeat left the gateway: the first sign of a full processor"),
    ("load average", "what else the machine had to do: a knee is that machine's, under that load"),
    (
        "cannot tell",
        "too few points, or nodes that compete for the same cores: no law is then shown as known",
    ),
)


def build_capacity_report(folder: Path) -> Path:
    """Write report.html, report.md and the figure; return the path of report.html.

    Raises:
        OSError: the directory is not one of a capacity search.
        NothingToDraw: no step was run.
    """
    told: dict[str, Any] = json.loads((folder / "capacity.json").read_text())
    steps, scaling, law, plan = (_read(folder / f"{n}.csv") for n in ("steps", "scaling", "law", "plan"))
    first = steps[steps["nodes"] == steps["nodes"].iloc[0]] if len(steps) else steps
    figure = capacity(
        first,
        knee_clients=told["knee_clients"],
        lateness_limit_s=told["lateness_limit_s"],
        scaling=scaling if len(scaling) > 1 else None,
        law=law,
        caption=_subtitle(told),
    )
    svg, png = save(figure, folder / "figures", "capacity")
    picture = Picture("capacity", "What it carries, and what gives way first", svg, png)
    page = Page(
        name=f"Capacity: {told['name']}",
        description="",
        subtitle=_subtitle(told),
        headline=_headline(told),
        facts=[
            Cell(f"{told['knee_clients'] or 0:,}", detail="clients at the knee"),
            Cell(str(len(steps)), detail="steps"),
        ],
        reading=_READING,
        sections=_sections(told, steps, plan, picture),
    )
    (folder / "report.md").write_text(render_markdown(page, folder))
    report = folder / "report.html"
    report.write_text(render_html(page))
    return report


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=True)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def _headline(told: dict[str, Any]) -> Headline:
    reasons = (*told["knees"], *told["scaling"])
    if told["interrupted"]:
        return Headline("partial", "Interrupted: what was stepped until then", reasons)
    if told["bracketed"]:
        return Headline("pass", "The knee is bracketed", reasons)
    return Headline("unknown", "The knee is not bracketed", reasons)


def _subtitle(told: dict[str, Any]) -> str:
    how = f"real clients at speedup {told['speedup']:g}" if told["engine"] == "real" else "simulated"
    return (
        f"{told['name']} · {how} · T = {told['heartbeat_interval_s']:g} s · {told['cores']} cores for gateway, "
        "clients and Redis together"
    )


def _sections(
    told: dict[str, Any], steps: pd.DataFrame, plan: pd.DataFrame, picture: Picture
) -> list[Section]:
    columns = [name for _, name, _ in _STEP_COLUMNS]
    rows = [
        [
            *(_number(getattr(step, key), scale) for key, _, scale in _STEP_COLUMNS),
            Cell("✓ holds" if step.holds else "✗ breaks", tone="pass" if step.holds else "fail"),
            Cell("; ".join(str(part) for part in (step.missed, step.limit) if isinstance(part, str))),
        ]
        for step in steps.sort_values(["nodes", "clients"]).itertuples()
    ]
    table = Table((*columns, "thresholds", "what broke"), rows, csv="steps.csv")
    bounds = "Thresholds: " + "; ".join(told["thresholds"])
    lines: list[Block] = [Text(line) for line in told["costs"]]
    planned: list[Block] = [Text("Nothing was measured to plan from: real steps are needed.", "missing")]
    if len(plan):
        planned = [
            Table(
                [name for _, name in _PLAN_COLUMNS],
                [[_number(row[key], 1.0) for key, _ in _PLAN_COLUMNS] for row in plan.to_dict("records")],
                note="Nodes by the upper ends of the intervals.",
                csv="plan.csv",
            ),
            Text("Assumed: " + "; ".join(told["assumptions"])),
            Text(
                "The intervals are those of the fit. They know nothing of another processor, of TLS on the gateway "
                "or of what users send besides heartbeats, and a million is far outside of what was measured: read "
                "it as the answer to “four or forty?”, and load one node to its plan before buying the rest."
            ),
        ]
    scaling: list[Block] = [
        Text(line, "warning" if "cannot tell" in line else "plain") for line in told["scaling"]
    ]
    return [
        Section("steps", "Steps", [Text(bounds), Text(f"Method: {told['method']}"), picture, table]),
        Section("nodes", "How nodes scale", scaling or [Text("Not asked.", "missing")]),
        Section("costs", "What a client costs", lines or [Text("Not measured.", "missing")]),
        Section("plan", "A plan", planned),
    ]


def _number(value: Any, scale: float) -> Cell:
    number = float(value) * scale
    if number != number:
        return Cell(ABSENT)
    return Cell(f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}", number)
