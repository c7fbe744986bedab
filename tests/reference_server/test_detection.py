"""Which layer ends a connection, how soon, and what the kernel says: every way that a client can go."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.real.network.silence import attach
from harness.real.processes.redis import RedisServer
from reference_server.events import Cause, Event, EventKind
from tests.reference_server.gateways import QUICK, QUIET, Client, Running, run, running, until
from tests.support import require_silence

pytestmark = pytest.mark.real

# Of each of k + 1 looks at a clock: a wheel's grain, and libuv's milliseconds rounded up and cut off.
LOOK_S = 0.004
AT_ONCE_S = 0.02
_TCP_REPAIR = 19  # linux/tcp.h


@pytest.fixture
def start(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Any:
    def make(policy: Any = QUICK, **options: Any) -> Any:
        return running(private_redis.url, key_prefix, tmp_path, policy, **options)

    return make


def reset(client: Client) -> None:
    """RST: linger 0 throws away what is buffered."""
    sock = client.socket.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.transport.abort()


def close_frame_and_tcp_left_open(client: Client) -> None:
    """What a page behind a proxy may do: the close frame comes, the FIN never does."""
    client.socket.transport.write(b"\x88\x82" + bytes(4) + struct.pack("!H", 1001))
    client.socket.transport.pause_reading()


ENDS: dict[str, tuple[Callable[[Client], Any], Cause, float]] = {
    "close frame": (
        lambda client: client.socket.transport.write(b"\x88\x82" + bytes(4) + b"\x03\xe9"),
        Cause.CLOSE_FRAME,
        AT_ONCE_S,
    ),
    "close frame, TCP left open": (close_frame_and_tcp_left_open, Cause.CLOSE_FRAME, 0.5),
    "FIN": (lambda client: client.socket.transport.abort(), Cause.TCP_FIN, AT_ONCE_S),
    "RST": (reset, Cause.TCP_RESET, AT_ONCE_S),
}


@pytest.mark.parametrize("how", ENDS)
def test_what_the_client_s_kernel_says_is_heard_at_once_and_named(start: Any, how: str) -> None:
    act, cause, closed_within_s = ENDS[how]

    async def scenario() -> None:
        async with start(QUIET, close_timeout_s=0.5) as it:
            client = await it.join("ann")
            began_s = it.now_s()
            act(client)
            decided = await it.verdict(client.session_id)
            (closed,) = it.events(EventKind.SOCKET_CLOSED, client.session_id)
            lag_s = 2 * it.lag_s()
            assert decided.cause == closed.cause == cause
            assert decided.time_s - began_s <= AT_ONCE_S + lag_s
            assert closed.time_s - began_s <= closed_within_s + AT_ONCE_S + lag_s
            assert decided.connection_id == closed.connection_id == client.ready["connection_id"]
            assert not it.gateway.live

    run(scenario())


async def cleared(it: Running, client: Client) -> None:
    """Wait for the records to go at once, not with the resume window."""
    gone = (None, None, False)
    await until(lambda: it.records(client.session_id, client.user_id) == gone, "cleared", 1.0)


def in_range(it: Running, decided: Event, silent_s: float, *, misses: int = 3) -> bool:
    """Whether a silence was found within the closed form, widened by what this run's clocks took."""
    lo_s, hi_s = it.config.policy.detection_range_s or (0.0, 0.0)
    slack_s = (misses + 1) * (LOOK_S + it.lag_s())
    return lo_s - it.lag_s() - LOOK_S <= decided.time_s - silent_s <= hi_s + slack_s


