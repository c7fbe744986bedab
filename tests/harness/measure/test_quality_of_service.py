from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.measure.quality_of_service import breakdown, detections_by_layer, qos, survival
from harness.statistics.incidence import incidence
from reports.run_tables import SCHEMAS, frame

REFERENCE = [(12, "d"), (18, "d"), (25, "d"), (25, "c"), (31, "d"), (40, "c")]
OUTCOMES = {"d": "detected", "c": "censored", "r": "recovered", "n": "not_applicable"}


def curve(cases: Sequence[tuple[float, str]]) -> Any:
    return incidence([t for t, _ in cases], [OUTCOMES[o] for _, o in cases])


def detections(
    cases: Sequence[tuple[float, str]], fault: str = "host_crash", causes: Sequence[str] = ()
) -> pd.DataFrame:
    rows = [
        (
            "real",
            f"{fault}-{i}",
            fault,
            f"s{i}",
            "node-1",
            "suspected",
            causes[i] if causes else "heartbeat",
            OUTCOMES[o],
            100.0,
            float("nan") if o == "n" else t,
            5.0,
            float("nan") if o == "n" else t,
        )
        for i, (t, o) in enumerate(cases)
    ]
    return frame("detections", rows)


def test_the_reference_curve_of_kaplan_and_meier() -> None:
    found = curve(REFERENCE)
    assert found.time_s.tolist() == [12, 18, 25, 31, 40]
    assert found.survival == pytest.approx([0.8333, 0.6667, 0.5, 0.25, 0.25], abs=5e-5)
    assert found.std_error[2] == pytest.approx(0.204124, abs=5e-7)  # Greenwood
    assert found.quantile(0.5).value_s == 25  # inf{t : S(t) ≤ ½}, rounding or not
    assert found.at_risk.tolist() == [6, 5, 4, 2, 1]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from("dc")), min_size=1, max_size=40).filter(
        lambda cases: any(o == "d" for _, o in cases)
    )
)
def test_without_recoveries_it_is_scipys_curve_with_greenwoods_bounds(cases: list[tuple[int, str]]) -> None:
    times, censored = (np.array([t for t, _ in cases], dtype=float), np.array([o == "c" for _, o in cases]))
    theirs = stats.ecdf(stats.CensoredData(uncensored=times[~censored], right=times[censored])).sf
    ours = curve(cases)
    assert ours.survival == pytest.approx(theirs.probabilities, abs=1e-11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined at 0 and 1, which are left out below
        bounds: Any = theirs.confidence_interval(method="log-log")
    inner = (ours.survival > 0) & (ours.survival < 1)
    assert ours.lo[inner] == pytest.approx(bounds.low.probabilities[inner], abs=1e-8)
    assert ours.hi[inner] == pytest.approx(bounds.high.probabilities[inner], abs=1e-8)


@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from("dr")), min_size=1, max_size=40))
def test_without_censoring_the_incidence_is_the_share_detected(cases: list[tuple[int, str]]) -> None:
    found = curve(cases)
    n = len(cases)
    share = np.array([sum(o == "d" and t <= at for t, o in cases) / n for at in found.time_s])
    assert 1 - found.survival == pytest.approx(share, abs=1e-11)
    # The variance is then the binomial one.
    assert found.std_error == pytest.approx(np.sqrt(share * (1 - share) / n), abs=1e-7)


def test_a_recovery_competes_and_does_not_censor() -> None:
    # By hand: F = 1/4 at 10; the one who recovered at 20 leaves; at 30, S(30−) = 1/2, one of two: F = 1/2.
    found = curve([(10, "d"), (20, "r"), (30, "d"), (40, "c")])
    assert (1 - found.survival).tolist() == [0.25, 0.25, 0.5, 0.5]
    # Taken for censored it would have been 1 − 3/4 · 1/2 = 5/8.
    assert found.quantile(0.5).value_s == 30


def test_a_percentile_that_most_recover_from_is_never_reached() -> None:
    found = curve([(10, "d"), *[(20, "r")] * 9]).quantile(0.5)
    assert np.isnan(found.value_s)
    assert found.lo_s == float("inf")  # and that is certain


def test_a_censored_percentile_is_only_known_to_lie_beyond_what_was_watched() -> None:
    found = curve([(70, "d"), *[(200, "c")] * 30]).quantile(0.5)
    assert np.isnan(found.value_s)
    assert (found.lo_s, found.hi_s) == (200, float("inf"))


@pytest.mark.parametrize(("q", "least"), [(0.5, 6), (0.95, 72), (0.99, 368)])
def test_a_percentile_needs_a_sample_of_its_size(q: float, least: int) -> None:
    exists = [curve([(t, "d") for t in range(1, n + 1)]).quantile(q).exists for n in (least - 1, least)]
    assert exists == [False, True]


def test_the_interval_covers_the_percentile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    for censored_at in (np.inf, 95.0):  # order statistics; bounds of the censored curve
        hits = 0
        for _ in range(400):
            t = rng.uniform(70, 100, 60)
            found = incidence(np.minimum(t, censored_at), np.where(t <= censored_at, "detected", "censored"))
            interval = found.quantile(0.5)
            hits += interval.lo_s <= 85 <= interval.hi_s
        # 95 % and more (order statistics are conservative); 400 draws are off by 4 % at four sigma.
        assert hits / 400 >= 0.95 - 0.04


