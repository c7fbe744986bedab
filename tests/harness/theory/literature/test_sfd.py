"""SFD-L and SFD-S: reference values of the paper's setting, and a detector that is simulated beat by beat."""

from __future__ import annotations

import numpy as np
import pytest

from harness.theory.literature.nfd_s import ChenNetwork
from harness.theory.literature.sfd import Sfd
from scenarios.distributions import Distribution, Exponential, Uniform

FAST = ChenNetwork(0.01, Distribution(exponential=Exponential(mean=0.02)))


@pytest.mark.parametrize(
    ("t_d_s", "cutoff_s", "expected_s"),
    [(1.25, 0.16, 65.166), (1.25, 0.08, 36.575), (3.5, 0.16, 916102), (3.5, 0.08, 46213.5)],
)
def test_reference_values(t_d_s: float, cutoff_s: float, expected_s: float) -> None:
    sfd = Sfd.within(t_d_s, eta_s=1.0, cutoff_s=cutoff_s)
    assert sfd.mistake_recurrence_s(FAST) == pytest.approx(expected_s, rel=1e-5)


@pytest.mark.parametrize(
    ("network", "timeout_s"),
    [
        (ChenNetwork(0.1, Distribution(exponential=Exponential(mean=0.1))), 1.05),
        (ChenNetwork(0.2, Distribution(uniform=Uniform(low=0.0, high=0.5))), 2.1),
        (ChenNetwork(0.0, Distribution(uniform=Uniform(low=0.0, high=0.2))), 0.95),
    ],
)
def test_against_a_detector_simulated_beat_by_beat(network: ChenNetwork, timeout_s: float) -> None:
    sfd, n, r = Sfd(1.0, 0.3, timeout_s), 400_000, np.random.default_rng(3)
    delay_s = np.asarray(network.delay.quantile(r.random(n)))
    taken = (r.random(n) >= network.loss) & (delay_s <= sfd.cutoff_s)
    arrived_s = (np.arange(n) + delay_s)[taken]
    mistakes = int((np.diff(arrived_s) > timeout_s).sum())
    expected = n / sfd.mistake_recurrence_s(network)
    assert abs(mistakes - expected) < 4.5 * np.sqrt(expected)


def test_a_network_on_time_has_no_mistakes_and_a_cutoff_fits_its_interval() -> None:
    on_time = ChenNetwork(0.0, Distribution(uniform=Uniform(low=0.0, high=0.1)))
    assert Sfd(1.0, 0.2, 1.2).mistake_recurrence_s(on_time) == float("inf")
    with pytest.raises(ValueError, match="0 < cutoff < eta"):
        Sfd(1.0, 1.0, 2.0)
