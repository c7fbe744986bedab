"""Heartbeats of many connections, in virtual time: detection bounds, stalls, phases, one beat a peer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reference_server.events import Cause
from reference_server.heartbeat.scheduler import Heartbeat, Heartbeats, Peer
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import DetectorKind, Detectors, Ping
from tests.reference_server.fakes import FakeClock

POLICY = LivenessPolicy(heartbeat_interval=30.0, heartbeat_timeout=10.0, max_failures=3)
SLACK_S = 0.02  # of k+1 looks: a wheel's grain and a loop's millisecond each
ROUND_TRIP_S = 0.05
PING = Ping()


class Client(Peer):
    """Answers each heartbeat a round trip later; what it sends waits in the gateway's socket."""

    def __init__(self, clock: FakeClock, round_trip_s: float) -> None:
        self.clock = clock
        self.round_trip_s = round_trip_s
        self.heartbeat: Heartbeat | None = None
        self.sent_s: list[float] = []
        self.answers_s: list[float] = []
        self.dead_s = float("inf")
        self.missed: list[int] = []
        self.suspected_s: float | None = None

    def send_heartbeat(self, now_s: float) -> None:
        self.sent_s.append(now_s)
        if now_s < self.dead_s:
            self.answers_s.append(now_s + self.round_trip_s)
            self.clock.call_later(self.round_trip_s, lambda: None)  # the answer wakes the loop


class World:
    def __init__(
        self,
        clients: int,
        policy: LivenessPolicy = POLICY,
        seed: int = 1,
        round_trip_s: float = ROUND_TRIP_S,
        kind: DetectorKind = PING,
    ) -> None:
        self.clock = FakeClock()
        self.heartbeats = Heartbeats(self.clock, on_missed=self._missed, on_suspected=self._suspected)
        detectors = Detectors(kind, policy, np.random.default_rng(seed))
        self.clients = [Client(self.clock, round_trip_s) for _ in range(clients)]
        for client in self.clients:
            detector = detectors.new(client, self.clock.time_s)
            assert detector is not None
            client.heartbeat = self.heartbeats.start(client, detector)
        self.clock.read_sockets = self._read_sockets

    def _read_sockets(self) -> None:
        now_s = self.clock.time_s
        for client in self.clients:
            if client.answers_s and client.answers_s[0] <= now_s:
                client.answers_s = [at_s for at_s in client.answers_s if at_s > now_s]
                assert client.heartbeat is not None
                client.heartbeat.on_inbound(now_s)

    def _missed(self, peer: Any, failures: int) -> None:
        peer.missed.append(failures)

    def _suspected(self, peer: Any) -> None:
        peer.suspected_s = self.clock.time_s

    def run(self, seconds: float) -> None:
        self.clock.run_until(self.clock.time_s + seconds)


def test_healthy_clients_are_pinged_once_an_interval_and_never_suspected() -> None:
    world = World(50)
    world.run(600)
    for client in world.clients:
        periods = np.diff(client.sent_s)
        assert len(client.sent_s) in (19, 20)
        assert np.all(np.abs(periods - 30) <= SLACK_S)
        assert client.missed == []
        assert client.suspected_s is None


@pytest.mark.parametrize(
    ("interval", "timeout", "k", "lo", "hi"),
    [(3.0, 7.0, 1, 7, 10), (25.0, 60.0, 1, 60, 85), (3.0, 7.0, 3, 13, 16)],
)
def test_a_timeout_above_the_interval_is_waited_for_with_several_pings_in_flight(
    interval: float, timeout: float, k: int, lo: float, hi: float
) -> None:
    rules = {"heartbeat_interval": interval, "heartbeat_timeout": timeout, "max_failures": k}
    # The answer to a ping comes after the next ping: several are in flight for healthy ones, too.
    world = World(60, LivenessPolicy(**rules), round_trip_s=1.5 * interval)
    world.run(200)
    assert all(c.suspected_s is None and not c.missed for c in world.clients)
    rng = np.random.default_rng(2)
    for client in world.clients:
        periods = np.diff(client.sent_s)
        assert np.all(np.abs(periods - interval) <= SLACK_S)
        client.round_trip_s = ROUND_TRIP_S
    world.run(3 * interval)
    for client in world.clients:
        client.dead_s = world.clock.time_s + rng.uniform(0, 2 * interval)
    world.run(250)
    for client in world.clients:
        assert client.suspected_s is not None
        assert client.missed == list(range(1, k + 1))
        assert lo - ROUND_TRIP_S <= client.suspected_s - client.dead_s <= hi + SLACK_S
    latencies = [c.suspected_s - c.dead_s for c in world.clients if c.suspected_s is not None]
    assert max(latencies) - min(latencies) > 0.8 * interval, "over the whole phase"


