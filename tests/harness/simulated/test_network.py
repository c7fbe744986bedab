from __future__ import annotations

import numpy as np
import pytest

from harness.simulated.network import RoundTrips, give_up_s, retransmission_s
from harness.theory.tcp import LINUX_RETRIES2, LINUX_RTO_MAX_S, tcp_give_up_s
from scenarios.distributions import Distribution, Uniform
from scenarios.network import Network

TEXTBOOK = (0.2, 0.6, 1.4, 3.0, 6.2, 12.6, 25.4, 51.0, 102.2, 204.6, 324.6, 444.6, 564.6, 684.6, 804.6)


@pytest.mark.parametrize(
    ("healed_s", "again_s"),
    [
        (0.0, 0.2),  # an outage that is over at once still costs the first retransmission
        (0.2, 0.2),  # at the very moment of a retransmission it gets through
        (0.21, 0.6),
        (1.5, 3.0),
        (804.6, 804.6),
        (804.7, None),  # after the last one there is none
    ],
)
def test_what_a_cut_kept_comes_with_the_first_retransmission_after_it(
    healed_s: float, again_s: float | None
) -> None:
    assert retransmission_s(TEXTBOOK, 0.0, healed_s) == again_s


def test_the_ladder_starts_with_the_first_send() -> None:
    assert retransmission_s(TEXTBOOK, 100.0, 101.5) == 103.0


@pytest.mark.parametrize(("retries", "seconds"), [(15, 924.6), (5, 12.6), (1, 0.6)])
def test_tcp_gives_up_one_back_off_after_its_last_retransmission(retries: int, seconds: float) -> None:
    assert give_up_s(TEXTBOOK[:retries]) == pytest.approx(seconds)


def test_the_default_ladder_ends_120_s_after_its_last_step() -> None:
    ladder = Network().rto_ladder
    assert give_up_s(ladder) == pytest.approx(ladder[-1] + 120.0)


def test_the_default_ladder_is_the_kernels_fifteen_retransmissions_after_a_tail_loss_probe() -> None:
    """Measured steps to 13.36 s; from there on the waits double up to 120 s. At least 924.6 s in all."""
    ladder = Network().rto_ladder
    assert len(ladder) == 1 + LINUX_RETRIES2
    waits = np.diff(ladder)
    assert (waits <= LINUX_RTO_MAX_S + 1e-9).all()
    # Measured steps are off their doubling by up to 3.9 %, the computed ones not at all.
    expected = np.minimum(2 * waits[:-1], LINUX_RTO_MAX_S)
    assert waits[1:] == pytest.approx(expected, rel=0.04)
    assert waits[8:] == pytest.approx(expected[7:])
    assert give_up_s(ladder) == pytest.approx(933.6) and give_up_s(ladder) >= tcp_give_up_s()


def test_round_trips_follow_their_law_across_blocks() -> None:
    law = Distribution(uniform=Uniform(low=0.02, high=0.08))
    trips = RoundTrips(law, np.random.default_rng(1))
    drawn = [trips.next_s() for _ in range(10_000)]
    assert drawn == law.sample(np.random.default_rng(1), 4096).tolist() + drawn[4096:]
    assert all(0.02 <= seconds <= 0.08 for seconds in drawn)
    # 5 standard errors of a uniform law's mean
    assert np.mean(drawn) == pytest.approx(0.05, abs=5 * 0.06 / np.sqrt(12 * len(drawn)))
