"""Silence on real sockets: what the peer's kernel sees of it, and what it sees of a frozen client."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict

import pytest

from harness.real.network.silence import attach, attach_lossy, detach, silence_available
from reference_server.websocket.tcp_info import TcpInfo, read_tcp_info
from tests.support import require_root, require_silence, wait_until

pytestmark = pytest.mark.real

_HEALED_S = 10.0  # deadline only: the next retransmission comes within a second or two


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and the gateway's, connected over loopback."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        gateway = stack.enter_context(server.accept()[0])
        yield client, gateway


def info(sock: socket.socket) -> TcpInfo:
    found = read_tcp_info(sock)
    assert found is not None
    return found


def readable(sock: socket.socket, timeout_s: float) -> bool:
    return bool(select.select([sock], [], [], timeout_s)[0])


@pytest.mark.root
def test_data_to_a_silent_client_stays_unacknowledged_is_retransmitted_and_heals(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    require_silence()
    client, gateway = pair
    attach(client)
    assert gateway.send(b"ping") == 4, "send on a dead peer succeeds: it only fills the buffer"
    wait_until(lambda: info(gateway).retransmits >= 1, "a retransmission time-out")
    silent = info(gateway)
    assert silent.unacked >= 1
    assert silent.total_retransmits >= silent.retransmits
    assert silent.state == "established", "half-open: the peer still believes in it"
    assert gateway.send(b"ping") == 4
    assert not readable(client, 0.0)
    first_rto_us = silent.rto_us
    wait_until(lambda: info(gateway).retransmits >= 2, "the second retransmission time-out")
    assert info(gateway).rto_us > first_rto_us, "the time-out backs off"

    detach(client)
    assert readable(client, _HEALED_S)
    wait_until(lambda: info(gateway).unacked == 0, "everything acknowledged")
    received = b""
    while len(received) < 8:
        received += client.recv(8)
    assert received == b"pingping"
    assert info(gateway).retransmits == 0


@pytest.mark.root
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_kernel_drops_as_many_as_it_is_told(rate: float) -> None:
    """2,000 datagrams over loopback; the bound is five standard deviations."""
    require_silence()
    sent = 2000
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        attach_lossy(receiver, rate)
        got = 0
        for _ in range(sent):
            sender.sendto(b"?", receiver.getsockname())
            with suppress(BlockingIOError):
                got += len(receiver.recv(8))
    assert abs(got / sent - (1 - rate)) < 5 * (rate * (1 - rate) / sent) ** 0.5


def test_a_frozen_client_acknowledges_what_it_never_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    client, gateway = pair
    for _ in range(3):
        assert gateway.send(b"ping") == 4
    wait_until(lambda: info(gateway).unacked == 0, "the kernel acknowledges for its process")
    assert info(gateway).total_retransmits == 0
    assert readable(client, 0.0), "it is all there, unread"


@pytest.mark.root
def test_an_ordinary_close_says_fin_even_under_the_filter(pair: tuple[socket.socket, socket.socket]) -> None:
    require_silence()
    client, gateway = pair
    attach(client)
    client.close()
    assert readable(gateway, _HEALED_S)
    assert gateway.recv(1) == b""


@pytest.mark.root
def test_silence_is_available_to_root() -> None:
    require_root()
    available = silence_available()
    assert available.ok, available
    assert not available.help


@pytest.mark.root
def test_without_privileges_the_refusal_names_what_would_help() -> None:
    require_root()
    script = """
import encodings.idna, os  # what socket would import later, from where others may not read
from harness.real.network.silence import silence_available
os.setgroups([]); os.setgid(65534); os.setuid(65534)
available = silence_available()
print(available.ok, available.reason, available.help, sep="|")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    ok, reason, help_ = done.stdout.strip().split("|")
    if ok == "True":
        assert "tried" in reason  # stock kernels allow it to everyone
    else:
        assert "refuses a socket filter" in reason
        assert "CAP_NET_ADMIN" in help_


def test_errors_are_the_kernels_own(pair: tuple[socket.socket, socket.socket]) -> None:
    client, _ = pair
    with pytest.raises(FileNotFoundError):
        detach(client)  # ENOENT: nothing attached
    client.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        attach(client)


def test_tcp_info_of_what_is_not_a_connection_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    client, gateway = pair
    assert read_tcp_info(gateway.fileno()) is not None
    client.close()
    assert read_tcp_info(client) is None
    read_end, write_end = os.pipe()
    assert read_tcp_info(read_end) is None
    os.close(read_end)
    os.close(write_end)


def test_tcp_info_detail_is_json_ready(pair: tuple[socket.socket, socket.socket]) -> None:
    detail = asdict(info(pair[1]))
    assert detail["state"] == "established"
    assert set(detail) == set(TcpInfo.__dataclass_fields__)
    assert all(type(value) in (int, str) for value in detail.values())
