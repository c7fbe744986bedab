"""The user of a dead client tries to log in from another device: how long is that user locked out?"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from simpy import Event

from harness.faults import PlannedFault
from reference_server.events import EventKind

if TYPE_CHECKING:
    from harness.simulated.clients import Client

__all__ = ["log_in_elsewhere"]


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
        one_way_s = around.network.round_trip_s() / 2
        yield wait(one_way_s)
        session_id = around.gateway.login(client)
        yield wait(one_way_s)
        if session_id is not None:
            detail |= {"client": client.index, "waited_s": around.clock.now_s - began_s}
            around.log.write(EventKind.LOGGED_IN, session_id=session_id, detail=detail)
            return
        detail["code"] = "already_online"
        around.log.write(EventKind.LOGIN_REFUSED, detail=detail)
        yield wait(relogin.retry)
