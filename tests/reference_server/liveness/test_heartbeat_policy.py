"""The ping detector: a table of histories, and the three guarantees as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reference_server.liveness.detector import Action, Detector, Verdict
from reference_server.liveness.heartbeat_policy import LivenessPolicy, OverlappingPingDetector, PingDetector


def policy(
    interval: float = 30, timeout: float = 10, k: int = 3, retry: float | None = None
) -> LivenessPolicy:
    return LivenessPolicy(
        heartbeat_interval=float(interval),
        heartbeat_timeout=float(timeout),
        max_failures=k,
        retry_interval=None if retry is None else float(retry),
    )


def detector_of(rules: LivenessPolicy, first_s: float) -> PingDetector | OverlappingPingDetector:
    overlap = rules.heartbeat_timeout > rules.interval_s
    return (OverlappingPingDetector if overlap else PingDetector)(rules, first_s)


def drive(detector: Detector, inbound_s: list[float], until_s: float = 1e4) -> list[tuple[float, str]]:
    """Run a punctual caller; return what the detector wanted, and when."""
    wanted: list[tuple[float, str]] = []
    arrivals = sorted(inbound_s)
    while True:
        now = min(detector.due_s, arrivals[0] if arrivals else float("inf"))
        if now > until_s:
            return wanted
        if arrivals and arrivals[0] <= now:  # an answer at the very deadline is in time
            detector.on_inbound(arrivals.pop(0))
        else:
            wanted.append((now, detector.on_time(now).value))


HISTORIES = [
    (
        "silence from the start: k deadlines, R apart",
        policy(),
        [],
        200,
        [(0, "ping"), (10, "missed"), (30, "ping"), (40, "missed"), (60, "ping"), (70, "suspect")],
    ),
    ("k = 1 suspects at the first deadline", policy(k=1), [], 200, [(0, "ping"), (10, "suspect")]),
    ("an answer starts the next full interval", policy(), [0.1], 35, [(0, "ping"), (30, "ping")]),
    ("an answer at the very deadline is in time", policy(k=1), [10.0], 35, [(0, "ping"), (30, "ping")]),
    (
        "an answer after the deadline resets the count",
        policy(k=2),
        [15.0],
        65,
        [(0, "ping"), (10, "missed"), (30, "ping"), (40, "missed"), (60, "ping")],
    ),
    (
        "any frame counts, not only the pong",
        policy(k=2),
        [35.0],
        75,
        [(0, "ping"), (10, "missed"), (30, "ping"), (60, "ping"), (70, "missed")],
    ),
    (
        "short probing after a first miss",
        policy(retry=12),
        [],
        200,
        [(0, "ping"), (10, "missed"), (12, "ping"), (22, "missed"), (24, "ping"), (34, "suspect")],
    ),
    (
        "after an answered probe the interval is T again",
        policy(retry=12),
        [13.0],
        43,
        [(0, "ping"), (10, "missed"), (12, "ping"), (42, "ping")],
    ),
    (
        "R = tau: the miss and the next ping fall together",
        policy(retry=10),
        [],
        200,
        [(0, "ping"), (10, "missed_and_ping"), (20, "missed_and_ping"), (30, "suspect")],
    ),
    (
        "tau = T: the same",
        policy(interval=10, timeout=10, k=2),
        [],
        200,
        [(0, "ping"), (10, "missed_and_ping"), (20, "suspect")],
    ),
    (
        "tau > T: pings go on, the first deadline suspects",
        policy(interval=3, timeout=7, k=1),
        [],
        200,
        [(0, "ping"), (3, "ping"), (6, "ping"), (7, "suspect")],
    ),
    (
        "tau > T: each ping has its own deadline, T apart",
        policy(interval=3, timeout=7, k=3),
        [],
        12,
        [(0, "ping"), (3, "ping"), (6, "ping"), (7, "missed"), (9, "ping"), (10, "missed"), (12, "ping")],
    ),
    (
        "tau > T: any frame clears all pings in flight and the count, and the next ping stays where it was",
        policy(interval=3, timeout=7, k=2),
        [7.5],
        17,
        [
            *[(0, "ping"), (3, "ping"), (6, "ping"), (7, "missed")],
            *[(9, "ping"), (12, "ping"), (15, "ping"), (16, "missed")],
        ],
    ),
]


@pytest.mark.parametrize(("history"), HISTORIES, ids=lambda h: h[0])
def test_history(history: tuple[str, LivenessPolicy, list[float], float, list[tuple[float, str]]]) -> None:
    _, rules, inbound, until, expected = history
    assert drive(detector_of(rules, 0.0), inbound, until) == expected


def test_a_suspicion_is_final() -> None:
    detector = PingDetector(policy(k=1), 0.0)
    drive(detector, [], 100)
    detector.on_inbound(101)
    assert detector.verdict is Verdict.SUSPECTED
    assert detector.on_time(1e9) is Action.NOTHING


def test_without_heartbeat_there_is_no_ping_detector() -> None:
    with pytest.raises(ValueError, match="heartbeat_interval is null"):
        PingDetector(LivenessPolicy(heartbeat_interval=None), 0.0)


@st.composite
def policies(draw: st.DrawFn) -> LivenessPolicy:
    timeout = draw(st.floats(0.01, 50))
    if draw(st.booleans()):  # several pings in flight
        return policy(timeout / draw(st.floats(1.01, 5)), timeout, draw(st.integers(1, 6)))
    interval = timeout + draw(st.floats(0, 100))
    retry = draw(st.none() | st.floats(timeout, interval))
    return policy(interval, timeout, draw(st.integers(1, 6)), retry)


SLACK = 1e-6  # sums of floats, in seconds


@given(policies(), st.lists(st.floats(0, 2000), max_size=60), st.floats(0, 1))
def test_never_suspects_before_the_silence_has_lasted(
    rules: LivenessPolicy, inbound: list[float], phase: float
) -> None:
    """Not before (k-1)R + tau after the last sign of life, whatever arrives when."""
    assert rules.heartbeat_interval is not None
    first = phase * rules.heartbeat_interval
    wanted = drive(detector_of(rules, first), inbound, 1e5)
    suspected = [at for at, action in wanted if action == "suspect"]
    assert len(suspected) == 1  # for ever silent in the end, so suspected in the end
    last_life = max([t for t in inbound if t <= suspected[0]], default=None)
    silence = (rules.max_failures - 1) * rules.retry_s + rules.heartbeat_timeout
    if last_life is not None:
        assert suspected[0] >= last_life + silence - SLACK
    assert suspected[0] >= first + silence - SLACK


@given(policies(), st.floats(0, 1), st.floats(0, 20), st.floats(0, 1))
def test_suspects_a_silent_death_in_time(
    rules: LivenessPolicy, phase: float, heartbeats: float, answer_share: float
) -> None:
    """At the latest T + (k-1)R + tau after a client that answered every ping falls silent."""
    assert rules.heartbeat_interval is not None
    detector = detector_of(rules, phase * rules.heartbeat_interval)
    death = heartbeats * rules.heartbeat_interval
    latency = answer_share * rules.heartbeat_timeout
    answers: list[float] = []
    while True:
        now = min(detector.due_s, answers[0] if answers else float("inf"))
        if answers and answers[0] <= now:
            detector.on_inbound(answers.pop(0))
            continue
        match detector.on_time(now):
            case Action.PING | Action.MISSED_AND_PING if now + latency <= death:
                answers.append(now + latency)
            case Action.SUSPECT:
                break
    assert rules.detection_range_s is not None
    lo, hi = rules.detection_range_s
    assert now <= max(death, phase * rules.heartbeat_interval) + hi + SLACK
    assert now >= death + lo - latency - SLACK or now >= lo  # an answer in flight takes a round trip off


@given(policies(), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=30, max_size=30))
def test_never_suspects_a_client_that_answers_in_time(
    rules: LivenessPolicy, phase: float, latencies: list[float]
) -> None:
    assert rules.heartbeat_interval is not None
    detector = detector_of(rules, phase * rules.heartbeat_interval)
    answers: list[float] = []
    for share in latencies:
        while answers and answers[0] <= detector.due_s:
            detector.on_inbound(answers.pop(0))
        now = detector.due_s
        assert detector.on_time(now) is Action.PING
        answers.append(now + share * rules.heartbeat_timeout)  # in order, as TCP has it
        answers = [max(answers[: n + 1]) for n in range(len(answers))]
        assert detector.failures == 0
    assert detector.verdict is Verdict.ALIVE


@given(policies(), st.floats(0, 5), st.lists(st.floats(0, 3), min_size=40, max_size=40))
def test_a_late_caller_never_makes_it_rash(
    rules: LivenessPolicy, first: float, lateness: list[float]
) -> None:
    """A stalled loop calls late; every ping still gets its whole deadline."""
    detector = detector_of(rules, first)
    pinged: list[float] = []
    for late in lateness:
        if detector.verdict is Verdict.SUSPECTED:
            break
        now = detector.due_s + late
        action = detector.on_time(now)
        if action in (Action.MISSED, Action.MISSED_AND_PING, Action.SUSPECT):
            assert now >= pinged.pop(0) + rules.heartbeat_timeout - SLACK
        if action in (Action.PING, Action.MISSED_AND_PING):
            pinged.append(now)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heartbeat_timeout": 40.0, "retry_interval": 40.0}, "above heartbeat_interval"),
        ({"retry_interval": 5.0}, "below heartbeat_timeout"),
        ({"heartbeat_interval": -1.0}, "greater than 0"),
        ({"max_failures": 0}, "greater than or equal to 1"),
        ({"heartbeat_interval": 30}, "not a duration"),
        ({"hartbeat_interval": 30.0}, "not permitted"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LivenessPolicy(**changes)


def test_faster_divides_times_and_keeps_counts() -> None:
    fast = policy(retry=12).faster(10)
    assert (fast.heartbeat_interval, fast.heartbeat_timeout, fast.retry_interval) == (3.0, 1.0, 1.2)
    assert fast.max_failures == 3
    assert fast.max_sessions is None


def test_the_range_of_the_classic_policy() -> None:
    assert policy().detection_range_s == (70.0, 100.0)
