"""Detectors that look at the socket, not at answers: a failing write, or a look whether it is open. Pure.

From beats that are due and a socket that closes to failures and a suspicion. A half-open socket looks open until
the kernel gives it up (924.6 s or more at Linux defaults), so neither sees a silent death before that.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reference_server.events import Cause
from reference_server.liveness.detector import Action, DetectorSettings, PingingDetector
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["SendErrorDetector", "SendErrors", "StateCheck", "StateCheckDetector"]


class SendErrors(DetectorSettings):
    """A heartbeat every `heartbeat_interval` of which only a failing write counts, `max_failures` at once."""

    kind: Literal["send_errors"] = "send_errors"
    cause = Cause.SEND_ERROR
    looks_at_sockets = True
    counts_answers = False


class StateCheck(DetectorSettings):
    """A ping every `heartbeat_interval` whose answer nobody awaits, and a look whether the socket is open.

    The sweep, every `sweep_interval`, looks at all sockets as well where ``cleans_up``.
    """

    kind: Literal["state_check"] = "state_check"
    cause = Cause.STATE_CHECK
    looks_at_sockets = True
    counts_answers = False
    cleans_up: Annotated[
        bool, Field(description="end the session of a closed socket; false: only stop pinging it")
    ] = True

    @property
    def protocol_ping(self) -> bool:
        """As a library's own keepalive sends it."""
        return True


class _SocketDetector(PingingDetector):
    """What both share: a beat every interval while the socket is open. Frames mean nothing to them."""

    __slots__ = ("_open",)

    def __init__(self, policy: LivenessPolicy, first_s: float) -> None:
        super().__init__(policy.interval_s, first_s)
        self._open = True

    def on_socket_closed(self) -> None:
        """Find it closed at the next look."""
        self._open = False

    def on_time(self, now_s: float) -> Action:
        """Say what is to be done: `PING` to write; what else is `_on_closed`'s to say."""
        if now_s < self.due_s:
            return Action.NOTHING
        if not self._open:
            return self._on_closed()
        self.due_s = now_s + self._interval_s
        return Action.PING

    def _on_closed(self) -> Action:
        return self._suspect()


class SendErrorDetector(_SocketDetector):
    """Counts writes that fail, one heartbeat interval apart; after a failure it tries again at once.

    On a dead peer a write succeeds until the kernel gives the connection up, so T_D = U + TCP's give-up at the
    least, however small ``max_failures`` and the interval are.
    """

    __slots__ = ("_max",)

    def __init__(self, policy: LivenessPolicy, first_s: float) -> None:
        super().__init__(policy, first_s)
        self._max = policy.max_failures

    def _on_closed(self) -> Action:
        self.failures += 1
        if self.failures < self._max:
            return Action.MISSED  # due at once: no sleep stands between two attempts
        return super()._on_closed()


class StateCheckDetector(_SocketDetector):
    """Looks at the socket every heartbeat interval: closed is a suspicion, or the end of all looks."""

    __slots__ = ("_cleans_up",)

    def __init__(self, policy: LivenessPolicy, first_s: float, *, cleans_up: bool) -> None:
        super().__init__(policy, first_s)
        self._cleans_up = cleans_up

    def _on_closed(self) -> Action:
        if self._cleans_up:
            return super()._on_closed()
        self.due_s = float("inf")
        return Action.NOTHING
