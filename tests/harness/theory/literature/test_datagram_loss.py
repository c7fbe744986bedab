"""Datagram-like detectors: k losses in a row, and NFD-S, each against a simulation of its own."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from harness.theory.law import FloatArray
from harness.theory.literature.datagram_loss import (
    GilbertElliott,
    beats_to_suspicion_gilbert,
    beats_to_suspicion_iid,
    chance_of_suspicion_iid,
)
from harness.theory.literature.nfd_s import (
    ChenNetwork,
    NfdS,
    NotConfigurable,
    configure_nfd_s,
    configure_nfd_s_by_moments,
)
from scenarios.distributions import Distribution, Exponential, Lognormal
from tests.harness.theory.montecarlo import mean_agrees, share_agrees

FAST = Distribution(exponential=Exponential(mean=0.02))
DAY_S = 86400.0


def beats(channel: GilbertElliott, k: int, clients: int, r: np.random.Generator) -> FloatArray:
    """Heartbeats sent until k in a row are lost, for clients that start in the good state."""
    bad = np.zeros(clients, dtype=bool)
    run = np.zeros(clients, dtype=int)
    found = np.zeros(clients)
    n = 0
    while (alive := found == 0).any():
        n += 1
        move = r.random(clients)
        bad = np.where(bad, move >= channel.to_good, move < channel.to_bad)
        lost = r.random(clients) < np.where(bad, channel.loss_bad, channel.loss_good)
        run = np.where(lost, run + 1, 0)
        found[alive & (run == k)] = n
    return found


@pytest.mark.parametrize(
    ("channel", "k"),
    [
        (GilbertElliott(0.2, 0.8, 0.2, 0.2), 2),
        (GilbertElliott(0.05, 0.4), 1),
        (GilbertElliott(0.05, 0.4), 3),
        (GilbertElliott(0.1, 0.3, 0.02, 0.6), 3),
        (GilbertElliott(0.9, 0.9, 0.1, 0.7), 2),
    ],
)
def test_gilbert_elliott_against_a_simulated_channel(channel: GilbertElliott, k: int) -> None:
    mean_agrees(beats(channel, k, 20_000, np.random.default_rng(11)), channel.beats_to_suspicion(k))


@pytest.mark.parametrize(("loss", "k"), [(0.3, 2), (0.5, 3), (0.2, 1)])
def test_chance_of_a_run_against_counting(loss: float, k: int) -> None:
    lost = np.random.default_rng(5).random((20_000, 12)) < loss
    hits = sum(any(all(row[i : i + k]) for i in range(13 - k)) for row in lost.tolist())
    share_agrees(hits, len(lost), chance_of_suspicion_iid(loss, k, 12))


def test_a_configuration_by_moments_is_the_paper_s_and_keeps_its_wants_on_a_known_network() -> None:
    wants = {"t_d_s": 30.0, "t_mr_s": 30 * DAY_S, "t_m_s": 60.0}
    # The paper rounds: 9.71 and 20.29.
    found = configure_nfd_s_by_moments(loss=0.01, mean_s=0.02, variance_s2=0.02, **wants)
    assert (found.eta_s, found.delta_s) == pytest.approx((9.7098, 20.2902), abs=5e-5)
    exponential = configure_nfd_s_by_moments(loss=0.01, mean_s=0.02, variance_s2=0.02**2, **wants)
    qos = exponential.qos(ChenNetwork(0.01, FAST))
    assert qos.t_mr_s >= wants["t_mr_s"] and qos.t_m_s <= wants["t_m_s"] and qos.t_d_s <= 30.0
    with pytest.raises(NotConfigurable):
        configure_nfd_s_by_moments(loss=0.01, mean_s=40.0, variance_s2=0.02, **wants)


def test_loss_has_its_reference_values() -> None:
    assert chance_of_suspicion_iid(0.05, 3, 5760) == pytest.approx(0.495432, abs=5e-7)
    assert beats_to_suspicion_iid(0.01, 2) == pytest.approx(10100)
    assert beats_to_suspicion_gilbert(0.01 * 0.5 / 0.99, 0.5, 2) == pytest.approx(398)
    assert GilbertElliott(0.01 * 0.5 / 0.99, 0.5).mean_loss == pytest.approx(0.01)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_general_channel_contains_the_simple_ones(k: int) -> None:
    assert GilbertElliott(0.3, 0.2, 0.1, 0.1).beats_to_suspicion(k) == pytest.approx(
        beats_to_suspicion_iid(0.1, k)
    )
    assert GilbertElliott(0.03, 0.4).beats_to_suspicion(k) == pytest.approx(
        beats_to_suspicion_gilbert(0.03, 0.4, k)
    )


def test_channels_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="probability"):
        GilbertElliott(1.2, 0.5)
    with pytest.raises(ValueError, match="cannot happen"):
        GilbertElliott(0.0, 0.5).beats_to_suspicion(2)
    with pytest.raises(ValueError, match="0 < loss < 1"):
        beats_to_suspicion_iid(0.0, 2)
    with pytest.raises(ValueError, match="0 < a, b < 1"):
        beats_to_suspicion_gilbert(0.1, 1.0, 2)


@pytest.mark.parametrize(
    ("t_d_s", "t_mr_s", "t_m_s"),
    [(1.06, 17.0368, 0.180249), (1.5, 101.010, 0.530101), (2.06, 1703.68, 0.180249)],
)
def test_nfd_s_has_its_reference_values(t_d_s: float, t_mr_s: float, t_m_s: float) -> None:
    qos = NfdS(1.0, t_d_s - 1.0).qos(ChenNetwork(0.01, FAST))
    assert qos.t_d_s == pytest.approx(t_d_s)
    assert qos.t_mr_s == pytest.approx(t_mr_s, rel=5e-6)
    assert qos.t_m_s == pytest.approx(t_m_s, rel=5e-6)
    assert qos.p_a == pytest.approx(1 - t_m_s / t_mr_s, rel=1e-6)


def watch(
    detector: NfdS, network: ChenNetwork, count: int, r: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Run NFD-S on ``count`` heartbeats: starts and lengths of its mistakes, from the rules of the paper."""
    sent = np.arange(1, count + 1) * detector.eta_s
    arrives = sent + network.delay.sample(r, count)
    arrives[r.random(count) < network.loss] = np.inf
    # Trusts in [freshness i, freshness i+1) from the first arrival of any heartbeat i or newer.
    newest = np.minimum.accumulate(arrives[::-1])[::-1]
    fresh = sent + detector.delta_s
    starts, lengths, trusted, began = [], [], True, 0.0
    for i in range(count - 50):
        if trusted and newest[i] > fresh[i]:
            trusted, began = False, fresh[i]
        if not trusted and newest[i] < fresh[i + 1]:
            trusted = True
            starts.append(began)
            lengths.append(max(newest[i], fresh[i]) - began)
    return np.array(starts), np.array(lengths)