def test_a_frozen_client_is_suspected_in_range_and_its_kernel_has_acknowledged_all(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            clients = [await it.join(f"user-{n}", live=True) for n in range(8)]
            await asyncio.sleep(0.5)
            silent_s = {}
            for client in clients:
                await asyncio.sleep(0.05)
                await client.die()
                silent_s[client.session_id] = it.now_s()
            for client in clients:
                decided = await it.verdict(client.session_id)
                assert decided.cause == Cause.HEARTBEAT
                assert in_range(it, decided, silent_s[client.session_id])
                assert decided.detail["tcp_info"]["unacked"] == 0
                missed = it.events(EventKind.HEARTBEAT_MISSED, client.session_id)
                assert [event.detail["failures"] for event in missed] == [1, 2, 3]
                (closed,) = it.events(EventKind.SOCKET_CLOSED, client.session_id)
                assert closed.time_s - decided.time_s <= AT_ONCE_S + it.lag_s(), "abort waits for nobody"
                # The last sign of life is older than the resume window: the records go at once.
                await cleared(it, client)

    run(scenario())


def test_a_timeout_above_the_interval_is_waited_for_while_pings_go_on(start: Any) -> None:
    """Seven tenths of a second for an answer, a ping every three: found after [0.7, 1.0) s."""
    overlapping = {"heartbeat_interval": 0.3, "heartbeat_timeout": 0.7, "max_failures": 1}
    policy = QUICK.model_copy(update={**overlapping, "first_ping": "interval"})

    async def scenario() -> None:
        async with start(policy) as it:
            clients = [await it.join(f"user-{n}", live=True, trace=True) for n in range(8)]
            await asyncio.sleep(1.0)
            for client in clients:
                (connected,) = it.events(EventKind.CONNECTED, client.session_id)
                first = it.events(EventKind.HEARTBEAT_SENT, client.session_id)[0]
                # Two steps may be late: the timer is set after the event is noted, and then it has to fire.
                assert 0.3 <= first.time_s - connected.time_s <= 0.3 + LOOK_S + 2 * it.lag_s()
            silent_s = {}
            for client in clients:
                await asyncio.sleep(0.05)
                await client.die()
                silent_s[client.session_id] = it.now_s()
            for client in clients:
                decided = await it.verdict(client.session_id)
                assert decided.cause == Cause.HEARTBEAT
                assert in_range(it, decided, silent_s[client.session_id], misses=1)
                sent = it.events(EventKind.HEARTBEAT_SENT, client.session_id)
                unanswered = [e for e in sent if e.time_s > silent_s[client.session_id]]
                assert len(unanswered) >= 2, "several pings are in flight"

    run(scenario())


@pytest.mark.root
def test_a_crashed_host_is_suspected_in_range_and_data_is_on_its_way_for_ever(start: Any) -> None:
    require_silence()

    async def scenario() -> None:
        async with start() as it:
            clients = [await it.join(f"user-{n}", live=True) for n in range(8)]
            await asyncio.sleep(0.5)
            silent_s = {}
            for client in clients:
                await asyncio.sleep(0.05)
                attach(client.socket.transport.get_extra_info("socket"))
                silent_s[client.session_id] = it.now_s()
            for client in clients:
                decided = await it.verdict(client.session_id)
                assert decided.cause == Cause.HEARTBEAT
                assert in_range(it, decided, silent_s[client.session_id])
                info = decided.detail["tcp_info"]
                assert info["unacked"] > 0
                assert info["total_retransmits"] > 0
                (closed,) = it.events(EventKind.SOCKET_CLOSED, client.session_id)
                assert closed.time_s - decided.time_s <= AT_ONCE_S + it.lag_s()

    run(scenario())


@pytest.mark.root
def test_the_kernel_s_own_patience_is_a_layer_with_a_name(start: Any) -> None:
    """Heartbeats whose answers nobody counts in time: TCP_USER_TIMEOUT gives up first, and is named."""
    require_silence()
    policy = QUICK.model_copy(update={"max_failures": 1000, "tcp_user_timeout": 0.6})

    async def scenario() -> None:
        async with start(policy) as it:
            client = await it.join("ann", live=True)
            transport = it.gateway.live[client.ready["connection_id"]].transport
            accepted = transport.get_extra_info("socket")
            timeout_ms = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert timeout_ms == 600
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await until(lambda: client.heartbeats, "a heartbeat")
            attach(client.socket.transport.get_extra_info("socket"))
            silent_s = it.now_s()
            decided = await it.verdict(client.session_id)
            assert decided.cause == Cause.TCP_TIMEOUT
            # From the first ping into the silence; the kernel looks at retransmissions, up to 0.6 s apart.
            assert 0.6 <= decided.time_s - silent_s <= 0.4 + 0.6 + 0.6 + 2 * it.lag_s()

    run(scenario())


@pytest.mark.root
def test_a_host_that_came_back_without_the_connection_answers_with_rst(start: Any) -> None:
    require_silence()

    async def scenario() -> None:
        async with start() as it:
            client = await it.join("ann", live=True)
            await until(lambda: client.heartbeats, "a heartbeat")
            await client.die()
            fd = client.socket.transport.get_extra_info("socket").fileno()
            sock = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
            attach(sock)
            client.socket.transport.abort()  # one descriptor is left, so no FIN
            await asyncio.sleep(0.01)
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)  # closes without a word
            sock.close()
            assert (await it.verdict(client.session_id)).cause == Cause.TCP_RESET

    run(scenario())