def test_the_first_ping_is_due_after_an_interval_or_at_a_random_phase_of_it() -> None:
    at_once, whole = World(40), World(40, POLICY.model_copy(update={"first_ping": "interval"}))
    for world in (at_once, whole):
        world.run(35)
    began_s = 1000.0
    assert all(c.sent_s[0] - began_s == pytest.approx(30.0, abs=SLACK_S) for c in whole.clients)
    firsts = [c.sent_s[0] - began_s for c in at_once.clients]
    assert min(firsts) < 5 and stats.kstest(firsts, stats.uniform(0, 30).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("retry", "lo", "hi"),
    [(None, 70, 100), (10.0, 30, 60), (15.0, 40, 70), (45.0, 100, 130)],
    ids=["R = T", "R = τ: retry at the deadline", "R < T", "R > T"],
)
def test_silent_death_is_detected_within_the_closed_form(retry: float | None, lo: float, hi: float) -> None:
    world = World(60, POLICY.model_copy(update={"retry_interval": retry}))
    world.run(100)
    rng = np.random.default_rng(2)
    for client in world.clients:
        client.dead_s = world.clock.time_s + rng.uniform(0, 60)
    world.run(250)
    for client in world.clients:
        assert client.suspected_s is not None
        assert client.missed == [1, 2, 3]
        # A ping that was answered just before the death still counts: one round trip off the lower end.
        assert lo - ROUND_TRIP_S <= client.suspected_s - client.dead_s <= hi + SLACK_S


def test_an_answer_after_misses_brings_the_next_ping_forward_when_retries_are_slow() -> None:
    policy = POLICY.model_copy(update={"retry_interval": 100.0})
    world = World(1, policy)
    (client,) = world.clients
    client.dead_s = 0.0
    world.run(45)
    assert client.missed == [1]
    client.dead_s = float("inf")
    assert client.heartbeat is not None
    client.heartbeat.on_inbound(world.clock.time_s)
    first_s = client.sent_s[0]
    world.run(60)
    assert client.sent_s[1] == pytest.approx(max(first_s + 30, 1045), abs=SLACK_S)


def stalled_world() -> World:
    """Sixty answers are on their way when the loop stalls for longer than any deadline."""
    world = World(200, round_trip_s=9.0)
    world.run(95)
    assert sum(bool(client.answers_s) for client in world.clients) > 40
    world.clock.stall(45.0)
    return world


def test_a_stall_throws_nobody_out_whose_answer_came_meanwhile() -> None:
    """Answers lie in the socket buffers when the loop comes back; its timers run before it reads them."""
    world = stalled_world()
    world.run(200)
    assert all(client.missed == [] for client in world.clients)
    assert all(client.suspected_s is None for client in world.clients)


def test_judging_before_the_sockets_are_read_would_miss_those_answers() -> None:
    """The control of the test above: it can fail."""
    world = stalled_world()
    world.clock.sockets_first = False
    world.run(200)
    assert sum(len(client.missed) for client in world.clients) > 40


def test_stalls_anywhere_in_the_loop_s_round_throw_no_living_client_out() -> None:
    """The dead keep verdicts pending all the time; one that is pending must not take in a later deadline."""
    world = World(60, POLICY.model_copy(update={"max_failures": 1000}), round_trip_s=5.0)
    rng = np.random.default_rng(3)
    dead, living = world.clients[:30], world.clients[30:]
    for client in dead:
        client.dead_s = 0.0
    stalls = 0

    def read_then_stall_at_times() -> None:
        nonlocal stalls
        world._read_sockets()
        if rng.random() < 0.1:
            stalls += 1
            world.clock.stall(float(rng.uniform(10, 40)))

    world.clock.read_sockets = read_then_stall_at_times
    world.run(20_000)
    assert stalls > 50
    assert sum(len(client.missed) for client in dead) > 1000
    assert all(client.missed == [] for client in living)


def test_a_stall_does_not_save_the_dead() -> None:
    world = World(20)
    world.run(95)
    for client in world.clients:
        client.dead_s = world.clock.time_s
        client.answers_s.clear()
    world.clock.stall(50.0)
    world.run(200)
    assert all(client.suspected_s is not None for client in world.clients)