@pytest.mark.parametrize(
    ("detector", "network"),
    [
        (NfdS(1.0, 0.06), ChenNetwork(0.01, FAST)),
        (NfdS(1.0, 1.3), ChenNetwork(0.1, Distribution(exponential=Exponential(mean=0.4)))),
        (NfdS(1.0, 0.5), ChenNetwork(0.05, Distribution(lognormal=Lognormal(median=0.2, sigma=1.0)))),
    ],
)
def test_nfd_s_against_a_simulated_detector(detector: NfdS, network: ChenNetwork) -> None:
    starts, lengths = watch(detector, network, 400_000, np.random.default_rng(12))
    qos = detector.qos(network)
    mean_agrees(np.diff(starts), qos.t_mr_s)
    mean_agrees(lengths, qos.t_m_s)


def test_the_configurator_has_its_reference_values() -> None:
    found = configure_nfd_s(ChenNetwork(0.01, FAST), t_d_s=30.0, t_mr_s=30 * DAY_S, t_m_s=60.0)
    assert found.eta_s == pytest.approx(9.976, abs=5e-4)
    assert found.delta_s == pytest.approx(20.024, abs=5e-4)


def test_what_the_configurator_finds_is_enough_and_the_most_that_is() -> None:
    network = ChenNetwork(0.05, Distribution(exponential=Exponential(mean=0.5)))
    wants = (20.0, 7 * DAY_S, 30.0)
    found = configure_nfd_s(network, t_d_s=wants[0], t_mr_s=wants[1], t_m_s=wants[2])
    qos = found.qos(network)
    assert qos.t_d_s == pytest.approx(wants[0])
    assert qos.t_mr_s >= wants[1] * (1 - 1e-6)
    assert qos.t_m_s <= wants[2]
    # The procedure's bound is that of the metrics at δ = T_D − η: no larger η keeps it.
    larger = [
        NfdS(eta, wants[0] - eta).qos(network).t_mr_s
        for eta in np.linspace(found.eta_s * 1.002, 18.0, 40).tolist()
    ]
    assert max(larger) < wants[1]


def test_an_impossible_network_is_said_to_be_one() -> None:
    with pytest.raises(NotConfigurable, match="no heartbeat arrives"):
        configure_nfd_s(ChenNetwork(0.01, Distribution(constant=5.0)), t_d_s=1.0, t_mr_s=DAY_S, t_m_s=60.0)


def test_a_detector_that_never_errs_has_no_mistakes() -> None:
    qos = NfdS(1.0, 1.0).qos(ChenNetwork(0.0, Distribution(constant=0.1)))
    assert (qos.t_mr_s, qos.p_a) == (math.inf, 1.0)


def test_more_patience_means_fewer_mistakes() -> None:
    network = ChenNetwork(0.01, FAST)
    rates = [NfdS(1.0, delta).qos(network).t_mr_s for delta in (0.02, 0.06, 0.5, 1.06, 2.06)]
    assert all(a < b for a, b in pairwise(rates))


def test_the_share_of_mistaken_time_is_what_p_a_says() -> None:
    detector, network = NfdS(1.0, 0.06), ChenNetwork(0.01, FAST)
    r = np.random.default_rng(13)
    # Independent moments, each seen through its own history of the beats that may matter.
    n = 20_000
    x = r.uniform(0, 1, n)
    trusted = np.zeros(n, dtype=bool)
    for j in range(2):  # beats i and i+1 at freshness i + x; i + 1 is sent 1 s later
        arrives = j * 1.0 + network.delay.sample(r, n)
        trusted |= (r.random(n) >= network.loss) & (arrives <= detector.delta_s + x)
    share_agrees(int(trusted.sum()), n, detector.qos(network).p_a)
