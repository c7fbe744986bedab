"""The gateway's other layers: what each decides, on virtual time and on real sockets, and who gets the credit."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from harness.real.network.silence import attach
from harness.real.processes.redis import RedisServer
from reference_server.config import GatewayConfig
from reference_server.events import Cause, EventKind
from reference_server.heartbeat.scheduler import Heartbeats, Peer
from reference_server.liveness.detector import Action, Verdict
from reference_server.liveness.heartbeat_policy import LivenessPolicy, TcpKeepalive
from reference_server.liveness.kinds import ClientBeats, Detectors, SendErrors, StateCheck
from reference_server.liveness.socket_checks import SendErrorDetector, StateCheckDetector
from reference_server.record_rules import RecordRules
from reference_server.websocket.listener import listen
from tests.reference_server.fakes import FakeClock
from tests.reference_server.gateways import QUIET, Running, run, running, until
from tests.support import require_silence

POLICY = LivenessPolicy(heartbeat_interval=30.0, heartbeat_timeout=10.0, max_failures=3)
AT_ONCE_S = 0.02


# -- virtual time --------------------------------------------------------------------------------


def test_failed_writes_are_counted_without_a_wait_between_them() -> None:
    detector = SendErrorDetector(POLICY, 5.0)
    assert detector.on_time(4.9) is Action.NOTHING
    assert detector.on_time(5.0) is Action.PING
    assert detector.due_s == 35.0
    detector.on_socket_closed()
    acts = [detector.on_time(35.0) for _ in range(4)]
    assert acts == [Action.MISSED, Action.MISSED, Action.SUSPECT, Action.NOTHING]
    assert detector.verdict is Verdict.SUSPECTED


@pytest.mark.parametrize(("cleans_up", "then"), [(True, Action.SUSPECT), (False, Action.NOTHING)])
def test_a_state_check_ends_with_the_socket(cleans_up: bool, then: Action) -> None:
    detector = StateCheckDetector(POLICY, 0.0, cleans_up=cleans_up)
    assert detector.on_time(0.0) is Action.PING
    detector.on_socket_closed()
    assert detector.on_time(29.9) is Action.NOTHING
    assert detector.on_time(30.0) is then
    assert detector.due_s == float("inf")


class Closing(Peer):
    """A socket that somebody closes at a moment."""

    def __init__(self, closes_s: float) -> None:
        self.closes_s = closes_s
        self.sent: list[float] = []

    def send_heartbeat(self, now_s: float) -> None:
        self.sent.append(now_s)


@pytest.mark.parametrize(
    ("kind", "failures"), [(SendErrors(), [1, 2, 3]), (StateCheck(), [])], ids=["writes", "state"]
)
def test_a_closed_socket_is_found_by_the_next_beat_and_not_before(
    kind: SendErrors | StateCheck, failures: list[int]
) -> None:
    clock = FakeClock(0.0)
    failed: list[int] = []
    dead: list[tuple[Peer, float]] = []
    kept: list[float] = []
    heartbeats = Heartbeats(
        clock,
        on_missed=lambda _, n: failed.append(n),
        on_suspected=lambda peer: dead.append((peer, clock.time_s)),
        on_ping=lambda _: kept.append(clock.time_s),
    )
    detectors = Detectors(kind, POLICY, np.random.default_rng(1))
    peers = [Closing(closes_s) for closes_s in np.linspace(40.0, 100.0, 40)]
    for peer in peers:
        detector = detectors.new(peer, clock.time_s)
        assert detector is not None
        heartbeats.start(peer, detector)
        clock.call_later(peer.closes_s, detector.on_socket_closed)
    clock.run_until(200.0)
    assert len(dead) == len(peers)
    for found, at_s in dead:
        assert isinstance(found, Closing)
        assert found.closes_s <= at_s
        # One beat after the last that was written; a wheel's grain a beat on top.
        assert found.sent[-1] + 30.0 <= at_s <= found.sent[-1] + 30.0 + 0.01
    assert failed == failures * len(peers)
    assert kept == sorted(at_s for peer in peers for at_s in peer.sent)


def test_kernel_probes_are_set_on_the_listening_socket_for_all_that_it_accepts() -> None:
    keepalive = TcpKeepalive(idle=9.2, interval=3.0, count=4)
    with listen("127.0.0.1", 0, tcp_keepalive=keepalive) as sock:
        with socket.create_connection(sock.getsockname()[:2]):
            sock.setblocking(True)
            accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            told = [
                accepted.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
    assert told == [10, 3, 4]  # whole seconds, never fewer than asked for
    assert keepalive.faster(2).patience_s == pytest.approx(keepalive.patience_s / 2)


BAD: dict[str, dict[str, Any]] = {
    "loopback": {"host": "0.0.0.0", "records": {"user_id_handshake": True}},
    "refuse": {"records": {"status_written": "at_login"}},
    "key_prefix": {"key_prefix": "", "records": {"flush_at_start": True}},
}


@pytest.mark.parametrize("named", BAD)
def test_rules_that_would_do_harm_are_refused_by_name(named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        GatewayConfig.model_validate(BAD[named])


# -- real sockets --------------------------------------------------------------------------------

SHORT = LivenessPolicy(
    heartbeat_interval=0.3,
    heartbeat_timeout=0.1,
    max_failures=3,
    resume_window=0.0,
    session_timeout=None,
    sweep_interval=0.2,
    tcp_user_timeout=0.4,
)
ONE_BEAT_S = 0.3


@pytest.fixture
def start(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Any:
    def make(policy: LivenessPolicy, **options: Any) -> Any:
        return running(private_redis.url, key_prefix, tmp_path, policy, **options)

    return make


async def _cut(it: Running) -> tuple[str, float]:
    """Cut a client's way; return its session and the moment."""
    client = await it.join("ann", live=True)
    attach(client.socket.transport.get_extra_info("socket"))
    return client.session_id, it.now_s()


