"""What keeping watch costs: the network's share, the store's, the gateway's; theory beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from reports.numbers import ABSENT, count, percent, rate, seconds, size_bytes
from reports.page import Cell, Section, Table
from reports.run_tables import RunTables
from reports.sections.cells import missing

__all__ = ["COST_FIGURES", "COST_RATES", "cost_section", "cost_sentences"]

_FIGURES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "clients": ("connections, mean", count),
    "heartbeats_per_s": ("heartbeats a second", rate),
    "frames_per_s": ("frames a second", rate),
    "bytes_per_s": ("bytes a second", rate),
    "redis_operations_per_s": ("Redis operations a second", rate),
    "gateway_cpu_percent": ("a gateway process’s CPU, mean", percent),
    "gateway_rss_bytes": ("a gateway process’s memory, most", size_bytes),
}
_OF_TLS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "tls_handshake_bytes": ("TLS handshakes: bytes", size_bytes),
    "tls_handshake_cpu_s": ("TLS handshakes: the gateway’s CPU", seconds),
}
COST_FIGURES: Mapping[str, tuple[str, Callable[[float], str]]] = {**_FIGURES, **_OF_TLS}
"""By its column in cost.csv, what a figure of cost is called and how its value is written."""
COST_RATES = tuple(name for name in COST_FIGURES if name.endswith("_per_s"))
"""Those of them that grow with the number of connections."""


def cost_section(tables: RunTables) -> Section:
    """Return a column for each engine, theory beside what was measured."""
    found = tables.table("cost")
    if found.empty:
        return missing("cost", "What it costs", "What it costs is not known (no cost.csv).")
    engines = {str(row["engine"]): row for row in found.to_dict("records")}
    speaks_tls = bool(found["tls_handshake_bytes"].notna().any())
    rows = [
        [Cell(what), *(_cell(text, float(row[name])) for row in engines.values())]
        for name, (what, text) in COST_FIGURES.items()
        if found[name].notna().any()
    ]
    basis = "; ".join(f"{engine}: {row['basis']}" for engine, row in engines.items())
    tls = "and TLS’s records" if speaks_tls else "without TLS"
    redis = (
        "Redis operations are records that refreshes "
        "write, counted while nobody comes or goes, and not (–) where that was for less time than one client’s "
        "refreshes are apart; logins, connections, leases and clean-ups are none"
    )
    size = f"; bytes are theirs with WebSocket, TCP and IPv4 headers, {tls}"
    if tables.foreign:
        redis = "How long its frames are, and what it writes to a store, if it has one, nobody saw"
        size = ""
    note = (
        f"Rates are after the ramp, per second of the scenario. {basis[:1].upper()}{basis[1:]}. Theory’s are for as "
        "many connections as were measured, ghosts among them, and ask the silent no sooner again than others "
        "(retry_interval). "
        f"Two frames a heartbeat are reckoned, it and its answer, though the dead do not answer{size}. "
        f"{redis}"
    )
    if found["gateway_cpu_percent"].notna().any():
        note += ". CPU is of one core"
        if tables.pace != 1:
            note += (
                f", in real time: each real second carries the traffic of {tables.pace:g} of the scenario’s"
            )
    if speaks_tls:
        note += ". TLS’s handshakes are reckoned from connections made: the first of a client full, later ones resumed"
    table = Table(("what", *engines), rows, note=f"{note}.", csv="cost.csv")
    return Section("cost", "What it costs", [table])


def cost_sentences(tables: RunTables, engine: str) -> Iterator[str]:
    """Say in one sentence what an engine measured, and what theory expects of it; nothing where neither is known."""
    found = tables.table("cost")
    rows = {str(row["engine"]): row for row in found.to_dict("records")}
    if engine not in rows:
        return
    row, expected = rows[engine], rows.get("theory", {})
    units = {"frames_per_s": "frames", "bytes_per_s": "bytes"}
    if _known(row, "frames_per_s"):
        taken = [f"{rate(row[name])} {unit}" for name, unit in units.items() if _known(row, name)]
        sentence = (
            f"Cost ({row['basis']}): {count(row['clients'])} connections take {' and '.join(taken)} a second"
        )
        predicted = [rate(expected[name]) for name in units if _known(expected, name)]
        if predicted:
            records = "redis_operations_per_s"
            more = f", and {rate(expected[records])} Redis operations" if _known(expected, records) else ""
            sentence += f" (theory: {' and '.join(predicted)}{more})"
    else:
        sentence = f"Cost: {row['basis']}"
        if _known(expected, "frames_per_s"):
            frames = f"{rate(expected['frames_per_s'])} frames a second"
            sentence += f"; by theory {count(expected['clients'])} connections take {frames}"
    if not math.isnan(row["gateway_cpu_percent"]):
        sentence += (
            f"; a gateway process took {percent(row['gateway_cpu_percent'])} of a core and at most "
            f"{size_bytes(row['gateway_rss_bytes'])}"
        )
    yield f"{sentence}."


def _known(row: Mapping[Hashable, Any], name: str) -> bool:
    return name in row and not math.isnan(row[name])


def _cell(text: Callable[[float], str], value: float) -> Cell:
    return Cell(ABSENT) if math.isnan(value) else Cell(text(value), value)
