"""Other ways than ping and deadline to notice that a client is gone: kinds, and pure detectors of a socket's state.

From a kind in a scenario or configuration to verdicts; time and what the socket looks like are arguments. The
detector of ping and deadline itself is `liveness.py`; a client that beats by itself needs none, the idle limit
judges it.

    kind           who sends              what counts
    ping           the gateway            a missing answer
    send_errors    the gateway            a write that fails; the answer is not looked at
    client_beats   the client             no inbound frame for `session_timeout`, swept every `sweep_interval`
    state_check    the gateway, unasked   whether the socket still looks open when the next one is due
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from reference_server.liveness.heartbeat_policy import Action, LivenessPolicy, Verdict

__all__ = [
    "ClientBeats",
    "GatewayDetector",
    "Ping",
    "SendErrorDetector",
    "SendErrors",
    "SocketDetector",
    "StateCheck",
    "StateCheckDetector",
    "socket_detector",
]


class _Kind(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ping(_Kind):
    """Ping and deadline, as the policy says: missing answers are counted."""

    kind: Literal["ping"] = "ping"
    frame: Annotated[
        Literal["json", "ping"],
        Field(
            description="json: the application answers; ping: protocol ping, a frozen page still answers"
        ),
    ] = "json"


class SendErrors(_Kind):
    """A heartbeat every `heartbeat_interval` of which only a failing write counts, `max_failures` at once."""

    kind: Literal["send_errors"] = "send_errors"


class ClientBeats(_Kind):
    """The client beats every `heartbeat_interval`; the idle limit finds the one that is silent."""

    kind: Literal["client_beats"] = "client_beats"


class StateCheck(_Kind):
    """A ping every `heartbeat_interval` whose answer nobody awaits, and a look whether the socket is open.

    The sweep, every `sweep_interval`, looks at all sockets as well where ``cleans_up``.
    """

    kind: Literal["state_check"] = "state_check"
    cleans_up: Annotated[
        bool, Field(description="end the session of a closed socket; false: only stop pinging it")
    ] = True


GatewayDetector = Annotated[
    Ping | SendErrors | ClientBeats | StateCheck, Field(discriminator="kind")
]
"""The kinds that the reference gateway has; the simulation has more (`scenarios/schema.py`)."""


class SendErrorDetector:
    """Counts writes that fail, one heartbeat interval apart; after a failure it tries again at once.

    On a dead peer a write succeeds until the kernel gives the connection up, so T_D = U + TCP's give-up at the
    least, however small ``max_failures`` and the interval are.
    """

    __slots__ = ("_interval_s", "_max", "due_s", "failures", "verdict")
    awaiting_answer = False

    def __init__(self, policy: LivenessPolicy, first_s: float) -> None:
        self._interval_s = _interval_s(policy)
        self._max = policy.max_failures
        self.due_s = first_s
        self.failures = 0
        self.verdict = Verdict.ALIVE

    def on_time(self, now_s: float, socket_open: bool) -> Action:
        """Say what is to be done: `PING` to write, `MISSED` (then ask again at once), or `SUSPECT`."""
        if self.verdict is Verdict.SUSPECTED or now_s < self.due_s:
            return Action.NOTHING
        if socket_open:
            self.failures = 0
            self.due_s = now_s + self._interval_s
            return Action.PING
        self.failures += 1
        if self.failures < self._max:
            return Action.MISSED  # due at once: no sleep stands between two attempts
        self.verdict = Verdict.SUSPECTED
        self.due_s = float("inf")
        return Action.SUSPECT

    def on_inbound(self, now_s: float) -> None:
        """Take a frame: it means nothing to this detector."""


class StateCheckDetector:
    """Looks at the socket every heartbeat interval. A half-open socket looks open until the kernel gives up."""

    __slots__ = ("_cleans_up", "_interval_s", "due_s", "failures", "verdict")
    awaiting_answer = False

    def __init__(self, policy: LivenessPolicy, first_s: float, *, cleans_up: bool) -> None:
        self._interval_s = _interval_s(policy)
        self._cleans_up = cleans_up
        self.due_s = first_s
        self.failures = 0
        self.verdict = Verdict.ALIVE

    def on_time(self, now_s: float, socket_open: bool) -> Action:
        """Say what is to be done: `PING`, `SUSPECT`, or `NOTHING` (for ever, where ``due_s`` is infinite)."""
        if now_s < self.due_s:
            return Action.NOTHING
        if socket_open:
            self.due_s = now_s + self._interval_s
            return Action.PING
        self.due_s = float("inf")
        if not self._cleans_up:
            return Action.NOTHING
        self.verdict = Verdict.SUSPECTED
        return Action.SUSPECT

    def on_inbound(self, now_s: float) -> None:
        """Take a frame: it means nothing to this detector."""


SocketDetector = SendErrorDetector | StateCheckDetector


def socket_detector(
    kind: SendErrors | StateCheck, policy: LivenessPolicy, first_s: float
) -> SocketDetector:
    """Return the detector of a connection whose first look is due at ``first_s``.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    if isinstance(kind, SendErrors):
        return SendErrorDetector(policy, first_s)
    return StateCheckDetector(policy, first_s, cleans_up=kind.cleans_up)


def _interval_s(policy: LivenessPolicy) -> float:
    if policy.heartbeat_interval is None:
        raise ValueError("this policy has no heartbeat: heartbeat_interval is null")
    return policy.heartbeat_interval
