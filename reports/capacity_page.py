"""The report of a capacity search: report.html and report.md from capacity.json, steps.csv, scaling.csv, law.csv.

Reads the directory that `flatline capacity` has written; computes nothing but the figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from reports.figures.capacity import capacity
from reports.figures.storm import storm
from reports.numbers import ABSENT
from reports.page import Block, Cell, Headline, Page, Picture, Section, Table, Text
from reports.render import render_html, render_markdown
from reports.style import save

__all__ = ["HOW_TO_READ_A_PLAN", "build_capacity_report"]

_STEP_COLUMNS = (
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
_KNEE = ("knee", "the most clients with which every threshold of the scenario still held")
_READING = (
    ("heartbeats/s", "of real time: a faster run beats as much more often as its clients would"),
    ("late", "how long after it was due a heartbeat left the gateway: the first sign of a full processor"),
    (
        "load average",
        "what else the machine had to do: the numbers are those of this machine under that load",
    ),
)
_CANNOT_TELL = (
    "cannot tell",
    "too few points, or nodes that compete for the same cores: no law is then shown as known",
)


HOW_TO_READ_A_PLAN = (
    "The intervals know nothing of another processor, and a million is far outside of what was tried: read the plan as "
    "the answer to “four or forty?”, and load one node to its plan before buying the rest."
)
"""Said under every plan."""


def build_capacity_report(folder: Path) -> Path:
    """Write report.html, report.md and the figure; return the path of report.html.

    Raises:
        OSError: the directory is not one of a capacity search.
        NothingToDraw: no step was run.
    """
    told: dict[str, Any] = json.loads((folder / "capacity.json").read_text())
    steps, scaling, law = (_read(folder / f"{n}.csv") for n in ("steps", "scaling", "law"))
    first = steps[steps["nodes"] == steps["nodes"].iloc[0]] if len(steps) else steps
    held = told["clients_held"]
    figure = capacity(
        first,
        knee_clients=held if told["broke"] else None,
        lateness_limit_s=told["lateness_limit_s"],
        scaling=scaling if len(scaling) > 1 else None,
        law=law,
        caption=_subtitle(told),
    )
    svg, png = save(figure, folder / "figures", "capacity")
    picture = Picture("capacity", "What it carries", svg, png)
    pictures = {"capacity": picture}
    if loss := told["node_loss"]:
        window = {"fault": "a node dies", "start_s": loss["at_s"], "end_s": loss["at_s"]}
        caption = f"{loss['clients']:,} clients on {loss['nodes']} nodes, of which one is killed; at the pace of life."
        figure = storm(_read(folder / "reconnects.csv"), [window], caption=caption)
        svg, png = save(figure, folder / "figures", "node_loss")
        pictures["node_loss"] = Picture("node_loss", "A node dies: its clients come back", svg, png)
    page = Page(
        name="Capacity" if told["name"] == "capacity" else f"Capacity: {told['name']}",
        description="",
        subtitle=_subtitle(told),
        headline=_headline(told),
        facts=[
            Cell(
                f"{held:,}" if held else ABSENT,
                detail="clients at the knee"
                if told["broke"] and held
                else "clients, and nothing broke"
                if held
                else "no load held",
            ),
            Cell(str(len(steps)), detail="loads tried"),
            *(
                [Cell(f"{loss['back_s']:.1f} s", detail="until all were back")]
                if loss and loss["back_s"]
                else []
            ),
        ],
        reading=[
            *([_KNEE] if told["broke"] else []),
            *_READING[: 3 if told["engine"] == "real" else 2],
            *([_CANNOT_TELL] if any("cannot tell" in line for line in told["scaling"]) else []),
        ],
        sections=_sections(told, steps, pictures),
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
    reasons = (*told["no_plan"], *told["limits"], *told["scaling"], *told["node_loss_lines"])
    if told["interrupted"]:
        return Headline("partial", "Interrupted: what was stepped until then", reasons)
    if told["bracketed"]:
        return Headline("pass", "The load at which a threshold breaks is known", reasons)
    if told["clients_held"] and told["unjudged"]:
        return Headline(
            "unknown",
            "This machine was late itself: it carries this load, and how much more is not known",
            reasons,
        )
    if told["clients_held"] and not told["broke"]:
        return Headline(
            "unknown",
            "Nothing broke: it carries the highest load that was tried, and maybe more (--max)",
            reasons,
        )
    if not told["clients_held"]:
        return Headline("unknown", "No load held, so it is not known what it carries", reasons)
    return Headline("unknown", "The load at which a threshold breaks is not known for all nodes", reasons)


def _subtitle(told: dict[str, Any]) -> str:
    real = told["engine"] == "real"
    how = f"real clients at speedup {told['speedup']:g}" if real else "simulated"
    beats = f"T = {told['heartbeat_interval_s']:g} s" if told["heartbeat_interval_s"] else "no heartbeat"
    where = f" · {told['cores']} cores for gateway, clients and Redis together" if real else ""
    return f"{told['name']} · {how} · {beats} · {'TLS' if told['tls'] else 'no TLS'}{where}"


def _sections(told: dict[str, Any], steps: pd.DataFrame, pictures: dict[str, Picture]) -> list[Section]:
    columns = [column for column in _STEP_COLUMNS if steps[column[0]].notna().any()]
    rows = [
        [
            _number(step.nodes, 1.0),
            _number(step.clients, 1.0),
            Cell("✓ holds" if step.holds else "✗ breaks", tone="pass" if step.holds else "fail"),
            *(_number(getattr(step, key), scale) for key, _, scale in columns),
            Cell("; ".join(str(part) for part in (step.missed, step.limit) if isinstance(part, str))),
        ]
        for step in steps.sort_values(["nodes", "clients"]).itertuples()
    ]
    names = ("nodes", "clients", "thresholds", *(name for _, name, _ in columns), "what broke")
    table = Table(names, rows, csv="steps.csv")
    bounds = "Thresholds: " + "; ".join(told["thresholds"])
    costs: list[Block] = [Text(line) for line in told["costs"]]
    planned: list[Block] = [Text(line, "warning") for line in told["no_plan"]]
    if told["plan"]:
        header, *quantities = told["plan"]
        planned = [
            Table(
                header,
                [[Cell(name), *(Cell(text) for text in texts)] for name, *texts in quantities],
                note="In brackets: 95 % intervals of the fit over the loads. Nodes: by their upper ends, and one more.",
                csv="plan.csv",
            ),
            *(Text(line, "warning") for line in told["plan_warnings"]),
            Text("Assumed: " + "; ".join(told["assumptions"]) + "."),
            Text(HOW_TO_READ_A_PLAN),
        ]
    lost: list[Block] = [Text(line) for line in told["node_loss_lines"]]
    if "node_loss" in pictures:
        lost.append(pictures["node_loss"])
    scaling: list[Block] = [
        Text(line, "warning" if "cannot tell" in line else "plain") for line in told["scaling"]
    ]
    one_only = "One number of nodes was tried; --nodes 1,2,3,4 fits a law over them."
    return [
        Section("plan", "A plan", planned),
        Section(
            "steps", "Loads", [Text(bounds), Text(f"Method: {told['method']}"), pictures["capacity"], table]
        ),
        Section("node-loss", "When a node dies", lost or [Text("No node was lost.", "missing")]),
        Section("costs", "What a client costs", costs or [Text("Not measured.", "missing")]),
        Section("nodes", "How nodes scale", scaling or [Text(one_only, "missing")]),
    ]


def _number(value: Any, scale: float) -> Cell:
    number = float(value) * scale
    if number != number:
        return Cell(ABSENT)
    return Cell(f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}", number)
