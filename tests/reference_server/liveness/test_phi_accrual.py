"""φ-accrual detectors: against the closed forms, what they learn, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.theory.literature.phi_accrual_laws import AkkaPhi, CassandraPhi
from reference_server.liveness.detector import Action, Verdict
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.phi_accrual import (
    AkkaArrivals,
    CassandraArrivals,
    PhiAkka,
    PhiCassandra,
    PhiDetector,
)

SECOND = LivenessPolicy(heartbeat_interval=1.0, heartbeat_timeout=1.0)


def akka(begun_s: float = 0.0, **changes: float) -> PhiDetector:
    return PhiDetector(SECOND, AkkaArrivals(PhiAkka(**changes), 1.0), begun_s, begun_s + 1.0)


def beats(detector: PhiDetector, moments_s: list[float]) -> float:
    """Answer at these moments; return when the detector suspects by itself."""
    for moment_s in moments_s:
        while detector.due_s < moment_s:
            assert detector.on_time(detector.due_s) is Action.PING
        detector.on_inbound(moment_s)
    while True:
        due_s = detector.due_s
        if detector.on_time(due_s) is Action.SUSPECT:
            return due_s


def test_steady_beats_at_akkas_defaults_are_suspected_after_the_reference_silence() -> None:
    """φ = 8 at 4.5226 s of silence with mean 1 s, pause 3 s and σ at its floor of 0.1 s, by Akka's own tail."""
    moments = [float(n) for n in range(1, 3001)]  # the two samples of the start are long forgotten
    assert beats(akka(), moments) - 3000.0 == pytest.approx(4.5226, abs=5e-5)


def test_steady_beats_at_cassandras_defaults_are_suspected_after_the_reference_silence() -> None:
    detector = PhiDetector(SECOND, CassandraArrivals(PhiCassandra(), 1.0), 0.0, 1.0)
    moments = [float(n) for n in range(1, 3001)]
    assert beats(detector, moments) - 3000.0 == pytest.approx(18.4207, abs=5e-5)


@given(st.floats(0.1, 60.0), st.floats(0.001, 20.0), st.floats(0.5, 200.0), st.floats(0.0, 10.0))
def test_the_silence_is_where_theorys_own_phi_reaches_the_threshold(
    mean_s: float, sigma_s: float, threshold: float, pause_s: float
) -> None:
    """Closed root here, bisection of φ there."""
    parameters = PhiAkka(threshold=threshold, acceptable_pause=pause_s, samples=2)
    arrivals = AkkaArrivals(parameters, 4 * (mean_s + sigma_s))  # nothing is too late to be learnt
    arrivals.add(mean_s + sigma_s)
    arrivals.add(mean_s - sigma_s)
    theory = AkkaPhi(mean_s, sigma_s, threshold, pause_s)
    # σ is a difference of squares: some digits are lost in it.
    assert arrivals.patience_s == pytest.approx(theory.silence_s, rel=1e-5)


def test_cassandras_mean_is_that_of_its_window() -> None:
    arrivals = CassandraArrivals(PhiCassandra(samples=3), 1.0)
    for interval_s in (0.5, 0.7, 0.9, 1.1):
        arrivals.add(interval_s)
    assert arrivals.patience_s == pytest.approx(CassandraPhi(mean_s=0.9).silence_s)


def test_cassandra_leaves_out_what_is_longer_than_its_first_guess() -> None:
    arrivals = CassandraArrivals(PhiCassandra(), 1.0)
    before_s = arrivals.patience_s
    arrivals.add(2.001)
    assert arrivals.patience_s == before_s
    arrivals.add(1.999)
    assert arrivals.patience_s != before_s


def test_akka_does_not_learn_from_a_beat_that_came_after_phi_had_passed() -> None:
    late, in_time = AkkaArrivals(PhiAkka(), 1.0), AkkaArrivals(PhiAkka(), 1.0)
    patience_s = late.patience_s
    late.add(patience_s + 0.001)
    in_time.add(patience_s - 0.001)
    assert late.patience_s == patience_s < in_time.patience_s


def test_running_sums_stay_true_over_a_long_life() -> None:
    rng = np.random.default_rng(3)
    intervals = rng.exponential(1.0, 50_000)
    arrivals = AkkaArrivals(PhiAkka(samples=100, threshold=300.0), 1.0)
    learnt = [0.75, 1.25]
    for interval_s in intervals.tolist():
        if interval_s <= arrivals.patience_s:
            learnt.append(interval_s)
        arrivals.add(interval_s)
    last = np.array(learnt[-100:])
    theory = AkkaPhi(float(last.mean()), float(last.std()), 300.0)
    assert arrivals.patience_s == pytest.approx(theory.silence_s, rel=1e-9)


def test_jitter_makes_it_patient_and_that_is_all_the_difference() -> None:
    steady = beats(akka(), [float(n) for n in range(1, 501)]) - 500.0
    rng = np.random.default_rng(4)
    jittery = (np.arange(1, 501) + rng.normal(0.0, 0.3, 500)).tolist()
    assert beats(akka(), jittery) - jittery[-1] > steady + 1.0


def test_it_pings_every_interval_whatever_came_back() -> None:
    detector = akka()
    pings = []
    while detector.verdict is Verdict.ALIVE:
        due_s = detector.due_s
        if detector.on_time(due_s) is Action.PING:
            pings.append(due_s)
    assert pings == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert detector.due_s == float("inf") and detector.failures == 1


def test_before_it_is_due_there_is_nothing_to_do_and_a_suspicion_is_final() -> None:
    detector = akka()
    assert detector.on_time(0.5) is Action.NOTHING
    assert detector.on_time(100.0) is Action.SUSPECT
    detector.on_inbound(101.0)
    assert detector.verdict is Verdict.SUSPECTED and detector.on_time(102.0) is Action.NOTHING


def test_without_a_heartbeat_there_is_no_detector() -> None:
    with pytest.raises(ValueError, match="no heartbeat"):
        PhiDetector(LivenessPolicy(heartbeat_interval=None), AkkaArrivals(PhiAkka(), 1.0), 0.0, 1.0)
