"""The laws of random times against SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from scenarios.distributions import Distribution

LAWS = {
    "uniform": ({"uniform": {"low": "1.3s", "high": "7.7s"}}, stats.uniform(1.3, 6.4)),
    "exponential": ({"exponential": {"mean": "45s"}}, stats.expon(scale=45)),
    "lognormal": ({"lognormal": {"median": "50ms", "sigma": 0.5}}, stats.lognorm(0.5, scale=0.05)),
    "normal": ({"normal": {"mean": "5s", "sd": "3s"}}, stats.norm(5, 3)),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_scipys_cut_off_at_zero(name: str) -> None:
    given, theirs = LAWS[name]
    ours = Distribution.model_validate(given)
    p = np.array([0.0, 1e-9, 0.01, 0.3, 0.5, 0.99, 1.0, -0.1, 1.1, np.nan])
    t = np.array([-np.inf, -1.0, 0.0, 0.04, 1.3, 5.0, 7.7, 100.0, np.inf, np.nan])
    np.testing.assert_allclose(ours.quantile(p), np.maximum(theirs.ppf(p), 0.0), rtol=1e-14)
    np.testing.assert_allclose(ours.cdf(t), np.where(t < 0, 0.0, theirs.cdf(t)), rtol=1e-14)
    assert ours.mean_s == pytest.approx(theirs.mean(), rel=1e-14)


@pytest.mark.parametrize("name", LAWS)
def test_one_value_gives_one_value(name: str) -> None:
    ours: Any = Distribution.model_validate(LAWS[name][0])
    assert ours.quantile(0.5).shape == ours.cdf(1.0).shape == ()
