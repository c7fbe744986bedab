"""Fits of laws: they find the law that made the data, and say so when none fits."""

from __future__ import annotations

import numpy as np
import pytest

from harness.policy.tune.fit import Fit, fit_law


def fit(seconds: object, cut: object = (), families: tuple[str, ...] | None = None) -> Fit:
    families = families or ("exponential", "lognormal", "normal")
    return fit_law(
        "round trip",
        np.asarray(seconds),
        cut_short=np.asarray(cut),
        families=families,
        rng=np.random.default_rng(1),
    )


def test_a_lognormal_is_found_again() -> None:
    found = fit(np.random.default_rng(2).lognormal(np.log(0.05), 0.6, 4000))
    assert found.law.lognormal is not None
    # Standard errors: σ/√n of the logarithm of the median, σ/√2n of σ; four of them.
    assert np.log(found.law.lognormal.median / 0.05) == pytest.approx(0, abs=4 * 0.6 / 4000**0.5)
    assert found.law.lognormal.sigma == pytest.approx(0.6, abs=4 * 0.6 / 8000**0.5)
    assert found.verdict == "good"
    assert found.sentence.startswith("round trip: good fit of lognormal")


def test_a_normal_is_found_again() -> None:
    found = fit(np.random.default_rng(3).normal(0.2, 0.01, 2000))
    assert found.law.normal is not None
    assert found.law.normal.mean == pytest.approx(0.2, abs=4 * 0.01 / 2000**0.5)


def test_what_was_cut_short_counts_as_longer() -> None:
    """Lengths watched for 10 s at most: their mean would be half of the truth."""
    lengths = np.random.default_rng(4).exponential(20.0, 1500)
    ended, cut = lengths[lengths < 10], np.full(int(np.sum(lengths >= 10)), 10.0)
    found = fit(ended, cut, ("exponential", "lognormal"))
    assert found.law.exponential is not None
    # The mean's standard error is mean/√(ended).
    assert found.law.exponential.mean == pytest.approx(20.0, abs=4 * 20 / len(ended) ** 0.5)
    assert ended.mean() < 6
    assert (found.n, found.censored) == (1500, len(cut))
    assert found.verdict == "good"
    assert np.isnan(found.p_value)
    assert np.isnan(found.p99_measured_s)
    assert "too few have ended" in found.sentence


def test_two_lumps_fit_nothing() -> None:
    r = np.random.default_rng(5)
    found = fit(np.concatenate((r.normal(0.02, 0.001, 400), r.normal(0.5, 0.01, 400))))
    assert found.verdict == "poor"
    assert found.p_value < 0.05
    assert "poor fit" in found.sentence


def test_a_constant_is_a_constant() -> None:
    found = fit(np.full(20, 0.08))
    assert found.law.constant == pytest.approx(0.08)
    assert found.verdict == "good"


@pytest.mark.parametrize("bad", [[0.1] * 4, [0.1] * 9 + [0.0], [0.1] * 9 + [-1.0], [0.1] * 9 + [np.nan]])
def test_what_cannot_be_fitted(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 5, each above zero"):
        fit(bad)