def test_the_table_of_figures() -> None:
    n = 1000
    exact = [(70 + 30 * (i - 0.5) / n, "d") for i in range(1, n + 1)]
    row = qos(detections(exact)).iloc[0]
    assert [row[c] for c in ("n", "detected", "censored", "recovered", "not_applicable")] == [n, n, 0, 0, 0]
    assert row["mean_s"] == pytest.approx(85.0)
    assert row["p50_s"] == exact[499][0]
    assert (row["p99_lo_s"], row["p99_s"], row["p99_hi_s"]) == (exact[982][0], exact[989][0], exact[996][0])
    assert row["max_s"] == exact[-1][0]


def test_what_the_table_leaves_empty() -> None:
    table = qos(
        pd.concat(
            [
                detections([(70, "d"), (80, "d"), (float("nan"), "n")], "frozen"),
                detections(REFERENCE, "network_cut"),
                detections([(float("nan"), "n")] * 2, "nat_timeout"),
            ]
        )
    ).set_index("fault")
    small, cut, none = (table.loc[f] for f in ("frozen", "network_cut", "nat_timeout"))
    assert (small["n"], small["not_applicable"], small["p99_s"]) == (2, 1, 80)
    assert np.isnan(small["p99_lo_s"]) and np.isnan(small["p99_hi_s"])  # n too small for an interval
    assert np.isnan(cut["mean_s"])  # some were censored: a mean of the others would flatter
    assert np.isnan(cut["p95_s"])  # the curve ends above 5 %
    assert (cut["max_s"], cut["censored"]) == (31, 2)
    assert (none["n"], none["not_applicable"]) == (0, 2)
    assert np.isnan(none["p50_s"])


def test_the_curve_starts_at_one_steps_at_detections_and_reaches_the_last_time_watched() -> None:
    table = survival(detections(REFERENCE))
    assert list(table.columns) == list(SCHEMAS["survival"])
    assert table["duration_s"].tolist() == [0, 12, 18, 25, 31, 40]
    assert table["survival"].tolist() == pytest.approx([1, 5 / 6, 2 / 3, 0.5, 0.25, 0.25])
    assert table["at_risk"].tolist() == [6, 6, 5, 4, 2, 1]


def test_each_node_and_each_layer_has_its_own_figures_where_there_are_several() -> None:
    table = detections(REFERENCE, causes=["heartbeat", "tcp_fin"] * 3)
    assert breakdown(table.assign(cause="heartbeat")).empty
    table["node"] = ["node-1", "node-2"] * 3
    assert list(breakdown(table).columns) == list(SCHEMAS["breakdown"])
    found = {(row["dimension"], row["value"]): row for row in breakdown(table).to_dict("records")}
    first, second, fin = found["node", "node-1"], found["node", "node-2"], found["cause", "tcp_fin"]
    # A node's undetected faults are its own: 12, 25, 31 and 18, 25+, 40+.
    assert (first["n"], first["detected"], first["p50_s"]) == (3, 3, 25)
    assert (second["n"], second["detected"], second["censored"]) == (3, 1, 2)
    assert np.isnan(second["p50_s"])
    # What was not detected was caught by nobody.
    assert (fin["n"], fin["detected"], fin["p50_s"]) == (1, 1, 18)
    assert first["p99_s"] == qos(table[table["node"] == "node-1"])["p99_s"].item()


def test_which_layer_caught_what() -> None:
    layers = ["heartbeat", "sweep", "heartbeat", "", "heartbeat"]
    cases = [(70.0, "d"), (90.0, "d"), (80.0, "d"), (200.0, "c"), (99.0, "d")]
    table = detections_by_layer(detections(cases, causes=layers))
    assert table.to_numpy().tolist() == [
        ["real", "host_crash", "heartbeat", 3, 80.0],
        ["real", "host_crash", "sweep", 1, 90.0],
    ]


def test_no_detections_give_empty_tables() -> None:
    for table in (qos, survival, detections_by_layer):
        assert table(frame("detections", [])).empty


@pytest.mark.parametrize(
    ("durations", "outcomes"), [([1.0], ["lost"]), ([float("nan")], ["detected"]), ([], [])]
)
def test_what_is_no_data_is_an_error(durations: list[float], outcomes: list[str]) -> None:
    with pytest.raises(ValueError, match=r"allowed|numbers"):
        incidence(durations, outcomes)


def test_what_lies_between_two_looks_has_an_interval_that_holds_both() -> None:
    """Cleared after 0.04 s, seen by looks 0.15 s apart: at 0.16 s, and not at 0.01 s."""
    seen = detections([(0.16 + n / 1000, "d") for n in range(20)]).assign(milestone="store_cleared")
    seen["earliest_s"] = seen["duration_s"] - 0.15
    value, low, high = (float(qos(seen)[name].iloc[0]) for name in ("p50_s", "p50_lo_s", "p50_hi_s"))
    assert value == pytest.approx(0.169)
    assert low <= 0.04 <= high
