"""The probing heartbeat: how its interval moves, and that it finds what a NAT allows."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from reference_server.events import Cause
from reference_server.liveness.adaptive_interval import ProbedInterval, Probing, ProbingDetector
from reference_server.liveness.detector import Action, Verdict
from reference_server.liveness.heartbeat_policy import LivenessPolicy

POLICY = LivenessPolicy(heartbeat_timeout=10.0, max_failures=3)


def live(learnt: ProbedInterval, nat_s: float, until: int = 1000) -> list[float]:
    """Connections one after the other behind a NAT; the interval at each ping."""
    intervals: list[float] = []
    now_s = 0.0
    detector = ProbingDetector(POLICY, learnt, now_s)
    packet_s = now_s
    while len(intervals) < until:
        now_s = detector.due_s
        match detector.on_time(now_s):
            case Action.PING:
                intervals.append(now_s - packet_s)
                if now_s - packet_s < nat_s:
                    packet_s = now_s
                    detector.on_inbound(now_s + 0.05)
            case Action.SUSPECT:
                detector.on_end(Cause.HEARTBEAT)
                detector, packet_s = ProbingDetector(POLICY, learnt, now_s), now_s
            case _:
                pass
    return intervals


def test_it_lengthens_after_three_answers_up_to_the_margin_below_the_maximum() -> None:
    learnt = ProbedInterval(Probing())
    intervals = live(learnt, nat_s=1e9, until=24)
    wanted = [270.0] * 3 + [330.0] * 3 + [390.0] * 3 + [450.0] * 3 + [510.0] * 3 + [570.0] * 9
    assert intervals == pytest.approx(wanted)
    assert learnt.settled


def test_behind_a_nat_it_settles_below_the_nats_timeout_after_three_lost_connections() -> None:
    learnt = ProbedInterval(Probing())
    intervals = live(learnt, nat_s=400.0, until=40)
    assert learnt.settled and learnt.interval_s == pytest.approx(450.0 - 60.0 - 20.0)
    lost = [interval_s for interval_s in intervals if interval_s >= 400.0]
    assert lost == pytest.approx([450.0] * 3)
    assert intervals[-10:] == pytest.approx([370.0] * 10)


def test_a_nat_below_the_shortest_interval_cannot_be_helped() -> None:
    learnt = ProbedInterval(Probing())
    live(learnt, nat_s=200.0, until=60)
    assert learnt.interval_s == 270.0 and not learnt.settled


def test_a_settled_interval_that_fails_three_times_starts_anew() -> None:
    learnt = ProbedInterval(Probing())
    live(learnt, nat_s=400.0, until=40)
    for _ in range(2):
        learnt.on_loss()
    learnt.on_answer()  # not three in a row
    for _ in range(2):
        learnt.on_loss()
    assert learnt.settled
    learnt.on_loss()
    assert learnt.interval_s == 270.0 and not learnt.settled


def test_silence_is_suspected_after_repeating_the_ping_at_once() -> None:
    detector = ProbingDetector(POLICY, ProbedInterval(Probing()), 100.0)
    assert detector.due_s == 370.0
    seen = []
    while detector.verdict is Verdict.ALIVE:
        due_s = detector.due_s
        seen.append((due_s, detector.on_time(due_s)))
    assert seen == [
        (370.0, Action.PING),
        (380.0, Action.MISSED_AND_PING),
        (390.0, Action.MISSED_AND_PING),
        (400.0, Action.SUSPECT),
    ]


def test_a_loss_without_a_ping_out_says_nothing_about_the_interval() -> None:
    learnt = ProbedInterval(Probing())
    live(learnt, nat_s=1e9, until=4)
    assert learnt.interval_s == 330.0
    for _ in range(5):
        ProbingDetector(POLICY, learnt, 0.0).on_end(Cause.TCP_RESET)
    assert learnt.interval_s == 330.0


def test_other_frames_than_answers_do_not_count_as_answers() -> None:
    learnt = ProbedInterval(Probing())
    detector = ProbingDetector(POLICY, learnt, 0.0)
    for now_s in range(1, 20):
        detector.on_inbound(float(now_s))
    assert learnt.interval_s == 270.0


def test_there_must_be_room_between_minimum_and_maximum() -> None:
    with pytest.raises(ValidationError, match="above max_interval"):
        Probing(min_interval=100.0, max_interval=110.0)
