"""From what was heard to a heartbeat, from revivals to a contradiction: pure, against servers of a known law."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from harness.studies.probe.heard import Ended, Heard, contradiction, heartbeat_of, profile_of, rounded_s

RNG = np.random.default_rng(7)


def server_that_pings(every_s: float, unanswered_s: list[float], lag_s: float | None = None) -> Heard:
    """It ends who answers nothing so long after the first ping that had no answer."""
    ends = [
        Ended(every_s + delay, delay, every_s + delay, "close_frame", 1011, lag_s) for delay in unanswered_s
    ]
    return Heard(
        kind="ping",
        interval_s=[every_s * 1.001, every_s * 0.999, every_s],
        first_s=[every_s, every_s * 1.001],
        clients=Counter(healthy=3, silent=len(ends)),
        ended={"silent": ends},
    )


def server_that_wants_beats(unheard_s: list[float], beat_s: float) -> Heard:
    """It ends who sends nothing for so long."""
    ends = [Ended(9.0, None, unheard, "close_frame", 4000, None) for unheard in unheard_s]
    return Heard(
        beat_s=beat_s,
        clients=Counter(healthy=3, no_beats=3, beats_alone=2, stopped=len(ends)),
        ended={"no_beats": ends[:3], "stopped": ends},
    )


@pytest.mark.parametrize(
    ("every_s", "delay_s", "expected"),
    [
        (25, 20.01, {"model": "ping_deadline", "interval": 25, "timeout": 20, "misses": 1}),
        (30, 30.02, {"model": "next_tick", "interval": 30, "misses": 1}),
        (3, 6.01, {"model": "next_tick", "interval": 3, "misses": 2}),
        (30, 70.02, {"model": "ping_deadline", "interval": 30, "timeout": 10, "misses": 3}),
        (104, 16.02, {"model": "ping_deadline", "interval": 104, "timeout": 16, "misses": 1}),
        (0.6, 0.402, {"model": "ping_deadline", "interval": 0.6, "timeout": 0.4, "misses": 1}),
    ],
)
def test_a_deadline_after_an_unanswered_ping_is_told(
    every_s: float, delay_s: float, expected: dict[str, object]
) -> None:
    found, why = heartbeat_of(server_that_pings(every_s, [delay_s, delay_s * 1.001, delay_s * 0.999]))
    assert not why
    assert {key: getattr(found, key) for key in expected} == expected
    assert (found.first, found.status) == ("interval", "measured")


def test_a_deadline_that_varies_is_no_model() -> None:
    found, why = heartbeat_of(server_that_pings(20, [22.0, 26.0, 31.0]))
    assert found.model == "unknown"
    assert "22.00 to 31.00 s" in why


def test_the_wait_for_a_close_frame_is_told() -> None:
    assert heartbeat_of(server_that_pings(25, [20.0] * 3, lag_s=30.02))[0].socket_lag == 30
    assert heartbeat_of(server_that_pings(25, [20.0] * 3, lag_s=0.001))[0].socket_lag == 0


def test_a_limit_without_a_sweep_is_the_shortest_silence() -> None:
    found, _ = heartbeat_of(server_that_wants_beats([60.0, 60.01, 60.02], 20.0))
    assert (found.model, found.interval, found.timeout, found.look_every) == ("idle_limit", 20, 60, None)


def test_a_limit_that_is_looked_at_now_and_then_is_fitted_to_delays_and_revivals() -> None:
    limit_s, look_s, beat_s = 10.0, 6.0, 4.0
    delays = (limit_s + look_s * RNG.random(8)).tolist()
    moments = 4 + 14 * RNG.random(200)
    died_s = limit_s - beat_s * RNG.random(200) + look_s * RNG.random(200)
    heard = server_that_wants_beats(delays, beat_s)
    found, _ = heartbeat_of(heard, moments.tolist(), (died_s <= moments).tolist())
    assert found.timeout == pytest.approx(limit_s, abs=1.5)
    assert found.look_every == pytest.approx(look_s, abs=2)


def test_a_server_that_ends_nobody_has_no_heartbeat_that_counts() -> None:
    quiet = Heard(clients=Counter(healthy=3, silent=8), ended={})
    assert heartbeat_of(quiet)[0].model == "never"
    pings = Heard(kind="ping", interval_s=[20.0, 20.0], clients=Counter(healthy=3, silent=8), ended={})
    assert (heartbeat_of(pings)[0].model, heartbeat_of(pings)[0].interval) == ("tcp_only", 20)


@pytest.mark.parametrize(("measured", "round_"), [(19.98, 20), (0.602, 0.6), (1.2034, 1.2), (0.253, 0.25)])
def test_a_measured_time_is_the_roundest_that_it_may_be(measured: float, round_: float) -> None:
    assert rounded_s(measured) == round_


def test_revivals_of_the_law_do_not_contradict_it_and_those_of_another_do() -> None:
    heard = server_that_pings(25, [20.0] * 3)
    profile = profile_of(heartbeat_of(heard)[0], heard, "x")
    moments = 15 + 35 * RNG.random(200)
    right = 20 + 25 * RNG.random(200) <= moments
    assert contradiction(profile, moments.tolist(), right.tolist(), 0.1) == ""
    slower = 30 + 25 * RNG.random(200) <= moments
    assert "still held" in contradiction(profile, moments.tolist(), slower.tolist(), 0.1)
    sooner = 10 + 25 * RNG.random(200) <= moments
    assert "its law begins at 20 s" in contradiction(profile, moments.tolist(), sooner.tolist(), 0.1)
    within = 24 + 21 * RNG.random(200) ** 0.3 <= moments  # the same range, another shape
    assert "where its law says" in contradiction(profile, moments.tolist(), within.tolist(), 0.1)
