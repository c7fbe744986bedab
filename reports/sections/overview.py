"""What a reviewer needs in the first minute: the facts beside the verdict, how to read, thresholds, one row a fault."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from reports.numbers import ABSENT, caption_seconds, cause_name, count, plain, rate, share, time_span
from reports.page import Block, Cell, Section, Table, Text, Tone
from reports.run_tables import RunTables
from reports.sections.cells import (
    INTERVALS,
    Columns,
    missing,
    percentile_cell,
    seconds_cell,
    table_of,
    verdict_cell,
)
from reports.sections.cost import cost_sentences
from reports.sections.losses import losses_sentences

__all__ = ["facts", "overview_section", "reading", "thresholds_section"]

_COLUMNS = (
    "fault",
    "n",
    "detected",
    "p50 (s)",
    "p99 (s)",
    "max (s)",
    "caught by",
    "theory’s range (s)",
    "agrees",
)


def facts(tables: RunTables, agreement: str, exit_code: int) -> list[Cell]:
    """Return the facts beside the verdict: each cell's text is the answer, its detail says to what."""
    sound = {True: "sound", False: "unsound", None: "not judged"}[tables.sound]
    tone: dict[bool | None, Tone] = {True: "pass", False: "fail", None: "unknown"}
    ended: dict[bool | None, Tone] = tone | {True: ""} if tables.sound is False else tone
    thresholds = tables.table("thresholds")["verdict"]
    thresholds = thresholds[thresholds != "not_asked"]
    held = int((thresholds == "pass").sum())
    agree: dict[str, tuple[str, Tone]] = {"pass": ("yes", "pass"), "fail": ("no", "fail")}
    answer, answer_tone = agree.get(agreement, ("undecided", "unknown"))
    detail, compared = "engines agree", tables.table("agreement")["verdict"]
    decided = int((compared != "unknown").sum())
    if answer == "yes" and decided < len(compared):
        answer, detail = f"{decided} of {len(compared)}", "comparisons agree, the rest undecided"
    all_held: Tone = (
        "fail" if (thresholds == "fail").any() else "pass" if held == len(thresholds) else "unknown"
    )
    epsilon_s = tables.number("epsilon_s")
    complete = {True: "complete", False: "partial", None: "not said"}[tables.complete]
    return [
        Cell(answer, detail=detail, tone=answer_tone),
        *_lost(tables),
        Cell(f"{held} of {len(thresholds)}", detail="thresholds hold", tone=all_held)
        if len(thresholds)
        else Cell("none", detail="thresholds set", tone="unknown"),
        *(
            [
                Cell(sound, detail="real run", tone=tone[tables.sound]),
                Cell(caption_seconds(epsilon_s), detail="ε, a time may be off by"),
            ]
            if "real" in tables.engines
            else [Cell("none", detail="real run", tone="unknown")]
        ),
        Cell(complete, detail="run", tone=ended[tables.complete]),
        Cell(str(int(exit_code)), detail="exit code"),
    ]


def _lost(tables: RunTables) -> Iterator[Cell]:
    """The headline figure: healthy clients that lost their connection, of the last engine that measures."""
    found = tables.table("losses")
    found = found[(found["author"] == "") & found["engine"].isin(tables.measured_engines[-1:])]
    said = tables.table("thresholds")
    too_many = (said["expression"].str.startswith("healthy.") & (said["verdict"] == "fail")).any()
    for row in found.to_dict("records"):
        text = f"{count(row['clients'])} of {count(row['healthy_clients'])}"
        tone: Tone = "fail" if too_many else "" if row["clients"] or tables.sound is False else "pass"
        yield Cell(text, detail="healthy clients lost a connection", tone=tone)


def reading(tables: RunTables) -> list[tuple[str, str]]:
    """Return the terms that a reader must know, and what they mean here."""
    scenario_time = "Every time is in seconds of the scenario"
    if tables.pace != 1:
        scenario_time += (
            f". The real run went {tables.pace:g} times as fast as the scenario says (policy and faults, not the "
            "network); its times are multiplied back"
        )
    return [
        (
            "Detection latency",
            "from the moment a fault takes effect to the server's decision that the client is dead (“suspected”), as "
            "far as a witness of it tells. Then its socket is closed."
            if tables.foreign
            else "from the moment a fault takes effect to the gateway's decision that the client "
            "is dead (“suspected”). Then the socket is closed, the store is cleared, the peers are told.",
        ),
        (
            "p50, p95, p99",
            "the time by which 50, 95, 99 % of all faults had been detected. Below each stands its "
            "95 % interval, from order statistics; where there are too few faults for one, it says so.",
        ),
        (
            "Censored, recovered",
            "not detected when the run ended; alive again before it was detected. Neither is left out of n.",
        ),
        (
            "Theory, simulated, real",
            "closed formulas; a model that runs flatline's own detector code; real clients, sockets, faults, and "
            "the server as it is. They are to be believed as far as they agree."
            if tables.foreign
            else "closed formulas; a model that runs the gateway's own detector code; real "
            "clients, sockets, faults, gateway and Redis. They are to be believed as far as they agree.",
        ),
        (
            "✓ ✗ ?",
            "within the tolerance, and with enough faults to tell; outside it, and not by chance; "
            "undecided: mostly too few faults, or an unsound run.",
        ),
        (
            "ε",
            "the most by which a time of the real run can be off: loop lag as measured in this run, "
            "and fixed allowances for the network's delay and for how coarsely timers tick.",
        ),
        (
            "Loss",
            "an end of a healthy client's connection that it did not want, whoever made it; a false suspicion is one "
            "by the gateway's verdict.",
        ),
        ("Ghost", "a session that the store shows although its client is dead."),
        ("Gap", "a healthy client is connected and the store does not show it online."),
        ("Seconds", f"{scenario_time}."),
    ]


