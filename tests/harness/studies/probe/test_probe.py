"""The probe against real servers of odd kinds, which are told to it in no other way than by their URL and dialect."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from harness.real.network.silence import silence_available
from harness.studies.probe import Probe, ProbeError, probe, server_of
from reference_server.errors import Exit
from scenarios.target_files import parse_target
from tests.support import again_if_late, at_most_late

SERVERS = Path(__file__).with_name("odd_servers.py")
_BEARS_S = 0.3  # of limits of 0.4 to 1 s
TEXT = {
    "json": """{text: {hello: ['{"op": "hi", "who": "{user}"}'], ready: {op: welcome},
               answers: [{on: {op: beat}, send: '{"op": "ack", "seq": {$.seq}}'}]}}""",
    "beats": """{text: {beat: '{"t": "hb"}'}}""",
}


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Probe]]:
    """All kinds at once, each server in a process of its own: most of the time everybody waits."""
    ports = {kind: free_port() for kind in ("json", "two_misses", "never", "beats")}
    servers = []
    for kind, port in ports.items():
        servers.append(
            subprocess.Popen(
                [sys.executable, str(SERVERS), kind, str(port)], stdout=subprocess.PIPE, text=True
            )
        )

    def probed(kind: str) -> Probe:
        url = f"ws://127.0.0.1:{ports[kind]}/"
        return probe(url, dialect=TEXT.get(kind), clients=45, within_s=3.5, seed=3)

    def all_of_them() -> dict[str, Probe]:
        with at_most_late(_BEARS_S), ThreadPoolExecutor(4) as pool:
            return dict(zip(ports, pool.map(probed, ports), strict=True))

    try:
        for server in servers:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
        yield again_if_late(all_of_them)
    finally:
        for server in servers:
            server.kill()
            server.wait()


pytestmark = pytest.mark.real


def test_each_was_measured(found: dict[str, Probe]) -> None:
    for kind, one in found.items():
        assert one.exit_code is Exit.GOOD, (kind, one.sentence, one.lines)
        assert one.revived.law is not None and one.revived.law.n >= 40
        assert one.how == ("cut" if silence_available().ok else "freeze")


def test_text_heartbeats_with_fields_of_their_own(found: dict[str, Probe]) -> None:
    one = found["json"]
    heartbeat, why = one.heartbeat
    assert (heartbeat.model, why) == ("ping_deadline", ""), one.heard
    assert heartbeat.interval == pytest.approx(0.6, abs=0.05)
    assert heartbeat.timeout == pytest.approx(0.4, abs=0.05)
    assert heartbeat.socket_lag == pytest.approx(1, abs=0.25)  # it waits for the answer to its close frame
    assert one.heard.kind == "heartbeat"
    assert list(one.close_codes) == ["close_frame 4008"]
    assert "an answer matters" in "\n".join(one.lines)


def test_two_misses_in_a_row_and_a_guessed_dialect(found: dict[str, Probe]) -> None:
    one = found["two_misses"]
    heartbeat = one.heartbeat[0]
    assert (heartbeat.model, heartbeat.misses) == ("next_tick", 2)
    assert heartbeat.interval == pytest.approx(0.5, abs=0.05)
    assert (one.server.dialect.name, one.guessed) == ("websocket", True)
    assert not any("close_frame" in how for how in one.close_codes)
    assert "noticed after 1 to 1.5 s" in one.sentence


def test_a_server_that_never_notices(found: dict[str, Probe]) -> None:
    one = found["never"]
    assert one.heartbeat[0].model == "never"
    assert "is not noticed within 3.5" in one.sentence and "(n = " in one.sentence
    assert one.heard.needs_answers is False
    assert {finding.rule for finding, _ in one.lint_by_rule} >= {"nothing_detects"}


def test_beats_that_the_client_has_to_send(found: dict[str, Probe]) -> None:
    one = found["beats"]
    heartbeat = one.heartbeat[0]
    assert one.who_beats == "the client" and one.heard.needs_beats
    assert heartbeat.model == "idle_limit"
    assert heartbeat.timeout == pytest.approx(1.0, abs=0.15)
    assert (heartbeat.look_every or 0) < 0.6
    assert list(one.close_codes) == ["close_frame 4000"]


def test_what_it_writes_is_a_target_file(found: dict[str, Probe]) -> None:
    for kind, one in found.items():
        target = parse_target(one.target_file(kind))
        assert target.heartbeat.model == one.heartbeat[0].model
        assert target.dialect_options == one.server.options
        assert target.heartbeat.status == "measured"
        assert one.as_json()["sentence"] == one.sentence


# -- what cannot be probed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1/", "allowed: ws://HOST"),
        ("127.0.0.1:80", "allowed: ws://HOST"),
        ("ws://127.0.0.1:99999/", "allowed: 1 to 65535"),
        ("ws://8.8.8.8/", "--this-host-is-mine"),
        ("ws://no-such-host.invalid/", "no-such-host.invalid"),
    ],
)
def test_a_url_that_may_not_be_probed_is_told_what_may(url: str, words: str) -> None:
    with pytest.raises(ProbeError, match=words):
        server_of(url, None)


def test_who_says_that_a_host_is_theirs_may_load_it() -> None:
    assert server_of("ws://8.8.8.8/", None, is_mine=True).address == ("8.8.8.8", 80)


@pytest.mark.parametrize(
    ("dialect", "words"), [("{text: 3}", "FILE.py:CLASS"), ("{a: {}, b: {}}", "allowed"), ("{x", "not YAML")]
)
def test_a_dialect_that_is_none_is_told_what_may_be_said(dialect: str, words: str) -> None:
    with pytest.raises(ProbeError, match=words):
        server_of("ws://127.0.0.1/", dialect)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no HTTP"),
        (b"", "closed the connection"),
    ],
)
def test_a_server_that_is_no_websocket_is_named_for_what_it_says(answer: bytes, words: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                except OSError:
                    return
                accepted.recv(4096)
                accepted.sendall(answer)
                accepted.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(ProbeError, match=words):
            probe(f"ws://127.0.0.1:{server.getsockname()[1]}/", dialect="websocket", within_s=2)
        server.shutdown(socket.SHUT_RDWR)


def test_a_port_without_a_server_is_refused() -> None:
    with pytest.raises(ProbeError, match=r"refused|failed"):
        probe(f"ws://127.0.0.1:{free_port()}/", within_s=2)


@pytest.mark.parametrize("phase", ["listen", "silence"])
def test_of_a_server_that_dies_meanwhile_what_was_measured_stands(phase: str) -> None:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(SERVERS), "two_misses", str(port)], stdout=subprocess.PIPE, text=True
    )

    def kill_it(now: str, done: float) -> None:
        if now == phase and done > 0.4:
            server.kill()
            server.wait()

    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        one = probe(f"ws://127.0.0.1:{port}/", clients=30, within_s=3.5, seed=3, progress=kill_it)
    assert one.gone and one.exit_code is Exit.UNDECIDED
    assert "went away" in one.lines[0]
    assert one.heard.period_s == pytest.approx(0.5, abs=0.05)
    if phase == "listen":
        assert one.heartbeat[0].model == "unknown", "nobody saw a rule end a client"
        assert "went away" in one.sentence
    else:
        assert {bool(told.gone) for told in one.revived.told} <= {True, False}
        assert len(one.revived.told) < 30
        assert one.revived.lost == 0, "those that died with it"
