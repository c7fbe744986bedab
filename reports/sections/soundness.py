"""May the real run be believed: ε and its parts, lag and lateness; and what each injected fault cannot show."""

from __future__ import annotations

import math

from reports.gallery import Gallery
from reports.numbers import caption_seconds, count, milliseconds, words
from reports.page import Block, Cell, Section, Table, Text
from reports.run_tables import RunTables
from reports.sections.cells import count_cell, missing, seconds_cell, table_of

__all__ = ["fidelity_section", "soundness_section"]

_PARTS = {
    "one_way_delay_s": "one-way delay",
    "gateway_lag_s": "gateway’s largest loop lag",
    "canary_s": "a canary client’s longest wait for its answer",
    "observer_lag_s": "observer’s largest loop lag",
    "generator_lag_s": "generator’s largest loop lag",
    "grain_s": "scheduling grain",
    "between_samples_s": "time between two samples of a loop’s lag",
    "clock_s": "error of the workers’ clocks",
}


def soundness_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the verdict on the run's own timing."""
    title = "Is the run sound?"
    if "real" not in tables.engines:
        return missing("soundness", title, "There was no real run: a simulation has no loops that could lag.")
    verdict = {
        True: "✓ Sound: no loop, injection or witness was late enough to blur these times.",
        False: "✗ Unsound: the times of the real run prove nothing about the policy.",
        None: "? Nobody judged whether this run is sound.",
    }[tables.sound]
    blocks: list[Block] = [Text(verdict, "warning" if tables.sound is False else "plain")]
    blocks += [Text(f"{reason[:1].upper()}{reason[1:]}.", "warning") for reason in tables.unsound_reasons]
    blocks += [_epsilon(tables), *gallery.get("lateness", []), *_omission(tables)]
    usage = tables.table("resources")
    if len(usage):
        rows = []
        for (role, pid), mine in usage.groupby(["role", "pid"], sort=False):
            cpu, rss_bytes = mine["cpu_percent"], float(mine["rss_bytes"].max())
            rows.append(
                [
                    Cell(str(role)),
                    Cell(str(pid)),
                    *(Cell(f"{percent:.0f} %", percent) for percent in (float(cpu.mean()), float(cpu.max()))),
                    Cell(f"{rss_bytes / 2**20:,.0f} MiB", rss_bytes),
                    count_cell(float(mine["descriptors"].max())),
                ]
            )
        columns = ("role", "process", "CPU, mean", "CPU, most", "memory, most", "descriptors, most")
        blocks.append(Table(columns, rows, title="What the processes used", csv="resources.csv", folded=True))
    return Section("soundness", title, blocks)


def _omission(tables: RunTables) -> list[Block]:
    """The position on coordinated omission, and what the generator could have hidden in this run."""
    found = tables.table("omission")
    found = found[found["engine"] == "real"]
    position = (
        "Coordinated omission: every fault’s time was fixed before the run, so none waited for another’s "
        "detection; each counts from when it took effect; every planned fault has its row. "
    )
    if found.empty:
        unknown = "What a stalled load generator may have hidden is not known (no omission.csv)."
        return [Text(position + unknown, "missing")]
    grown = {p: (found[f"{p}_longest_s"] - found[f"{p}_s"]).max() for p in ("p50", "p99")}
    said = [
        f"no {p} is more than {caption_seconds(more)} longer" for p, more in grown.items() if more == more
    ]
    injected, planned = int(found["injected"].sum()), int(found["planned"].sum())
    late = f", at most {caption_seconds(found['late_max_s'].max())} late" if injected else ""
    effect = f" Counted so, {', '.join(said)}." if said else ""
    return [
        Text(
            f"{position}{count(injected)} of {count(planned)} took effect{late}. What a stalled load generator "
            "could have hidden is bounded: “longest” counts from the last moment at which its loop is known to "
            f"have run on time.{effect}"
        ),
        table_of(
            found,
            {
                "fault": ("fault", Cell),
                "planned": ("planned", count_cell),
                "took effect": ("injected", count_cell),
                "late, median (s)": ("late_p50_s", seconds_cell),
                "late, most (s)": ("late_max_s", seconds_cell),
                "p50 (s)": ("p50_s", seconds_cell),
                "p50, longest (s)": ("p50_longest_s", seconds_cell),
                "p99 (s)": ("p99_s", seconds_cell),
                "p99, longest (s)": ("p99_longest_s", seconds_cell),
            },
            title="Coordinated omission",
            csv="omission.csv",
            folded=True,
        ),
    ]


def _epsilon(tables: RunTables) -> Text:
    epsilon_s = tables.number("epsilon_s")
    if epsilon_s is None:
        return Text("ε, the most by which a time of this run can be off, is not known.", "missing")
    parts = tables.summary.get("epsilon_parts")
    known = parts if isinstance(parts, dict) else {}
    terms = [
        f"{_PARTS.get(name, words(name.removesuffix('_s')))} {milliseconds(value)}"
        for name, value in known.items()
        if name.endswith("_s") and not name.startswith("window") and isinstance(value, int | float)
    ]
    made_of = ""
    if terms:
        longest = "lags and waits the longest" if known.get("canary_s") is not None else "two lags the larger"
        made_of = f" It is made of {', '.join(terms)} (real time; of {longest} counts), times the speedup of "
        made_of += f"{tables.pace:g}.{_window(tables)}"
    return Text(
        f"ε = {caption_seconds(epsilon_s)} of scenario time: a closed-form range [lo, hi) is checked as "
        f"[lo − ε, hi + ε].{made_of}"
    )


def _window(tables: RunTables) -> str:
    """In which part of the run lag counts: the largest of the whole run may be another."""
    window = tables.epsilon_window_s
    if window is None:
        return ""
    incidents = tables.table("incidents")
    stalled = (incidents["engine"] == "real") & (incidents["kind"] == "gateway_stall")
    from_s, to_s = window
    until = "the end of the run" if math.isinf(to_s) else caption_seconds(to_s)
    planned = ", without the lag of a stall that was planned" if stalled.any() else ""
    return (
        f" Lag counts from {caption_seconds(from_s)} to {until}, the time in which faults were detected{planned}. "
        "The chart shows the whole run; what does not count is grey there."
    )


def fidelity_section(tables: RunTables) -> Section:
    """Return how each fault was made for real, and what that way cannot show."""
    title = "How the faults were made, and what that cannot show"
    records = tables.records("fidelity")
    if not records:
        why = (
            "The run does not say by which mechanism its faults were injected."
            if "real" in tables.engines
            else "There was no real run: faults were modelled, not injected."
        )
        return missing("fidelity", title, why)
    rows = [
        [
            Cell(str(r.get("fault", ""))),
            Cell(str(r.get("mechanism", ""))),
            Cell(str(r.get("cannot_show", "")) or "–"),
        ]
        for r in records
    ]
    return Section("fidelity", title, [Table(("fault", "mechanism", "what it cannot show"), rows)])