def test_an_idle_session_is_found_by_the_sweep(start: Any) -> None:
    policy = QUIET.model_copy(update={"session_timeout": 0.6, "sweep_interval": 0.2})

    async def scenario() -> None:
        async with start(policy) as it:
            idle, busy = await it.join("idle"), await it.join("busy")
            last_s = it.now_s()
            busy.live()

            async def chat() -> None:
                while True:
                    await busy.send(type="pong")
                    await asyncio.sleep(0.1)

            chatting = asyncio.create_task(chat())
            decided = await it.verdict(idle.session_id)
            assert decided.cause == Cause.SESSION_TIMEOUT
            # Its own last frame, the authentication, was a little before it was ready.
            assert 0.6 - 0.05 <= decided.time_s - last_s <= 0.8 + AT_ONCE_S + 2 * it.lag_s()
            await cleared(it, idle)
            await asyncio.sleep(0.3)
            assert busy.closed is None
            chatting.cancel()

    run(scenario())


def test_too_many_sessions_cost_those_that_were_idle_longest(start: Any) -> None:
    policy = QUIET.model_copy(update={"max_sessions": 3})

    async def scenario() -> None:
        async with start(policy) as it:
            clients = [await it.join(f"user-{n}") for n in range(3)]
            await clients[0].send(type="pong")  # now the second has been idle for longest
            await asyncio.sleep(0.05)
            newest = [await it.join(f"user-{n}") for n in (3, 4)]
            for gone in clients[1:]:
                assert (await it.verdict(gone.session_id)).cause == Cause.MEMORY_PRESSURE
                await cleared(it, gone)
            stay = {clients[0].session_id, *(client.session_id for client in newest)}
            live = it.gateway.live.values()
            assert {c.record.session_id for c in live if c.record is not None} == stay

    run(scenario())


def test_where_the_memory_is_used_up_a_newcomer_displaces_the_one_idle_longest(start: Any) -> None:
    async def scenario() -> None:
        async with start(QUIET, max_rss_bytes=10**12) as it:
            sweeper = it.gateway.sweeper
            clients = [await it.join(f"user-{n}") for n in range(2)]
            sweeper._max_rss = 1
            clients.append(await it.join("user-2"))  # so many fit
            await asyncio.sleep(0.1)
            assert sweeper.most_sessions() == 3 == len(it.gateway.live)
            await it.join("user-3")
            assert (await it.verdict(clients[0].session_id)).cause == Cause.MEMORY_PRESSURE
            assert len(it.gateway.live) == 3
            await clients[1].socket.close()
            await it.verdict(clients[1].session_id)
            assert sweeper.most_sessions() == 3, "who leaves, leaves memory that is used again"
            sweeper._max_rss = 10**12
            assert sweeper.most_sessions() == float("inf")

    run(scenario())


def test_a_stalled_gateway_throws_nobody_out_whose_answers_came_meanwhile(start: Any) -> None:
    """The clients are in a process of their own here: they answer while the gateway's loop stands still."""
    answering = (
        "import socket, sys\n"
        "port, *sessions = sys.argv[1:]\n"
        "import select\n"
        "socks = {}\n"
        "for session in sessions:\n"
        "    s = socket.create_connection(('127.0.0.1', int(port)))\n"
        "    s.sendall((f'GET /ws/{session} HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\n'\n"
        "        'Connection: Upgrade\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n'\n"
        "        'Sec-WebSocket-Version: 13\\r\\n\\r\\n').encode())\n"
        "    socks[s.fileno()] = s\n"
        "while True:\n"
        "    for fd in select.select(list(socks), [], [])[0]:\n"
        "        data = socks[fd].recv(65536)\n"
        "        if not data: sys.exit(1)\n"
        "        n = data.count(b'heartbeat')\n"
        '        if n: socks[fd].sendall(b\'\\x81\\x8f\\0\\0\\0\\0{"type":"pong"}\' * n)\n'
    )

    async def scenario() -> None:
        policy = QUICK.model_copy(update={"max_failures": 1})
        async with start(policy) as it:
            # Where a slow handler stalls a loop: among the sockets that it reads. Those which become
            # readable meanwhile have to wait until its timers have run.
            ours, theirs = socket.socketpair()
            loop = asyncio.get_running_loop()

            def stall() -> None:
                theirs.recv(1)
                time.sleep(0.4)  # longer than the deadline of every outstanding ping

            loop.add_reader(theirs, stall)
            sessions = [await it.login(f"user-{n}") for n in range(60)]
            clients = await asyncio.create_subprocess_exec(
                sys.executable, "-c", answering, str(it.port), *sessions
            )
            try:
                await until(lambda: len(it.gateway.live) == 60, "all connected")
                for _ in range(4):
                    await asyncio.sleep(0.15)
                    ours.send(b"!")
                await asyncio.sleep(0.6)
                loop.remove_reader(theirs)
                assert it.lag_s() >= 0.3
                assert it.events(EventKind.HEARTBEAT_MISSED) == []
                assert len(it.gateway.live) == 60
            finally:
                ours.close()
                theirs.close()
                clients.kill()
                await clients.wait()

    run(scenario())