def test_first_pings_are_spread_uniformly_over_the_interval() -> None:
    world = World(2000)
    world.run(30.1)
    phases = [client.sent_s[0] - 1000 for client in world.clients]
    assert stats.kstest(phases, stats.uniform(0, 30).cdf).pvalue > 0.001


def busiest(world: World, from_s: float, width_s: float = 0.1) -> int:
    """The most beats in any ``width_s`` after a time."""
    sent_s = np.sort([s for client in world.clients for s in client.sent_s if s >= from_s])
    return int((np.searchsorted(sent_s, sent_s + width_s) - np.arange(sent_s.size)).max())


def test_two_thousand_who_join_at_once_do_not_beat_at_once() -> None:
    world = World(2000)
    began_s = world.clock.time_s
    world.run(65)
    expected = 2000 * 0.1 / 30
    # Of 4,000 windows none is as busy as one in a million would be.
    assert busiest(world, began_s) <= stats.poisson.isf(1e-6, expected)


@pytest.mark.parametrize("stall_s", [10.0, 40.0])
def test_those_whose_beats_fell_into_a_stall_do_not_beat_together_ever_after(stall_s: float) -> None:
    """Whatever was due is sent when the stall is over, and then all is as it was before."""
    world = World(600)
    world.run(40)
    before = busiest(world, world.clock.time_s - 40)
    world.clock.stall(stall_s)
    over_s = world.clock.time_s
    world.run(95)
    assert busiest(world, over_s) >= 600 * min(stall_s, 30) / 30 * 0.9, "the stall's own burst"
    assert busiest(world, over_s + 1.0) <= before + 3
    assert all(client.missed == [] for client in world.clients)


def test_phases_are_the_seed_s() -> None:
    first, again, other = (World(10, seed=seed) for seed in (7, 7, 8))
    for world in (first, again, other):
        world.run(31)
    sent = [[client.sent_s for client in world.clients] for world in (first, again, other)]
    assert sent[0] == sent[1] != sent[2]


def test_an_ended_connection_gets_no_heartbeat_no_verdict_and_is_let_go() -> None:
    world = World(2)
    world.run(31)
    gone, stays = world.clients
    assert gone.heartbeat is not None
    gone.heartbeat.end(Cause.LOGOUT)
    gone.dead_s = world.clock.time_s
    sent = len(gone.sent_s)
    world.run(200)
    assert len(gone.sent_s) == sent
    assert gone.suspected_s is None
    assert gone.heartbeat.peer is None
    assert len(stays.sent_s) > sent


def test_lateness_is_measured_from_when_a_ping_was_due() -> None:
    world = World(1)
    world.run(31)
    assert world.heartbeats.lateness.take() is not None
    world.clock.time_s = world.clients[0].sent_s[-1] + 29.9
    world.clock.stall(2.1)
    world.run(1)
    figures = world.heartbeats.lateness.take()
    assert figures is not None
    assert figures["n"] == 1
    assert figures["max_s"] == pytest.approx(2.0, abs=SLACK_S)
    assert world.heartbeats.lateness.take() is None


def test_lateness_is_added_up_for_a_histogram_and_beats_are_counted() -> None:
    world = World(1)
    world.run(31)
    lateness = world.heartbeats.lateness
    assert world.heartbeats.sent == len(world.clients[0].sent_s) > 0
    assert lateness.counts[float("inf")] == 0, "as of the last report"
    lateness.take()
    world.clock.time_s = world.clients[0].sent_s[-1] + 29.9
    world.clock.stall(2.1)
    world.run(1)
    lateness.take()
    counts = lateness.counts
    assert counts[float("inf")] == world.heartbeats.sent
    assert counts[0.005] == counts[1.0] == world.heartbeats.sent - 1
    assert counts[2.5] == world.heartbeats.sent
    assert lateness.sum_s == pytest.approx(2.0, abs=world.heartbeats.sent * SLACK_S)


def test_a_mass_death_is_judged_peer_by_peer() -> None:
    """Everybody falls silent at once, as when a network fails: each verdict keeps its own time."""
    world = World(500)
    world.run(65)
    for client in world.clients:
        client.dead_s = world.clock.time_s
    world.run(130)
    times = sorted(c.suspected_s for c in world.clients if c.suspected_s is not None)
    assert len(times) == 500
    assert times[-1] - times[0] > 25
    assert max(len(list(same)) for _, same in itertools.groupby(times)) < 20
