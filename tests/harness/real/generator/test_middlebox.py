"""A box on the path, on virtual time: what restarts its idle timer where, and what it does when that is over."""

from __future__ import annotations

from typing import Any

import pytest

from harness.real.generator.middlebox import BoxRules, Middlebox
from harness.real.generator.websocket import ConnectionEnded
from reference_server.events import Cause
from scenarios.network import Nat

N_S = 60.0
T_S = 60.0


class Recorder:
    """A connection that only notes what is done to it."""

    def __init__(self, blind: bool = False) -> None:
        self.done: list[Any] = []
        self.blind = blind

    def unseen(self, at: str) -> bool:
        return self.blind

    def vanish(self) -> None:
        self.done.append("vanish")

    def reset_gateway(self) -> None:
        self.done.append("reset gateway")

    def end(self, cause: Cause, *, beyond_cut: bool) -> None:
        self.done.append((cause, beyond_cut))
        raise ConnectionEnded(cause)


def box(connection: Recorder | None = None, **keys: Any) -> Middlebox:
    nat = Nat.model_validate({"idle_timeout": N_S} | keys)
    return Middlebox(connection or Recorder(), BoxRules(nat, N_S, None), 0.0)


def exchange(one: Middlebox, sent_s: float, round_trip_s: float) -> bool:
    """A ping and its answer, as a client of the generator sees them: the whole round trip is its own wait."""
    if not one.read(sent_s, is_data=True, round_trip_s=round_trip_s):
        return False
    return one.sends(sent_s + round_trip_s, is_data=True, round_trip_s=round_trip_s)


@pytest.mark.parametrize(
    ("at", "round_trips_s", "survives"),
    [
        # Gap at the client's end: T + (rtt2 − rtt1)/2. At the gateway's: T − rtt1.
        ("client", (0.04, 0.04), True),
        ("client", (0.05, 0.04), True),
        ("client", (0.04, 0.05), False),
        ("gateway", (0.04, 0.04), True),
        ("gateway", (0.04, 0.50), True),
    ],
)
def test_pings_as_far_apart_as_the_idle_timer(
    at: str, round_trips_s: tuple[float, float], survives: bool
) -> None:
    first_s, second_s = round_trips_s
    one = box(at=at)
    assert exchange(one, 10.0, first_s)
    assert exchange(one, 10.0 + T_S, second_s) is survives


@pytest.mark.parametrize(
    ("counts", "kept_by"),
    [
        ("any", {"ping", "pong", "data in", "data out"}),
        ("data", {"data in", "data out"}),
        ("to_client", {"ping", "data in"}),
        ("to_gateway", {"pong", "data out"}),
    ],
)
def test_what_counts(counts: str, kept_by: set[str]) -> None:
    for packet in ("ping", "pong", "data in", "data out"):
        one = box(counts=counts)
        take = one.read if packet in ("ping", "data in") else one.sends
        assert take(50.0, is_data=packet.startswith("data"))
        assert one.look(N_S) == (50.0 + N_S if packet in kept_by else None), packet


def test_drop_lets_all_vanish() -> None:
    connection = Recorder()
    one = box(connection)
    assert one.look(N_S) is None
    assert not one.read(70.0, is_data=True) and not one.sends(70.0, is_data=True)
    assert connection.done == ["vanish"]


def test_reset_tells_the_sender_alone_and_both_if_that_is_the_client() -> None:
    connection = Recorder()
    one = box(connection, expiry="reset")
    assert one.look(N_S) is None
    assert connection.done == [], "nobody is told before the next packet"
    assert not one.read(70.0, is_data=True)
    assert connection.done == ["reset gateway"]
    with pytest.raises(ConnectionEnded, match="tcp_reset"):
        one.sends(80.0, is_data=True)
    assert connection.done[1:] == [(Cause.TCP_RESET, True)]


def test_close_ends_it_for_both_and_next_to_the_gateway_beyond_a_cut() -> None:
    for at, beyond_cut in (("client", False), ("gateway", True)):
        connection = Recorder()
        one = box(connection, expiry="close", at=at)
        assert one.look(N_S - 1) == N_S
        with pytest.raises(ConnectionEnded, match="tcp_fin"):
            one.look(N_S)
        assert connection.done == [(Cause.TCP_FIN, beyond_cut)]


def test_pings_that_the_client_cannot_see_keep_it() -> None:
    blind = Recorder(blind=True)
    assert box(blind).look(N_S) == 2 * N_S
    assert box(blind, counts="to_gateway").look(N_S) is None, "the client says nothing, and it knows that"


def test_a_packet_later_than_the_timer_is_too_late_even_if_nobody_has_looked() -> None:
    connection = Recorder()
    assert not box(connection).read(N_S + 0.001, is_data=True)
    assert connection.done == ["vanish"]