async def _gone(it: Running) -> tuple[str, float]:
    """Have a client's process die; return its session and the moment."""
    client = await it.join("ann", live=True)
    client.socket.transport.abort()
    return client.session_id, it.now_s()


# kind, close detection, what happens, cause, [earliest, latest) after it
LAYERS: dict[str, tuple[Any, str, Callable[[Running], Any], Cause, float, float]] = {
    # A write succeeds on a dead peer: it is the kernel that gives up, 0.4 s after its first retransmission
    # (0.2 to 0.4 s, it fires up to 0.2 s late), and close detection that hears of it.
    "sends into a cut": (SendErrors(), "all", _cut, Cause.TCP_TIMEOUT, 0.4, ONE_BEAT_S + 1.0),
    "sends into a cut, unheard": (SendErrors(), "none", _cut, Cause.SEND_ERROR, 0.4, 2 * ONE_BEAT_S + 1.0),
    "FIN, unheard: the next write": (SendErrors(), "frames", _gone, Cause.SEND_ERROR, 0.0, ONE_BEAT_S),
    "FIN, unheard: the next look": (StateCheck(), "frames", _gone, Cause.STATE_CHECK, 0.0, ONE_BEAT_S),
}


@pytest.mark.real
@pytest.mark.parametrize("name", LAYERS)
def test_a_dead_socket_is_found_by_its_layer_and_by_no_other(start: Any, name: str) -> None:
    kind, detection, happens, cause, lo_s, hi_s = LAYERS[name]
    if happens is _cut:
        require_silence()
    policy = SHORT.model_copy(update={"close_detection": detection, "sweep_interval": 60.0})

    async def scenario() -> None:
        async with start(policy, detector=kind) as it:
            session_id, since_s = await happens(it)
            decided = await it.verdict(session_id)
            assert decided.cause == cause
            slack_s = AT_ONCE_S + 3 * it.lag_s()
            assert lo_s - slack_s <= decided.time_s - since_s <= hi_s + slack_s
            missed = it.events(EventKind.HEARTBEAT_MISSED, session_id)
            expected = [1, 2, 3] if cause is Cause.SEND_ERROR else []
            assert [event.detail["failures"] for event in missed] == expected
            if missed:
                assert missed[-1].time_s - missed[0].time_s <= slack_s, "no sleep between them"
            assert not it.gateway.live and not it.gateway.detection.lost
            await until(lambda: it.records(session_id, "ann") == (None, None, False), "cleared", 1.0)

    run(scenario())


@pytest.mark.real
def test_the_health_sweep_finds_what_the_keepalive_has_not_looked_at_yet(start: Any) -> None:
    policy = SHORT.model_copy(update={"close_detection": "frames", "heartbeat_interval": 60.0})

    async def scenario() -> None:
        async with start(policy, detector=StateCheck()) as it:
            session_id, since_s = await _gone(it)
            decided = await it.verdict(session_id)
            assert decided.cause == Cause.SWEEP
            late_s = AT_ONCE_S + 2 * it.lag_s()
            assert decided.time_s - since_s <= policy.sweep_interval + late_s

    run(scenario())


