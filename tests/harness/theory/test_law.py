from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.theory.law import FloatArray, Law, mixture
from harness.theory.stack import Layer, first_of, first_of_common_phase
from scenarios.distributions import Distribution, Exponential, Lognormal, Normal, Uniform
from tests.harness.theory.montecarlo import agrees, mean_agrees, share_agrees

N = 40_000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_uniform_law_is_exact() -> None:
    law = Law.uniform(70.0, 100.0)
    assert law.cdf([69, 70, 85, 100, 101]).tolist() == [0, 0, 0.5, 1, 1]
    assert law.quantile([0, 0.5, 0.99, 1]) == pytest.approx([70, 85, 99.7, 100])
    assert (law.lo_s, law.hi_s, law.mean_s, law.mass) == (70, 100, 85, 1)


def test_a_constant_jumps_at_its_time() -> None:
    law = Law.constant(5.0)
    assert law.cdf([4.999, 5.0]).tolist() == [0, 1]
    assert law.before([5.0, 5.001]).tolist() == [0, 1]
    assert law.quantile([0.01, 1.0]).tolist() == [5, 5]


def test_quantiles_above_the_mass_do_not_exist() -> None:
    law = mixture([(0.4, Law.uniform(0.0, 1.0))])
    assert law.mass == pytest.approx(0.4)
    assert law.quantile(0.2) == pytest.approx(0.5)
    assert np.isnan(law.quantile(0.41))
    assert law.mean_s == pytest.approx(0.5), "the mean is of those that happen"


def test_what_never_happens_has_no_numbers() -> None:
    law = Law.never()
    assert law.mass == 0
    assert np.isnan([law.lo_s, law.hi_s, law.mean_s, float(law.quantile(0.5))]).all()
    assert law.cdf([0.0, 1e9]).tolist() == [0, 0]
    assert law.plus(Law.constant(1.0)).mass == 0


@pytest.mark.parametrize("p", [[0.1, 1.0], [0.0, 1.2], [0.0, 0.5, 0.4]])
def test_what_is_no_cdf_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"CDF|knots"):
        Law(np.arange(float(len(p))), np.array(p))


