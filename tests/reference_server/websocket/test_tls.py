"""TLS on both ports: verified, refused to whoever speaks something else, in the same budgets and with the same ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError
from websockets.asyncio.client import connect

from harness.real.processes.redis import RedisServer
from reference_server.config import GatewayConfig
from reference_server.events import Cause
from reference_server.websocket.tls import server_context
from tests.certificates import Certificate, make_certificate, tls_before
from tests.reference_server.gateways import QUICK, QUIET, Client, Running, run, running, until

pytestmark = pytest.mark.real
ALERT = b"\x15"  # content type of TLS's alerts


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def start(private_redis: RedisServer, key_prefix: str, tmp_path: Path, certificate: Certificate) -> Any:
    def make(policy: Any = QUIET, **options: Any) -> Any:
        told: dict[str, Any] = certificate.keys | options
        return running(private_redis.url, key_prefix, tmp_path, policy, tls=certificate.client(), **told)

    return make


async def last_words(reader: asyncio.StreamReader) -> bytes:
    """Read until the other end closes or resets."""
    with suppress(ConnectionResetError):
        return await reader.read()
    return b""


def plain_socket(client: Client) -> socket.socket:
    """A descriptor of the client's own TCP connection, below its TLS."""
    return socket.socket(fileno=client.socket.transport.get_extra_info("socket").fileno())


@pytest.mark.parametrize("what", ["one of two", "no file", "no PEM", "another's key"])
def test_what_cannot_be_served_is_said_at_the_start(
    what: str, certificate: Certificate, tmp_path: Path
) -> None:
    if what == "one of two":
        with pytest.raises(ValidationError, match="tls_certificate and tls_key go together"):
            GatewayConfig(tls_certificate=certificate.certificate)
        return
    other = make_certificate(tmp_path)
    (tmp_path / "junk.pem").write_text("no PEM")
    wrong = {"no file": tmp_path / "none.pem", "no PEM": tmp_path / "junk.pem"}.get(what, other.certificate)
    with pytest.raises(OSError, match=rf"tls_certificate .*{wrong.name}, tls_key .*: \S"):
        server_context(wrong, certificate.key)


def test_logins_and_heartbeats_over_tls_and_each_end_by_its_cause(start: Any) -> None:
    async def scenario() -> None:
        async with start(QUICK) as it:
            here, reset, cut = [await it.join(name, live=True) for name in ("ann", "bob", "eve")]
            await until(lambda: here.heartbeats > 2, "heartbeats")
            with plain_socket(reset) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                reset.socket.transport.abort()
            with plain_socket(cut) as sock:
                sock.shutdown(socket.SHUT_RDWR)  # a FIN without TLS's goodbye
                sock.detach()
            await here.socket.close(1000)
            causes = [(await it.verdict(one.session_id)).cause for one in (here, reset, cut)]
            assert causes == [Cause.CLOSE_FRAME, Cause.TCP_RESET, Cause.TCP_FIN]
            silent = await it.join("sid", live=True)
            await silent.die()
            decided = await it.verdict(silent.session_id)
            assert decided.cause == Cause.HEARTBEAT and decided.detail["tcp_info"]["unacked"] == 0
            await until(lambda: not it.gateway.limiter.sockets, "all sockets gone")

    run(scenario())


