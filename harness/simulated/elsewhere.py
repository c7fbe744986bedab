"""Logins. The user of a dead client tries one from another device: how long is that user locked out?"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from simpy import Event

from harness.faults import PlannedFault
from harness.simulated.store import StoreDown
from reference_server.events import EventKind

if TYPE_CHECKING:
    from harness.simulated.clients import Client, Surroundings

__all__ = ["log_in", "log_in_elsewhere"]


def log_in(client: Client, around: Surroundings) -> Generator[Event, None, tuple[str | None, str]]:
    """Log a client's user in once; returns the session id or None, and the code of a refusal."""
    wait = around.clock.env.timeout
    one_way_s = around.network.round_trip_s() / 2
    yield wait(one_way_s)
    node = around.nodes.pick(client.home)
    if node is None:
        yield wait(one_way_s)
        return None, "no_gateway"
    if node.loop.takes_time:
        # It waits for the loop; its work there is counted in the handshake.
        yield wait(node.loop.reserve(0.0) - around.clock.now_s)
    session_id, refusal = None, "already_online"
    try:
        session_id = node.login(client)
    except StoreDown:
        refusal = "store_unavailable"
    yield wait(one_way_s)
    return session_id, refusal


def log_in_elsewhere(
    client: Client, fault: PlannedFault, after_s: float
) -> Generator[Event, None, None]:
    """Try ``after_s`` from now and after each refusal again, until a login is accepted; a SimPy process."""
    around, relogin = client.around, client.around.reconnect.relogin
    assert relogin is not None
    wait = around.clock.env.timeout
    began_s = around.clock.now_s
    yield wait(after_s)
    while True:
        detail: dict[str, Any] = {
            "fault_id": fault.fault_id, "user_id": client.user_id, "relogin": True
        }  # fmt: skip
        session_id, refusal = yield from log_in(client, around)
        if session_id is not None:
            detail |= {"client": client.index, "waited_s": around.clock.now_s - began_s}
            around.log.write(EventKind.LOGGED_IN, session_id=session_id, detail=detail)
            return
        detail["code"] = refusal
        around.log.write(EventKind.LOGIN_REFUSED, detail=detail)
        yield wait(relogin.retry)