@pytest.mark.real
def test_a_keepalive_that_cleans_nothing_locks_the_user_out_until_a_flush(
    start: Any, key_prefix: str
) -> None:
    policy = SHORT.model_copy(update={"close_detection": "frames", "heartbeat_interval": 0.1})
    rules = RecordRules(expire=False, status_written="at_login", refreshed="never")
    options = {"detector": StateCheck(cleans_up=False), "second_login": "refuse", "records": rules}

    async def ghost() -> None:
        async with start(policy, **options) as it:
            session_id, _ = await _gone(it)
            await until(lambda: it.gateway.detection.lost, "the socket is gone")
            await asyncio.sleep(0.3)  # three looks, and one sweep
            assert not it.events(EventKind.SUSPECTED, session_id)
            session, status, _ = it.records(session_id, "ann")
            assert session is not None and status is not None
            assert it.store.pttl(f"{key_prefix}session:{session_id}") == -1
            assert it.store.pttl(f"{key_prefix}status:ann") == -1
            assert (await it.http("POST", "/user/login", {"user_id": "ann"}))[0] == 409
            # A login is enough, though its connection never comes.
            await it.login("bob")
            assert (await it.http("POST", "/user/login", {"user_id": "bob"}))[0] == 409
            it.gateway.detection.lost.clear()  # a process that is killed clears nothing

    async def again() -> None:
        flushing = options | {"records": rules.model_copy(update={"flush_at_start": True})}
        async with start(policy, **flushing) as it:
            await it.login("ann")
            await it.login("bob")

    run(ghost())
    run(again())


@pytest.mark.real
def test_a_client_that_beats_lives_and_one_that_stops_is_idle(start: Any) -> None:
    beat_s, limit_s, sweep_s = 0.15, 0.5, 0.1
    policy = QUIET.model_copy(
        update={"heartbeat_interval": beat_s, "session_timeout": limit_s, "sweep_interval": sweep_s}
    )

    async def scenario() -> None:
        async with start(policy, detector=ClientBeats()) as it:
            client = await it.join("ann")
            for _ in range(8):  # well beyond the limit
                await client.send(type="heartbeat")
                assert await client.receive() == {"type": "pong"}
                await asyncio.sleep(beat_s)
            await client.send(type="heartbeat")
            await client.receive()
            last_s = it.now_s()
            assert it.gateway.live
            decided = await it.verdict(client.session_id)
            assert decided.cause == Cause.SESSION_TIMEOUT
            slack_s = AT_ONCE_S + 2 * it.lag_s()
            assert limit_s - slack_s <= decided.time_s - last_s <= limit_s + sweep_s + slack_s

    run(scenario())


@pytest.mark.real
def test_records_refreshed_at_each_frame_by_the_keepalive_or_never(start: Any, key_prefix: str) -> None:
    """What keeps a record of one second alive for two."""
    ttl = {"session_ttl": 1.0, "status_ttl": 1.0, "tcp_user_timeout": None}

    async def left_ms(refreshed: str, frames: bool) -> int:
        policy = SHORT.model_copy(update=ttl)
        rules = RecordRules(refreshed=refreshed)
        async with start(policy, detector=StateCheck(), records=rules) as it:
            client = await it.join("ann", live=True)
            for _ in range(12):
                await asyncio.sleep(0.1)
                if frames:
                    await client.send(type="pong")
            left = it.store.pttl(f"{key_prefix}session:{client.session_id}")
            return int(left)

    assert run(left_ms("at_each_frame", True)) > 800
    assert run(left_ms("by_the_keepalive", False)) > 500
    assert run(left_ms("never", True)) == -2


@pytest.mark.real
def test_the_plain_online_set_forgets_who_ended_and_keeps_who_did_not(start: Any, key_prefix: str) -> None:
    async def scenario() -> None:
        async with start(QUIET, records=RecordRules(online_set="plain")) as it:
            ann, _bob = await it.join("ann"), await it.join("bob")
            online = f"{key_prefix}online_users"
            await until(lambda: it.store.smembers(online) == {b"ann", b"bob"}, "both online")
            ann.socket.transport.abort()
            await until(lambda: it.store.smembers(online) == {b"bob"}, "ann is offline")
            assert it.store.ttl(online) == -1

    run(scenario())


@pytest.mark.real
def test_whoever_names_a_user_is_let_in_where_that_is_the_rule(start: Any) -> None:
    async def scenario(allowed: bool) -> None:
        rules = RecordRules(user_id_handshake=allowed)
        async with start(QUIET, records=rules, auth_timeout_s=0.2) as it:
            client = await it.dial("/ws?userId=ann")
            told = await client.receive()
            assert told["type"] == ("ready" if allowed else "error")
            assert [c.record and c.record.user_id for c in it.gateway.live.values()] == (
                ["ann"] if allowed else []
            )

    run(scenario(True))
    run(scenario(False))
