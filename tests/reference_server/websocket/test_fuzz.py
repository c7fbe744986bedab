"""Whatever comes in: the gateway stays up, keeps nothing of it, and beats for the others in time.

One gateway process for all, with a healthy client of another process beside it (`witness.py`). Each test
throws something at it, then everything is counted: sockets, sessions, records in Redis, descriptors.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from harness.real.processes.children import Child, Children
from harness.real.processes.redis import RedisServer
from reference_server.events import EventKind
from reference_server.sessions.records import session_id_of
from tests.reference_server.apart import ask, events, lag_s, log_in, start
from tests.reference_server.storm import HELLO
from tests.support import wait_until

pytestmark = pytest.mark.real

INTERVAL_S = 0.5
AUTH_TIMEOUT_S = 1.5
POLICY = {
    "heartbeat_interval": f"{INTERVAL_S}s",
    "heartbeat_timeout": "0.5s",
    "max_failures": 2,
    "resume_window": "0.2s",
    "session_timeout": None,
}
CONFIG: dict[str, Any] = {"auth_timeout_s": AUTH_TIMEOUT_S, "close_timeout_s": 0.3, "max_handshakes": 6000}
# In CI the same examples each time; elsewhere new ones, and a failure is kept and shown first.
bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

IDS: st.SearchStrategy[Any] = st.sampled_from(
    ["mine", "x", "", "x" * 200, "用户", "a\0b", "\ud800", 7, None, [], {}]
)
MESSAGES = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=10,
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["auth", "watch", "pong", "heartbeat", "message", "kick", "error", ""])},
        optional={
            "token": IDS,
            "user_id": IDS,
            "trace": st.booleans() | IDS,
            "user_ids": st.lists(IDS, max_size=3) | IDS,
            "to": IDS,
            "text": IDS,
        },
    ),
)


@dataclass(frozen=True)
class Frame:
    """A frame, right or wrong; ``claims`` is the length that it says it has."""

    first: int
    masked: bool
    payload: bytes
    claims: int | None = None

    def encode(self) -> bytes:
        length = len(self.payload) if self.claims is None else self.claims
        bit = 0x80 if self.masked else 0
        if length < 126:
            head = bytes((self.first, bit | length))
        elif length < 65_536:
            head = bytes((self.first, bit | 126)) + length.to_bytes(2)
        else:
            head = bytes((self.first, bit | 127)) + length.to_bytes(8)
        return head + (bytes(4) if self.masked else b"") + self.payload


def text_of(message: Any) -> Frame:
    return Frame(0x81, True, json.dumps(message).encode())


def cut(frame: Frame, at: int) -> list[Frame]:
    """Cut a frame in two fragments."""
    at = min(at, len(frame.payload))
    return [
        Frame(frame.first & 0x7F, frame.masked, frame.payload[:at]),
        Frame(0x80, frame.masked, frame.payload[at:]),
    ]


ANY_FRAME = st.builds(
    Frame,
    st.integers(0, 255),
    st.booleans(),
    st.binary(max_size=300),
    st.none() | st.integers(0, 2**63 - 1) | st.integers(2**63, 2**64 - 1),
)
LARGE = st.integers(16_000, 17_000).map(lambda n: [Frame(0x81, True, b"a" * n)])
FRAMES = st.lists(
    st.one_of(
        MESSAGES.map(lambda message: [text_of(message)]),
        st.builds(cut, MESSAGES.map(text_of), st.integers(0, 30)),
        ANY_FRAME.map(lambda frame: [frame]),
        st.binary(max_size=40).map(lambda data: [Frame(0x81, True, data)]),  # bad UTF-8, mostly
        st.sampled_from([0x88, 0x89, 0x8A]).flatmap(
            lambda first: st.binary(max_size=130).map(lambda data: [Frame(first, True, data)])
        ),
        LARGE,
    ),
    max_size=8,
).map(lambda groups: [frame for group in groups for frame in group])
ENDINGS = st.sampled_from(["half-close", "close", "reset", "close frame"])


@dataclass
class Target:
    """A gateway with a witness."""

    gateway: Child
    ports: dict[str, int]
    folder: Path
    witness: subprocess.Popen[bytes]
    store: redis.Redis
    prefix: str
    witness_session: str
    mine: str  # the token of a session that a fuzzer may use

    def connect(self, first: bytes = b"") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.ports["port"]), timeout=5)
        sock.sendall(first)
        return sock

    def open(self, path: bytes = b"/ws") -> socket.socket:
        """Connect and shake hands."""
        sock = self.connect(HELLO.replace(b"/ws", path))
        assert sock.recv(12) == b"HTTP/1.1 101"
        return sock

    def figures(self) -> dict[str, float]:
        """Return what would grow if something were left over."""
        url = f"http://127.0.0.1:{self.ports['http_port']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            samples = {
                sample.name: sample.value
                for family in text_string_to_metric_families(answer.read().decode())
                for sample in family.samples
            }
        names = ("sockets", "connections", "handshakes", "resume_windows", "store_waiting")
        shown = {name: samples[f"flatline_{name}"] for name in names}
        # That a session was logged out is remembered for its TTL.
        keys = [key for key in self.store.scan_iter(f"{self.prefix}*", count=1000) if b":ended:" not in key]
        return {**shown, "descriptors": samples["process_open_fds"], "keys": len(keys)}

    def survives(self, attack: Callable[[], None]) -> None:
        """Carry an attack out; what was before it is what is after it."""
        before = self.figures()
        attack()
        assert self.gateway.returncode is None, self.gateway.log_tail()
        after: dict[str, float] = {}

        def is_as_before() -> bool:
            nonlocal after
            after = self.figures()
            return after == before

        with suppress(AssertionError):  # its message would not say what is left
            wait_until(is_as_before, "nothing is left", AUTH_TIMEOUT_S + 8)
        assert after == before
        assert events(self.folder, EventKind.HEARTBEAT_MISSED, self.witness_session) == []


@pytest.fixture(scope="module")
def target(private_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    prefix = f"test:fuzz-{os.getpid()}:"
    with Children() as children, redis.Redis.from_url(private_redis.url) as store:
        gateway, ports = start(children, private_redis, prefix, folder, policy=POLICY, **CONFIG)
        token = log_in(ports, "witness")
        argv = [sys.executable, "-m", "tests.reference_server.witness"]
        witness = subprocess.Popen(
            [*argv, str(ports["port"]), token, str(INTERVAL_S)], stdout=subprocess.PIPE
        )
        try:
            assert witness.stdout is not None
            assert witness.stdout.readline() == b"ready\n"
            mine = log_in(ports, "mine")
            it = Target(gateway, ports, folder, witness, store, prefix, session_id_of(token), mine)
            yield it
            witness.send_signal(signal.SIGTERM)
            diary = json.loads(witness.communicate(timeout=10)[0])
            late = events(folder, EventKind.HEARTBEAT_LATENESS)
            late_s = max((float(event.detail["max_s"]) for event in late), default=0.0)
            lag = lag_s(folder)
            print(f"\nwitness: {diary}; loop late by {lag:.3f} s, heartbeats by {late_s:.3f} s")
            assert diary["closed"] is None
            assert diary["beats"] >= 1
            # The loop's lag is looked at every 20 ms, and a beat may stand in a grain of 2 ms.
            assert late_s <= lag + 0.025
            # As the client sees it: its own lag comes to that, and the 10 ms between its looks.
            assert diary["late_s"] <= lag + 0.025 + diary["lag_s"] + 0.015
            assert gateway.log_tail() == "", "nothing of all this is worth a line in the log"
        finally:
            witness.kill()
            witness.wait()


def end(sock: socket.socket, how: str) -> None:
    """End a connection one way or another, and wait until the gateway has seen to it."""
    with suppress(OSError), sock:
        match how:
            case "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            case "close frame":
                sock.sendall(Frame(0x88, True, b"\x03\xe8").encode())
            case "half-close":
                sock.shutdown(socket.SHUT_WR)
            case _:
                return
        while sock.recv(65_536):
            pass


def still_serves(target: Target) -> None:
    """Shake hands and part."""
    target.open().close()


def test_bytes_instead_of_a_handshake(target: Target) -> None:
    @bounded
    @given(
        st.binary(max_size=600),
        st.integers(0, len(HELLO)),
        st.integers(1, 200),
        st.sampled_from(["half-close", "close", "reset"]),
    )
    # What follows a request before its answer, in the same piece or in the next one.
    @example(Frame(0x89, True, b"").encode(), len(HELLO), 600, "close")
    @example(Frame(0x88, True, b"\x03\xe8").encode(), len(HELLO), 600, "half-close")
    @example(Frame(0x81, True, b"{}").encode() + b"\xff" * 20, len(HELLO), len(HELLO) + 3, "reset")
    @example(b"junk", len(HELLO), len(HELLO) - 2, "close")
    @example(HELLO + HELLO, len(HELLO), 600, "half-close")
    @example(b"\0" * 20, len(HELLO), 1, "close")
    def attack(data: bytes, kept: int, chunk: int, ending: str) -> None:
        sock = target.connect()
        with suppress(OSError):
            all_of_it = HELLO[:kept] + data
            for at in range(0, len(all_of_it), chunk):
                sock.sendall(all_of_it[at : at + chunk])
        end(sock, ending)
        still_serves(target)

    target.survives(attack)


def test_any_path_and_query(target: Target) -> None:
    parts = st.sampled_from(
        [
            b"/",
            b"//",
            b"[",
            b"]",
            b"?",
            b"&",
            b"=",
            b"#",
            b"@",
            b":",
            b"..",
            b" ",
            b"\t",
            b"\0",
            b"%",
            b"%00",
            b"%ff",
            b"http://",
            b"ws",
            b"user_id",
            b"userId",
            b"trace",
            b"1",
            b"a" * 200,
            b"\xc3\xa4",
            b"\xff",
        ]
    )

    @bounded
    @given(st.lists(parts, max_size=6).map(b"".join), st.sampled_from([b"", b"/ws", b"/ws/"]))
    @example(b"//[", b"")
    @example(b"?user_id=" + b"a" * 300, b"/ws/x")
    @example(b"a" * 129, b"/ws/")
    def attack(path: bytes, before: bytes) -> None:
        with target.connect(HELLO.replace(b"/ws", before + path)) as sock, suppress(ConnectionResetError):
            assert sock.recv(12) in (b"", b"HTTP/1.1 101", b"HTTP/1.1 400", b"HTTP/1.1 404")

    target.survives(attack)


def test_frames_and_messages_in_any_order(target: Target) -> None:
    @bounded
    @given(
        st.sampled_from([b"/ws", b"/ws/unknown", b"/ws/mine", b"/ws?userId=x", b"/ws/%ff?user_id=%ff"]),
        FRAMES,
        st.booleans(),
        ENDINGS,
    )
    def attack(path: bytes, frames: list[Frame], in_one_piece: bool, ending: str) -> None:
        def real(data: bytes) -> bytes:
            return data.replace(b'"mine"', b'"' + target.mine.encode() + b'"')

        sock = target.open(path.replace(b"mine", target.mine.encode()))
        with suppress(OSError):
            whole = [real(Frame(f.first, f.masked, real(f.payload), f.claims).encode()) for f in frames]
            for piece in [b"".join(whole)] if in_one_piece else whole:
                sock.sendall(piece)
        end(sock, ending)
        still_serves(target)

    def and_log_in_again() -> None:
        attack()
        # Each use of the session ended with its records, once the resume window was over.
        wait_until(
            lambda: not target.store.exists(f"{target.prefix}session:{session_id_of(target.mine)}"), "gone"
        )
        target.mine = log_in(target.ports, "mine")

    target.survives(and_log_in_again)


def test_requests_with_any_body(target: Target) -> None:
    paths = ("/user/login", "/user/code", "/user/logout", "/api/sessions", "/ws", "/static/x")

    @settings(bounded, max_examples=80)
    @given(st.sampled_from(paths), MESSAGES)
    def attack(path: str, body: Any) -> None:
        data = json.dumps(body).encode()
        url = f"http://127.0.0.1:{target.ports['http_port']}{path}"
        try:
            with urllib.request.urlopen(url, data, timeout=5) as answer:
                status, told = answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                status, told = error.code, json.loads(error.read())
        assert status in (200, 400, 401, 403, 404, 405), told
        if status != 200:
            assert told["error"]["code"]
            assert told["error"]["message"]
        if "code" in told:
            with_code = {"user_id": body["user_id"], "code": told["code"]}
            status, told = ask(target.ports, "/user/login", with_code)
            assert status == 200
        if "token" in told:
            mine = {"token": told["token"]}
            assert ask(target.ports, "/user/logout", mine) == (200, {})

    target.survives(attack)


HTTP_PARTS = [
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text; version=\xff;q\r\n\r\n",
    b"GET /api/sessions?page=x&per_page=%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /static/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /static/" + b"a" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /static/../../x%2f.. HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"POST /user/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /user/code HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nExpect: 100-continue\r\n\r\n",
    b"POST /user/logout HTTP/1.1\r\nHost: \x9b\r\nContent-Length: 2\r\nX-Forwarded-For: %\r\n\r\n{}",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"zz\r\n",
    b"\r\n\r\n",
    b"\0\xff",
    b"x" * 70_000,
]


def test_bytes_on_the_http_port(target: Target) -> None:
    """Requests in one another's bodies, chunks that are none, pipelines: an answer or the end, and no line."""

    @settings(bounded, max_examples=200)
    @given(
        st.lists(st.sampled_from(HTTP_PARTS) | st.binary(max_size=40), min_size=1, max_size=5).map(b"".join),
        st.lists(st.integers(0, 400), max_size=3),
        st.sampled_from(["half-close", "close", "reset"]),
    )
    @example(HTTP_PARTS[0] + HTTP_PARTS[7].replace(b"POST", b"HEAD") + b"zz\r\n", [], "half-close")
    @example(HTTP_PARTS[7] + b"junk", [], "half-close")
    @example(HTTP_PARTS[7] + b"5\r\nhello\r\njunk\r\n", [85, 95], "half-close")
    @example(HTTP_PARTS[0] + HTTP_PARTS[7] + b"zz\r\n", [44], "half-close")
    @example(HTTP_PARTS[2] + b"junk\r\n\r\n" + HTTP_PARTS[0], [100], "half-close")
    @example(HTTP_PARTS[8] + b"x" * 20 + b"junk\r\n", [], "half-close")
    @example(HTTP_PARTS[7] + b"zz\r\n" + HTTP_PARTS[0], [85], "reset")
    def attack(data: bytes, cuts: list[int], ending: str) -> None:
        sock = socket.create_connection(("127.0.0.1", target.ports["http_port"]), timeout=10)
        ends = sorted({*(cut for cut in cuts if cut < len(data)), len(data)})
        with suppress(OSError):
            for begin, stop in zip([0, *ends], ends, strict=False):
                sock.sendall(data[begin:stop])
                time.sleep(0.001)
        end(sock, ending)
        assert ask(target.ports, "/healthz")[0] == 200

    target.survives(attack)


def test_handshakes_byte_by_byte_and_halves_of_them(target: Target) -> None:
    def attack() -> None:
        slow = [target.connect() for _ in range(100)]
        for n in range(len(HELLO) - 1):
            for sock in slow:
                with suppress(OSError):
                    sock.sendall(HELLO[n : n + 1])
            time.sleep(0.002)
        half_closed = [target.connect(HELLO[:50]) for _ in range(50)]
        for sock in half_closed:
            sock.shutdown(socket.SHUT_WR)
        for sock in slow + half_closed:
            with sock, suppress(OSError):
                sock.settimeout(AUTH_TIMEOUT_S + 3)
                while sock.recv(1000):
                    pass
        still_serves(target)

    target.survives(attack)


def test_five_thousand_idle_sockets_without_authentication(target: Target) -> None:
    def attack() -> None:
        argv = [sys.executable, "-m", "tests.reference_server.storm", str(target.ports["port"])]
        crowd = subprocess.run(
            [*argv, "5000", "--at-once", "200", "--stay"], capture_output=True, check=True, timeout=60
        )
        assert json.loads(crowd.stdout) == {"101": 5000, "told auth_timeout": 5000}
        still_serves(target)

    target.survives(attack)
