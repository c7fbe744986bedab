from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.statistics.bootstrap import Shift, shifts
from harness.statistics.incidence import incidence
from harness.studies.compare.statistical_tests import (
    TOO_FEW,
    adjusted,
    judge_curve,
    judge_rate,
    judge_share,
    log_rank,
    poisson_rates,
)
from tests.harness.studies.compare.runs import rows, uniform


def moved(
    before: pd.DataFrame,
    after: pd.DataFrame,
    q: float = 0.5,
    *,
    paired: bool = False,
    seed: int = 1,
    draws: int = 500,
) -> Shift:
    rng = np.random.default_rng(seed)
    return shifts(before, after, [q], rng, paired=paired, draws=draws)[0]


# -- exact tests ---------------------------------------------------------------------------------


def test_rates_against_the_binomial_by_hand() -> None:
    """Two events in one day, then eight in one: given ten, P(X ≥ 8 or X ≤ 2) = 2 · 56/1024."""
    ratio, lo, hi, p_value = poisson_rates(2, 1.0, 8, 1.0)
    assert ratio == pytest.approx(4.0)
    assert p_value == pytest.approx(2 * (45 + 10 + 1) / 1024)
    # Clopper and Pearson for 8 of 10: 0.44390 to 0.97479, as odds.
    assert lo == pytest.approx(0.44390 / (1 - 0.44390), abs=1e-3)
    assert hi == pytest.approx(0.97479 / (1 - 0.97479), abs=2e-2)


def test_exposure_counts() -> None:
    assert poisson_rates(5, 1.0, 50, 10.0)[0] == pytest.approx(1.0)
    assert poisson_rates(5, 1.0, 50, 10.0)[3] > 0.9
    assert poisson_rates(5, 1.0, 50, 1.0)[3] < 1e-6


def test_no_event_says_nothing_about_the_ratio() -> None:
    ratio, lo, hi, p_value = poisson_rates(0, 1.0, 0, 2.0)
    assert np.isnan(ratio)
    assert (lo, hi, p_value) == (0.0, float("inf"), 1.0)


def test_events_in_one_run_only_have_an_open_ratio() -> None:
    ratio, lo, hi, _ = poisson_rates(0, 1.0, 9, 1.0)
    lowest_share = 0.025 ** (1 / 9)  # Clopper and Pearson, nine of nine
    assert (ratio, hi) == (float("inf"), float("inf"))
    assert lo == pytest.approx(lowest_share / (1 - lowest_share))


def test_no_exposure_is_refused() -> None:
    with pytest.raises(ValueError, match="exposures"):
        poisson_rates(0, 0.0, 1, 1.0)


# -- log-rank ------------------------------------------------------------------------------------


def test_log_rank_by_hand() -> None:
    """At 1: 1 of 4 fails, expected 2/4; at 2: 1/3; at 3: 0. O − E = 2 − 5/6 over √(1/4 + 2/9)."""
    z, p_value = log_rank(rows([1.0, 2.0]), rows([3.0, 4.0]))
    expected = (2 - 5 / 6) / np.sqrt(1 / 4 + 2 / 9)
    assert abs(z) == pytest.approx(expected)
    assert z < 0, "the second is slower"
    assert p_value == pytest.approx(0.0896, abs=1e-3)


@pytest.mark.parametrize(
    ("sentence", "before", "after", "differs"),
    [
        ("one law, two samples", uniform(300, 70, 100, 1), uniform(300, 70, 100, 2), False),
        ("three seconds later", uniform(300, 70, 100, 1), uniform(300, 76, 106, 2), True),
        ("all at one and the same time", [80.0] * 19, [80.0] * 19, False),
        ("two times without any spread", [80.0] * 19, [110.0] * 19, True),
        ("differences of rounding are no order", [80.0] * 19, [80.0 + 1e-12] * 19, False),
    ],
)
def test_log_rank(sentence: str, before: list[float], after: list[float], differs: bool) -> None:
    assert (log_rank(rows(before), rows(after))[1] < 0.01) is differs, sentence


# -- bootstrap -----------------------------------------------------------------------------------

ENDS = st.lists(
    st.tuples(st.integers(1, 20).map(float), st.sampled_from(["detected", "recovered", "censored"])),
    min_size=1,
    max_size=30,
)


@given(ENDS, st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=80, deadline=None)
def test_the_percentile_is_that_of_the_curves(seen: list[tuple[float, str]], q: float) -> None:
    """Weighted once each, the resampled curve is the Aalen–Johansen estimate of every other table."""
    took, ends = [t for t, _ in seen], [e for _, e in seen]
    expected = incidence(took, np.array(ends, dtype=object)).quantile(q).value_s
    found = moved(rows(took, outcomes=ends), rows([1.0]), q, draws=1).before_s
    assert found == (pytest.approx(expected) if expected == expected else float("inf"))


def test_the_same_seed_gives_the_same_interval() -> None:
    before, after = rows(uniform(60, 70, 100, 1)), rows(uniform(60, 75, 105, 2))
    assert moved(before, after, seed=4) == moved(before, after, seed=4)
    assert moved(before, after, seed=4) != moved(before, after, seed=5)


