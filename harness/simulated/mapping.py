"""A middlebox's mapping of one connection: kept by traffic, forgotten after an idle time."""

from __future__ import annotations

from collections.abc import Callable

from harness.simulated.clock import Clock
from harness.simulated.connection import Connection
from scenarios.network import Nat

__all__ = ["forget_when_idle", "put_behind"]


def forget_when_idle(
    clock: Clock, connection: Connection, idle_s: float, since_s: float, expired: Callable[[], None]
) -> None:
    """Call `expired` once the connection had no packet for `idle_s`, either direction.

    Args:
        clock: simulated time.
        connection: whose mapping it is; nothing happens any more once it has ended.
        idle_s: the middlebox's idle timeout.
        since_s: packets up to then made no mapping: the first one after it does.
        expired: the mapping is gone.
    """

    def check() -> None:
        if connection.client.connection is not connection or not connection.open:
            return
        packet_s = connection.last_packet_s(clock.now_s)
        # Without a mapping yet, the next packet is still to come: no expiry before idle_s from now.
        expires_s = packet_s + idle_s if packet_s > since_s else clock.now_s + idle_s
        if clock.now_s < expires_s:
            clock.at(expires_s, check)
        else:
            expired()

    clock.after(idle_s, check)


def put_behind(clock: Clock, connection: Connection, nat: Nat) -> None:
    """Have a new connection's packets pass a middlebox that forgets."""

    def expired() -> None:
        connection.client.disturb()
        connection.forget(nat.expiry)

    forget_when_idle(clock, connection, nat.idle_timeout, -1.0, expired)