DISTRIBUTIONS = {
    "constant": Distribution(constant=0.3),
    "uniform": Distribution(uniform=Uniform(low=0.2, high=2.0)),
    "exponential": Distribution(exponential=Exponential(mean=4.0)),
    "lognormal": Distribution(lognormal=Lognormal(median=0.05, sigma=0.5)),
    "normal cut at zero": Distribution(normal=Normal(mean=1.0, sd=1.0)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_scenario_distribution_keeps_its_law(name: str) -> None:
    distribution = DISTRIBUTIONS[name]
    law = Law.of(distribution)
    t = np.linspace(0.01, 6, 400)
    assert law.cdf(t) == pytest.approx(distribution.cdf(t), abs=1e-5)
    agrees(law, distribution.sample(rng(1), N))


Draw = Callable[[np.random.Generator], FloatArray]
CALCULUS: dict[str, tuple[Law, Draw]] = {
    "two uniforms added": (
        Law.uniform(0, 30).plus(Law.uniform(0, 10)),
        lambda r: r.uniform(0, 30, N) + r.uniform(0, 10, N),
    ),
    "jumps and slopes added": (
        mixture([(0.3, Law.constant(2.0)), (0.7, Law.uniform(0, 1))]).plus(
            mixture([(0.5, Law.constant(1.0)), (0.5, Law.uniform(3, 4))])
        ),
        lambda r: (
            np.where(r.random(N) < 0.3, 2.0, r.uniform(0, 1, N))
            + np.where(r.random(N) < 0.5, 1.0, r.uniform(3, 4, N))
        ),
    ),
    "an exponential added": (
        Law.uniform(0, 3).plus(Law.of(DISTRIBUTIONS["exponential"])),
        lambda r: r.uniform(0, 3, N) + r.exponential(4.0, N),
    ),
    "mirrored": (Law.uniform(1, 3).scaled(-2), lambda r: -2 * r.uniform(1, 3, N)),
    "floored": (Law.uniform(0, 10).at_least(4), lambda r: np.maximum(r.uniform(0, 10, N), 4)),
    "the slowest of three": (
        Law.uniform(0, 10).slowest_of(3),
        lambda r: r.uniform(0, 10, (3, N)).max(axis=0),
    ),
    "a mixture with never": (
        mixture([(0.2, Law.uniform(0, 1)), (0.3, Law.constant(4.0))]),
        lambda r: np.select(
            [(u := r.random(N)) < 0.2, u < 0.5], [r.uniform(0, 1, N), np.full(N, 4.0)], np.nan
        ),
    ),
}


@pytest.mark.parametrize("name", CALCULUS)
def test_the_calculus_of_laws(name: str) -> None:
    law, draw = CALCULUS[name]
    agrees(law, draw(rng(2)))


def test_a_sum_is_exact_where_a_formula_is_known() -> None:
    law = Law.uniform(0, 1).plus(Law.uniform(0, 1))
    t = np.linspace(0, 2, 101)
    assert law.cdf(t) == pytest.approx(np.where(t < 1, t**2 / 2, 1 - (2 - t) ** 2 / 2), abs=1e-6)


def test_a_curve_shows_jumps_as_two_points_of_one_time() -> None:
    t, p = mixture([(0.5, Law.uniform(0, 1)), (0.5, Law.constant(0.5))]).curve(11)
    assert p[0] == 0 and p[-1] == pytest.approx(1.0)
    assert np.sum(t == 0.5) == 2
    assert p[t == 0.5] == pytest.approx([0.25, 0.75])


def test_independent_layers_race() -> None:
    r = rng(3)
    layers = {
        "heartbeat": Law.constant(70.0),
        "idle": Law.uniform(50.0, 110.0),
        "tcp": Law.uniform(60.0, 80.0),
    }
    draws = np.stack([np.full(N, 70.0), r.uniform(50, 110, N), r.uniform(60, 80, N)])
    stack = first_of(layers)
    agrees(stack.law, draws.min(axis=0))
    for n, name in enumerate(layers):
        share_agrees(int(np.sum(draws.argmin(axis=0) == n)), N, stack.wins[name])
    assert sum(stack.wins.values()) == pytest.approx(1.0, abs=1e-9)


def test_of_two_layers_at_the_same_moment_the_first_named_wins() -> None:
    stack = first_of({"a": Law.constant(1.0), "b": Law.constant(1.0), "c": Law.constant(2.0)})
    assert stack.wins == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_layers_that_share_the_phase_are_not_independent() -> None:
    r = rng(4)
    u, v = r.uniform(0, 30, N), r.uniform(0, 20, N)
    layers = {
        "ping": Layer(+1, Law.constant(40.0)),
        "idle": Layer(-1, Law.uniform(50.0, 70.0)),
        "ttl": Layer(0, Law.uniform(45.0, 90.0)),
    }
    draws = np.stack([u + 40, 50 - u + v, r.uniform(45, 90, N)])
    stack = first_of_common_phase(30.0, layers)
    agrees(stack.law, draws.min(axis=0))
    for n, name in enumerate(layers):
        share_agrees(int(np.sum(draws.argmin(axis=0) == n)), N, stack.wins[name])


def test_layers_that_all_follow_the_phase_race_after_it() -> None:
    r = rng(5)
    u, v = r.uniform(0, 30, N), r.uniform(0, 30, N)
    stack = first_of_common_phase(
        30.0, {"ping": Layer(+1, Law.constant(70.0)), "idle": Layer(+1, Law.uniform(60.0, 90.0))}
    )
    draws = u + np.minimum(70, 60 + v)
    agrees(stack.law, draws)
    mean_agrees(draws, stack.law.mean_s)
