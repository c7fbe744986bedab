"""What a run's parts add up to: the larger problem wins, and undecided is no pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.judge.agreement import judge
from harness.judge.thresholds import DEFAULT_THRESHOLDS, UNSOUND
from harness.judge.verdict import weigh
from reports.run_tables import SCHEMAS, RunTables, frame

PASSED, MISSED, OPEN = (
    ("a < 1s", 0.5, "pass", ""),
    ("b < 1s", 2.0, "fail", ""),
    ("c < 1s", 1.0, "unknown", ""),
)


def compared(*pairs: tuple[str, str]) -> pd.DataFrame:
    """Rows of (engine, verdict), each against theory."""
    rows = [
        ("host_crash", "suspected", "p50", left, "theory", 1.0, 1.0, 0.0, 0.1, verdict, "", 100, 0.0, 0.0)
        for left, verdict in pairs
    ]
    return frame("agreement", rows)


@pytest.mark.parametrize(
    ("sentence", "thresholds", "comparisons", "facts", "expected"),
    [
        ("all is well", [PASSED], [("real", "pass")], {}, ("pass", 0)),
        (
            "single undecided rows do not count",
            [PASSED],
            [("real", "pass"), ("real", "unknown")],
            {},
            ("pass", 0),
        ),
        ("an undecided threshold does", [PASSED, OPEN], [("real", "pass")], {}, ("unknown", 97)),
        ("no comparison could be decided", [PASSED], [("real", "unknown")], {}, ("unknown", 97)),
        (
            "the simulation alone is no pass of a real run",
            [PASSED],
            [("simulated", "pass"), ("real", "unknown")],
            {},
            ("unknown", 97),
        ),
        (
            "without a real run it is",
            [PASSED],
            [("simulated", "pass")],
            {"engines": ["simulated"]},
            ("pass", 0),
        ),
        ("nothing to compare is undecided", [PASSED], [], {}, ("unknown", 97)),
        (
            "of a simulation without laws the scenario's thresholds decide",
            [PASSED],
            [],
            {"engines": ["simulated"]},
            ("pass", 0),
        ),
        (
            "and where it states none, nothing does",
            [(DEFAULT_THRESHOLDS[0], 0.0, "pass", "")],
            [],
            {"engines": ["simulated"]},
            ("unknown", 97),
        ),
        ("missed beats undecided", [MISSED, OPEN], [("real", "unknown")], {}, ("fail", 99)),
        ("so does a disagreement", [OPEN], [("real", "fail")], {}, ("fail", 99)),
        ("unsound beats missed", [MISSED], [("real", "fail")], {"sound": False}, ("unknown", 3)),
        (
            "a run without its end is no pass",
            [PASSED],
            [("real", "pass")],
            {"status": "partial"},
            ("partial", 97),
        ),
    ],
)
def test_the_larger_problem_names_it(
    sentence: str,
    thresholds: list[tuple[Any, ...]],
    comparisons: list[tuple[str, str]],
    facts: dict[str, Any],
    expected: tuple[str, int],
) -> None:
    tables = RunTables(
        Path(),
        {"engines": ["simulated", "real"], "sound": True, "status": "complete", **facts},
        {},
        frozenset(),
        {name: frame(name) for name in SCHEMAS}
        | {"thresholds": frame("thresholds", thresholds), "agreement": compared(*comparisons)},
    )
    found = weigh(tables, judge(tables.table("agreement"), sound=tables.sound))
    assert (found.headline.status, int(found.exit_code)) == expected, sentence


def test_an_agreement_of_which_much_is_undecided_says_how_much_was_decided() -> None:
    told = {"sound": True, "engines": ["real"], "status": "complete"}
    rows = compared(("real", "pass"), ("real", "unknown"), ("real", "unknown"))
    of = RunTables(
        Path(), told, {}, frozenset(), {name: frame(name) for name in SCHEMAS} | {"agreement": rows}
    )
    found = weigh(of, judge(rows, sound=True))
    assert found.headline.sentence == "The engines agree in all 1 comparisons that could be decided, of 3"
    assert found.exit_code == 0


def test_why_a_run_is_unsound_is_said_once() -> None:
    told = {"sound": False, "unsound_reasons": ["a loop lagged"], "engines": ["real"], "status": "complete"}
    doubted = [(f"detection_latency.p{n} < 9s", float("nan"), "unknown", UNSOUND) for n in (50, 99)]
    of = RunTables(
        Path(),
        told,
        {},
        frozenset(),
        {name: frame(name) for name in SCHEMAS} | {"thresholds": frame("thresholds", doubted)},
    )
    reasons = weigh(of, judge(of.table("agreement"), sound=False)).headline.reasons
    assert sum("a loop lagged" in reason for reason in reasons) == 1
    assert len(reasons) == 2
    assert reasons[1].endswith("detection_latency.p50 < 9s; detection_latency.p99 < 9s")
