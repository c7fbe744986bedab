"""The user of a dead client, at another device: tries to log in until it may, then stays connected.

From the moment of a fault to `login_refused` and `logged_in` events; how long the user was locked out is
measured from them.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from websockets.exceptions import InvalidHandshake

from harness.faults import PlannedFault
from harness.real.target import LoginRefused, LoginUnavailable
from harness.real.wire import ConnectionEnded, Wire
from reference_server.events import EventKind
from reference_server.frames import HEARTBEAT

if TYPE_CHECKING:
    from harness.real.generator import Generator

__all__ = ["Relogin"]

_HEARTBEAT_TEXT = HEARTBEAT[2:]


class Relogin:
    """Begins at once; kept until the run's end, so that its connection stays open."""

    __slots__ = ("_attempts", "_began_s", "_client", "_fault", "_g", "_user_id", "_wire")

    def __init__(
        self,
        client: int,
        user_id: str,
        fault: PlannedFault,
        began_s: float,
        generator: Generator,
    ) -> None:
        self._client, self._user_id, self._fault, self._g = client, user_id, fault, generator
        self._began_s = began_s  # when the fault took effect
        self._attempts = count()
        self._wire: Wire | None = None
        self._next()

    def _next(self) -> None:
        g, relogin = self._g, self._g.scenario.reconnect.relogin
        assert relogin is not None and self._fault.relogin_after_s is not None
        # On a fixed grid: the time that an answer takes must not add up.
        wait_s = self._fault.relogin_after_s + next(self._attempts) * relogin.retry
        g.swarm.at(self._began_s + wait_s / g.scenario.speedup, lambda: g.swarm.lend(self._attempt))

    def _attempt(self) -> None:
        """Log in; blocks the greenlet."""
        g = self._g
        if g.now_s() >= g.horizon_s:
            return
        detail: dict[str, Any] = {
            "fault_id": self._fault.fault_id,
            "user_id": self._user_id,
            "relogin": True,
        }
        try:
            session_id = g.gateways.login(self._user_id)
        except (LoginRefused, LoginUnavailable) as error:
            code = error.code if isinstance(error, LoginRefused) else f"unavailable: {error}"
            g.log(EventKind.LOGIN_REFUSED, detail=detail | {"code": code})
            self._next()
            return
        detail |= {"client": self._client, "waited_s": g.now_s() - self._began_s}
        g.log(EventKind.LOGGED_IN, session_id=session_id, detail=detail)
        try:
            wire, _ = g.gateways.connect(self._client)
            wire.send_json({"type": "auth", "session_id": session_id})
        except (ConnectionEnded, InvalidHandshake, OSError) as error:
            g.on_request("WSC", "connect elsewhere", 0.0, error)
            return
        self._wire = wire
        g.swarm.watch(wire.sock.fileno(), self)

    def on_readable(self) -> None:
        """Answer heartbeats; take the place of the dead device where that is the rule."""
        assert self._wire is not None
        try:
            for frame in self._wire.frames(self._wire.read()):
                if frame.data == _HEARTBEAT_TEXT:
                    self._wire.send(self._g.pong.take())
        except ConnectionEnded as end:
            self._g.on_request("WSC", "connect elsewhere", 0.0, end)
