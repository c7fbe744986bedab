"""The witnesses of a server that is not ours: the kernel's word on a socket, lines of its output."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from harness.real.targets.observer import LogWitness, cause_of
from harness.real.targets.sock_diag import SockDiag, TcpState, address_of
from reference_server.events import Cause


@pytest.mark.parametrize("dual_stack", [False, True])
def test_the_kernel_tells_when_the_servers_end_is_closed(dual_stack: bool) -> None:
    family = socket.AF_INET6 if dual_stack else socket.AF_INET
    server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual_stack)
    with closing(server), SockDiag() as diag:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        ends = ("127.0.0.1", port), client.getsockname()
        assert diag.state(*ends) == TcpState.ESTABLISHED
        client.shutdown(socket.SHUT_WR)
        assert diag.holds(*ends)  # it has heard of the peer's end, and holds its own
        accepted.close()
        assert not diag.holds(*ends)
        client.close()
        assert not diag.holds(*ends)


def test_an_address_is_read_as_it_is_written() -> None:
    assert address_of("127.0.0.1:80") == ("127.0.0.1", 80)
    assert address_of("[::1]:8080") == ("::1", 8080)


def test_a_line_names_its_connection_or_the_latest_of_its_user() -> None:
    by_client = LogWitness("^gone {client}, (?P<cause>.*)")
    assert by_client.suspicion("gone c12x3, ping timeout") == ("c12x3", Cause.HEARTBEAT)
    assert by_client.suspicion("come c12x3") is None
    by_user = LogWitness("{user} is gone")
    assert by_user.suspicion("user-5 is gone") is None
    by_user.connected("user-5", "c5x1")
    by_user.connected("user-5", "c5x2")
    assert by_user.suspicion("user-5 is gone") == ("c5x2", None)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("ping timeout", Cause.HEARTBEAT),
        ("1011", Cause.HEARTBEAT),
        ("ECONNRESET: connection reset by peer", Cause.TCP_RESET),
        ("client namespace disconnect", Cause.CLOSE_FRAME),
        ("1000", Cause.CLOSE_FRAME),
        ("1005", None),
        ("1006", None),
    ],
)
def test_a_servers_own_words_are_a_cause_only_where_they_say_one(said: str, cause: Cause | None) -> None:
    assert cause_of(said) is cause
