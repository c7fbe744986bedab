from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.measure.quality_of_service import incidence_by_cause, survival
from reports.run_tables import SCHEMAS, frame

Seen = tuple[float, str, str]  # duration, outcome, cause


def detections(seen: list[Seen], milestone: str = "suspected") -> pd.DataFrame:
    return frame(
        "detections",
        [
            ("real", f"f{n}", "host_crash", f"s{n}", "", milestone, cause, outcome, 100.0, took, 1.0, took)
            for n, (took, outcome, cause) in enumerate(seen)
        ],
    )


def at(table: pd.DataFrame, cause: str, time_s: float) -> float:
    steps = table[(table["cause"] == cause) & (table["duration_s"] <= time_s)]
    return float(steps["incidence"].iloc[-1]) if len(steps) else 0.0


BY_HAND: list[Seen] = [
    (10.0, "detected", "heartbeat"),
    (20.0, "detected", "tcp_timeout"),
    (30.0, "censored", ""),
    (40.0, "detected", "heartbeat"),
    (50.0, "recovered", ""),
]


def test_curves_computed_by_hand() -> None:
    """Just before 40 s 3/5 are undetected and 2 are watched: a half of 3/5 goes to each that comes."""
    table = incidence_by_cause(detections(BY_HAND))
    assert at(table, "heartbeat", 10) == pytest.approx(0.2)
    assert at(table, "heartbeat", 50) == pytest.approx(0.5)
    assert at(table, "tcp_timeout", 50) == pytest.approx(0.2)
    assert at(table, "recovered", 50) == pytest.approx(0.3)


def test_one_minus_kaplan_meier_per_layer_would_be_too_much() -> None:
    """Why Aalen–Johansen: with the other layers as censored, shares would add up to more than one."""
    table = incidence_by_cause(detections(BY_HAND))
    total = sum(at(table, cause, 50) for cause in ("heartbeat", "tcp_timeout", "recovered"))
    assert total == pytest.approx(1.0)
    naive = 1 - (1 - 1 / 5) * (1 - 1 / 2)  # heartbeat, everyone else censored
    assert naive > at(table, "heartbeat", 50)


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.integers(1, 30).map(float),
                st.just("detected"),
                st.sampled_from(["heartbeat", "tcp_fin", ""]),
            ),
            st.tuples(st.integers(1, 30).map(float), st.sampled_from(["recovered", "censored"]), st.just("")),
        ),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_causes_and_the_undetected_add_up_to_one(seen: list[Seen]) -> None:
    table = incidence_by_cause(detections(seen))
    assert (table["incidence"] >= table["lo"].fillna(0) - 1e-9).all()
    assert (table["incidence"] <= table["hi"].fillna(1) + 1e-9).all()
    # Whoever ends in any way, taken together, is one event: its curve is 1 − Kaplan–Meier.
    together = [
        (took, "censored" if outcome == "censored" else "detected", "any") for took, outcome, _ in seen
    ]
    free = survival(detections(together))
    for time_s in (0.0, 7.0, 15.0, 30.0):
        total = sum(at(table, cause, time_s) for cause in table["cause"].unique())
        undetected = free.loc[free["duration_s"] <= time_s, "survival"].iloc[-1]
        assert total + undetected == pytest.approx(1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        first, second = rng.exponential(10, 80), rng.exponential(30, 80)
        seen = [
            (
                float(min(a, b, 12.0)),
                "censored" if min(a, b) > 12 else "detected",
                "" if min(a, b) > 12 else "heartbeat" if a < b else "sweep",
            )
            for a, b in zip(first, second, strict=True)
        ]
        table = incidence_by_cause(detections(seen))
        row = table[(table["cause"] == "heartbeat") & (table["duration_s"] <= 8.0)].iloc[-1]
        truth = 0.75 * (1 - np.exp(-8.0 * (1 / 10 + 1 / 30)))
        covered += row["lo"] <= truth <= row["hi"]
    assert 180 <= covered <= 199  # 95 % of 200, ± 4 standard deviations


def test_not_applicable_rows_and_other_milestones_are_left_out() -> None:
    rows = pd.concat(
        [
            detections([(float("nan"), "not_applicable", "")]),
            detections([(5.0, "detected", "ttl")], milestone="store_cleared"),
        ],
        ignore_index=True,
    )
    table = incidence_by_cause(rows)
    assert table.empty
    assert list(table.columns) == list(SCHEMAS["incidence"])
