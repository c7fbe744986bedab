"""The verdict of a whole run, from its thresholds, its agreement and its soundness.

From tables to one word with its reasons. It measures nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.judge.agreement import AgreementVerdict
from harness.judge.thresholds import DEFAULT_THRESHOLDS, NOT_ASKED, UNSOUND
from reference_server.errors import Exit
from reports.page import Headline
from reports.run_tables import RunTables

__all__ = ["RunVerdict", "weigh"]


class RunVerdict(NamedTuple):
    """What a report says first (``pass``, ``fail``, ``unknown`` or ``partial``, and why), and the exit code."""

    headline: Headline
    exit_code: Exit


def weigh(tables: RunTables, agreement: AgreementVerdict) -> RunVerdict:
    """Weigh a run. The larger problem names it: unsound, then failed, then undecided.

    Undecided is no pass: a threshold whose limit lies within what the value may be, an agreement of which no
    comparison could be decided (of a real run: none that the real engine took part in), a run without its end. Single
    comparisons that could not be decided are shown and do not count. A simulation of what theory has no law for has
    nothing to be compared with: the thresholds that its scenario states decide.

    An interrupted run has an exit code of its own, which only the command that was interrupted knows.
    """
    thresholds = tables.table("thresholds")
    thresholds = thresholds[thresholds["verdict"] != NOT_ASKED]
    missed = thresholds[thresholds["verdict"] == "fail"]
    open_ = thresholds[~thresholds["verdict"].isin(["pass", "fail"])]
    compared = tables.table("agreement")
    undecided = agreement.reason if agreement.verdict == "unknown" else ""
    stated = ~thresholds["expression"].isin(DEFAULT_THRESHOLDS)
    alone = compared.empty and "real" not in tables.engines and bool(stated.any())
    if alone:
        undecided = ""
    elif not undecided and "real" in tables.engines:
        decided = compared[(compared["left"] == "real") & (compared["verdict"] != "unknown")]
        undecided = "" if len(decided) else "no comparison of the real engine could be decided"
    reasons = (
        ["negative control: the gateway ran another policy than the scenario's, so this report must be red"]
        if tables.negative_control
        else []
    )
    reasons += [f"unsound: {reason}" for reason in tables.unsound_reasons]
    reasons += [f"missed: {row.expression} ({row.reason})" for row in missed.itertuples()]
    if agreement.verdict == "fail":
        reasons.append(f"disagreement: {agreement.reason}")
    if aborted_by := tables.provenance.get("aborted_by"):
        reasons.append(f"the run was ended early by a threshold with abort_on_fail: {aborted_by}")
    elif tables.complete is False:
        ended = tables.provenance.get("status", "complete") == "complete"
        why = "a log lacks the run's end" if ended else "the run was interrupted"
        reasons.append(f"{why}: what follows is what had been measured by then")
    doubted = open_.loc[open_["reason"] == UNSOUND, "expression"]
    reasons += [
        f"undecided: {row.expression} ({row.reason})"
        for row in open_.itertuples()
        if row.Index not in doubted.index
    ]
    if len(doubted):
        reasons.append(f"undecided, for they rest on the unsound run: {'; '.join(doubted)}")
    if undecided and tables.sound is not False:
        reasons.append(f"agreement undecided: {undecided}")

    def found(status: str, sentence: str, exit_code: Exit) -> RunVerdict:
        return RunVerdict(Headline(status, sentence, tuple(reasons)), exit_code)

    if tables.sound is False:
        return found("unknown", "The run is unsound: its times prove nothing", Exit.UNSOUND)
    if len(missed) and agreement.verdict == "fail":
        return found("fail", "Thresholds are missed, and the engines disagree", Exit.MISSED)
    if agreement.verdict == "fail":
        return found("fail", "The engines disagree: do not trust these numbers yet", Exit.MISSED)
    if len(missed):
        return found("fail", f"{len(missed)} of {len(thresholds)} thresholds missed", Exit.MISSED)
    if tables.complete is False:
        return found("partial", "Interrupted: a report of what was measured until then", Exit.UNDECIDED)
    if len(open_):
        sentence = f"{len(open_)} of {len(thresholds)} thresholds could not be decided"
        return found("unknown", sentence, Exit.UNDECIDED)
    if undecided:
        held = "The thresholds hold; whether" if len(thresholds) else "Whether"
        return found("unknown", f"{held} the engines agree could not be decided", Exit.UNDECIDED)
    if alone:
        return found("pass", "All thresholds hold; theory has no law to compare with", Exit.GOOD)
    held = "all thresholds hold and the" if len(thresholds) else "the"
    sure = int((compared["verdict"] == "pass").sum())
    part = (
        f" in all {sure} comparisons that could be decided, of {len(compared)}"
        if sure < len(compared)
        else ""
    )
    return found("pass", f"{held} engines agree{part}".capitalize(), Exit.GOOD)