def test_clients_that_trust_somebody_else_or_want_another_name_stay_out(start: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with start() as it:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(f"wss://127.0.0.1:{it.port}/ws", ssl=make_certificate(tmp_path).client())
            with pytest.raises(ssl.SSLCertVerificationError, match=r"doesn't match|not valid for"):
                await connect(f"wss://localhost:{it.port}/ws", ssl=it.tls)
            await until(lambda: not it.gateway.limiter.sockets, "all sockets gone")

    run(scenario())


def test_strangers_who_do_not_shake_hands_are_counted_and_sent_away_without_a_line(
    start: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_server.websocket.overload._PATIENCE_S", 60.0)

    async def scenario() -> None:
        async with start(auth_timeout_s=0.5, max_handshakes=3) as it:
            limiter = it.gateway.limiter
            writers = []
            for port, told in (
                (it.port, b""),
                (it.port, b"\x16\x03\x01"),
                (it.port, b""),
                (it.http_port, b""),
            ):
                writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
                writers[-1].write(told)
            await until(lambda: len(limiter.opening) == 3 and len(limiter.http_sockets) == 1, "all counted")
            one_too_many, _ = await asyncio.open_connection("127.0.0.1", it.port)
            assert await last_words(one_too_many) == b""
            await until(lambda: not limiter.sockets, "all gone")
            for junk in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 8, b"\x16\x03\x01\x00\x05hello"):
                for port in (it.port, it.http_port):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(junk)
                    assert (await last_words(reader))[:1] in (b"", ALERT)
            assert (await it.join("ann")).ready
            for writer in writers:
                writer.transport.abort()
            await until(lambda: len(limiter.sockets) == 1, "nothing but ann's")

    run(scenario())
    assert not [line for line in caplog.records if line.levelno > logging.INFO]


def test_a_renewed_certificate_is_served_to_who_comes_and_a_wrong_one_changes_nothing(
    start: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        here = make_certificate(tmp_path, label="here")
        async with start(**here.keys) as it:
            it.tls = here.client()
            before = await it.join("ann", live=True)
            here.certificate.write_text("half a file")
            with pytest.raises(OSError, match="no PEM"):
                it.gateway.read_certificate()
            renewed = make_certificate(tmp_path, label="here")
            with pytest.raises(ssl.SSLCertVerificationError):  # its clients are told of the new CA too early
                await connect(f"wss://127.0.0.1:{it.port}/ws", ssl=renewed.client())
            it.gateway.read_certificate()
            it.tls = renewed.client()
            assert (await it.join("bob")).ready
            assert before.closed is None

    run(scenario())


def resumed(it: Running, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
    """Shake hands and ask for something, so that tickets are in; say whether the session was resumed."""
    assert it.tls is not None
    with (
        socket.create_connection(("127.0.0.1", it.http_port)) as plain,
        it.tls.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as sock,
    ):
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 200 " in sock.recv(4096)
        return bool(sock.session_reused), sock.session


def test_who_comes_back_resumes_its_tls_session(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            first, session = await asyncio.to_thread(resumed, it, None)
            again, _ = await asyncio.to_thread(resumed, it, session)
            assert (first, again) == (False, True)

    run(scenario())


def test_a_drain_over_tls_ends_everybody_in_order(start: Any) -> None:
    async def scenario() -> None:
        async with start(drain_timeout_s=1.0) as it:
            here = await it.join("ann", live=True)
            _, writer = await asyncio.open_connection("127.0.0.1", it.port)  # in TLS's handshake for ever
            await until(lambda: len(it.gateway.limiter.opening) == 1, "the stranger")
            await it.gateway.drain()
            await until(lambda: here.closed, "the close frame")
            assert here.closed == 1001 and not it.gateway.limiter.opening
            writer.transport.abort()

    run(scenario())


def test_redis_is_reached_by_tls_and_only_by_who_trusts_it(
    private_redis: RedisServer, key_prefix: str, certificate: Certificate, tmp_path: Path
) -> None:
    plain = urlsplit(private_redis.url).port
    assert plain is not None

    async def scenario(port: int) -> None:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs="
        async with running(f"{url}{certificate.ca}", key_prefix, tmp_path, QUIET) as it:
            ann = await it.join("ann")
            assert it.records(ann.session_id, "ann")[2]
        other = make_certificate(tmp_path)
        async with running(f"{url}{other.ca}", key_prefix, tmp_path, QUIET) as it:
            status, answer = await it.http("POST", "/user/login", {"user_id": "bob"})
            assert (status, answer["error"]["code"]) == (503, "store_unavailable")
            assert it.gateway.health()["store"] == "down"

    with tls_before(plain, certificate) as port:
        run(scenario(port))