def test_blocks_of_draws_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = rows(uniform(60, 70, 100, 1)), rows(uniform(60, 75, 105, 2))
    whole = moved(before, after, paired=True)
    monkeypatch.setattr("harness.statistics.bootstrap._CELLS", 700)
    assert moved(before, after, paired=True) == whole


def test_faults_of_one_plan_are_compared_with_themselves() -> None:
    took = uniform(200, 70, 100, 1)
    later = [t + 3.0 for t in reversed(took)]
    before = rows(took)
    after = rows(later).iloc[::-1].reset_index(drop=True)
    after["fault_id"] = before["fault_id"]
    assert moved(before, after, paired=True)[2:] == (3.0, 3.0, 3.0)
    alone = moved(before, after, paired=False)
    assert alone.hi_s - alone.lo_s > 3.0, "by themselves they are not known that well"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for n in range(100):
        before, after = rows(uniform(80, 70, 100, 2 * n)), rows(uniform(80, 75, 105, 2 * n + 1))
        shift = moved(before, after, seed=n, draws=200)
        covered += shift.lo_s <= 5.0 <= shift.hi_s
    assert 87 <= covered <= 100  # 95 % of 100, ± 4 standard deviations


@pytest.mark.parametrize(
    ("n", "q", "known"), [(5, 0.5, False), (6, 0.5, True), (367, 0.99, False), (368, 0.99, True)]
)
def test_a_small_sample_has_no_interval(n: int, q: float, known: bool) -> None:
    shift = moved(rows(uniform(n, 70, 100, 1)), rows(uniform(400, 70, 100, 2)), q, draws=50)
    assert np.isfinite([shift.lo_s, shift.hi_s]).all() == known
    assert np.isfinite(shift.difference_s), "what was seen was seen"


def test_a_percentile_that_is_no_longer_reached_is_infinitely_later() -> None:
    lost = rows([80.0] * 40, outcomes=["recovered"] * 30 + ["detected"] * 10)
    shift = moved(rows([80.0] * 40), lost)
    assert shift.after_s == shift.difference_s == shift.lo_s == float("inf")
    both = moved(lost, lost)
    assert np.isnan(both.difference_s)


# -- verdicts ------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjusted([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert adjusted([]).size == 0


def curve_row(p_holm: float, difference_s: float, lo_s: float, hi_s: float, **more: float) -> Any:
    given = {"p99_difference_s": np.nan, "p99_lo_s": np.nan, "p99_hi_s": np.nan, **more}
    return pd.Series(
        {
            "p_holm": p_holm,
            "p50_difference_s": difference_s,
            "p50_lo_s": lo_s,
            "p50_hi_s": hi_s,
            "margin_s": 2.5,
            **given,
        }
    )


@pytest.mark.parametrize(
    ("sentence", "row", "verdict"),
    [
        ("slower and significant", curve_row(0.001, 5, 4, 6), "fail"),
        ("slower, may be chance", curve_row(0.3, 5, -1, 11), "unknown"),
        ("significant, but by less than matters", curve_row(0.001, 0.2, 0.1, 0.3), "pass"),
        ("not shown to be slower, not ruled out", curve_row(0.9, 0.0, -4, 4), "unknown"),
        ("ruled out", curve_row(0.9, 0.0, -2, 2), "pass"),
        ("faster", curve_row(0.001, -30, -31, -29), "pass"),
        (
            "the tail alone is slower",
            curve_row(0.001, 0, -1, 1, p99_difference_s=9, p99_lo_s=8, p99_hi_s=10),
            "fail",
        ),
        ("no longer reached", curve_row(0.001, np.inf, np.inf, np.inf), "fail"),
        ("no interval at all", curve_row(0.001, 5, np.nan, np.nan), "unknown"),
    ],
)
def test_a_verdict_on_a_curve(sentence: str, row: Any, verdict: str) -> None:
    found, reason = judge_curve(row)
    assert found == verdict, f"{sentence}: {reason}"
    assert (reason == TOO_FEW) is ("no interval" in sentence)


@pytest.mark.parametrize(
    ("counts", "p_holm", "verdict"),
    [((0, 0), 1.0, "unknown"), ((9, 2), 0.2, "pass"), ((2, 9), 0.2, "unknown"), ((2, 30), 0.001, "fail")],
)
def test_a_verdict_on_a_rate(counts: tuple[int, int], p_holm: float, verdict: str) -> None:
    row = pd.Series(
        {
            "count_before": counts[0],
            "client_days_before": 1.0,
            "count_after": counts[1],
            "client_days_after": 1.0,
            "ratio": 1.0,
            "p_holm": p_holm,
        },
        dtype=float,
    )
    assert judge_rate(row)[0] == verdict


@pytest.mark.parametrize(
    ("after", "p_holm", "lo", "verdict"),
    [
        (100, 1.0, -0.04, "pass"),
        (99, 1.0, -0.01, "pass"),
        (95, 0.4, -0.12, "unknown"),
        (50, 1e-9, -0.6, "fail"),
    ],
)
def test_a_verdict_on_a_share(after: int, p_holm: float, lo: float, verdict: str) -> None:
    row = pd.Series(
        {
            "detected_before": 100,
            "n_before": 100,
            "detected_after": after,
            "n_after": 100,
            "lo": lo,
            "p_holm": p_holm,
        },
        dtype=float,
    )
    assert judge_share(row, 0.03)[0] == verdict