def overview_section(tables: RunTables, agreement: pd.DataFrame) -> Section:
    """Return one row a fault: how fast, how sure, which layer, whether the engines agree."""
    engine = tables.measured_engines[-1] if tables.measured_engines else ""
    qos = tables.table("qos")
    rows = qos[(qos["milestone"] == "suspected") & (qos["engine"] == engine)]
    why = "rests on an unsound run" if tables.sound is False else "had too few faults to tell"
    blocks: list[Block] = []
    if rows.empty:
        blocks.append(Text("No fault was measured in this run.", "missing"))
    else:
        blocks.append(
            Table(
                _COLUMNS,
                [_row(tables, agreement, engine, row) for row in rows.to_dict("records")],
                note=f"Measured by the {engine} engine. “Agrees” counts every comparison of that fault between theory, "
                f"simulation and reality; what is undecided {why}. {INTERVALS}",
            )
        )
    blocks += [Text(sentence) for sentence in _answers(tables, engine)]
    return Section("overview", "In one minute", blocks)


def thresholds_section(tables: RunTables) -> Section:
    """Return every threshold of the scenario with its verdict."""
    thresholds = tables.table("thresholds")
    if thresholds.empty:
        why = "no table of thresholds" if "thresholds" in tables.absent else "the scenario sets none"
        return missing("thresholds", "Thresholds", f"No threshold was checked: {why}.")
    columns: Columns = {
        "verdict": ("verdict", verdict_cell),
        "threshold": ("expression", Cell),
        "value": ("value", lambda value: Cell(plain(value), value)),
        "measured": ("reason", Cell),
    }
    return Section("thresholds", "Thresholds", [table_of(thresholds, columns, csv="thresholds.csv")])


def _row(tables: RunTables, agreement: pd.DataFrame, engine: str, row: Mapping[Hashable, Any]) -> list[Cell]:
    fault, n = row["fault"], int(row["n"])
    causes = tables.table("detections_by_layer")
    causes = causes[(causes["engine"] == engine) & (causes["fault"] == fault)].sort_values("count")
    caught = ", ".join(cause_name(cause) for cause in causes["cause"][::-1]) or "nothing"
    laws = tables.table("laws")
    law = laws[(laws["fault"] == fault) & (laws["milestone"] == "suspected")]
    theory = Cell("no exact law")
    if len(law):
        lo, hi, mass = (float(law[name].iloc[0]) for name in ("lo_s", "hi_s", "detected_share"))
        if mass == mass:  # else theory is not exact here
            theory = Cell("never" if mass <= 0 else time_span(lo, hi, unit=False))
    verdicts = agreement.loc[agreement["fault"] == fault, "verdict"].value_counts()
    agrees = next((v for v in ("fail", "pass", "unknown") if v in verdicts), "unknown")
    parts = {"fail": "disagree", "pass": "agree", "unknown": "undecided"}
    weighed = ", ".join(f"{verdicts[v]} {said}" for v, said in parts.items() if v in verdicts)
    said = verdict_cell(agrees)
    if tables.sound is False and agrees == "unknown":
        said = Cell("? unsound run", tone="unknown")
    return [
        Cell(fault),
        Cell(count(n), n),
        Cell(share(row["detected"] / n) if n else ABSENT, row["detected"] / n if n else -1.0),
        percentile_cell(row["p50_s"], row["p50_lo_s"], row["p50_hi_s"], n),
        percentile_cell(row["p99_s"], row["p99_lo_s"], row["p99_hi_s"], n),
        seconds_cell(row["max_s"]),
        Cell(caught),
        theory,
        replace(said, detail=weighed) if len(verdicts) else Cell("not compared"),
    ]


def _answers(tables: RunTables, engine: str) -> Iterator[str]:
    """Say in sentences what else a reviewer asks."""
    wrong = tables.table("false_suspicions")
    wrong = wrong[wrong["engine"] == engine]
    if tables.foreign and wrong.empty:
        yield "False suspicions: not seen, for no witness tells whom this server suspects."
    for row in wrong.to_dict("records"):
        yield (
            f"False suspicions: {count(row['count'])} in {rate(row['client_days'])} healthy client-days; "
            f"at most {rate(row['rate_hi'])} a client-day (95 %)."
        )
    yield from losses_sentences(tables, engine)
    live = tables.table("population")
    live = live[live["engine"] == engine].sort_values("time_s")
    if tables.foreign and live["ghosts"].isna().all():
        yield "Ghosts and gaps of presence: not seen, for nobody watched a store."
    elif len(live):
        yield (
            f"Ghosts: at most {count(live['ghosts'].max())} at once, {count(live['ghosts'].iloc[-1])} at the end."
        )
    locked = tables.table("qos")
    locked = locked[(locked["milestone"] == "locked_out") & (locked["engine"] == engine) & (locked["n"] > 0)]
    if len(locked):
        most = locked.sort_values(["n", "p50_s"]).iloc[-1]
        if most["p50_s"] == most["p50_s"]:
            yield (
                f"Refused logins: a user whose client died ({most['fault']}) and who logs in again is refused for "
                f"{caption_seconds(most['p50_s'])} (median of {count(most['n'])})."
            )
    yield from cost_sentences(tables, engine)
