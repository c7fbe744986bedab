"""What a failure detector is: a state machine of one connection, and how it is asked. Pure: time is an argument.

From events of a connection (a time has come, a frame came in, the socket closed) to actions and a verdict. The
gateway asks with real time (`reference_server/heartbeat/scheduler.py`), the simulation with virtual time; the
objects are the same. A detector reads no clock, sets no timer and sends nothing.

    due_s has come  ── on_time ──────────►  PING, MISSED, MISSED_AND_PING, SUSPECT, NOTHING
    a frame came in ── on_inbound ───────►  due_s may move
    socket closed   ── on_socket_closed ─►  a detector that looks at sockets will find it at due_s
    it has ended    ── on_end ───────────►  what was learnt outlives the connection

How to add one: docs/write-your-own-detector.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict

from reference_server.events import Cause

__all__ = ["Action", "Detector", "DetectorSettings", "PingingDetector", "Verdict"]


class Action(StrEnum):
    """What a detector wants done now."""

    NOTHING = "nothing"
    PING = "ping"
    MISSED = "missed"  # one failure more, not yet enough
    MISSED_AND_PING = "missed_and_ping"  # the retry is due at the same moment (R = tau)
    SUSPECT = "suspect"


class Verdict(StrEnum):
    """What a detector believes."""

    ALIVE = "alive"
    SUSPECTED = "suspected"


class Detector(Protocol):
    """The failure detector of one connection. Seconds, of the caller's clock.

    A class that derives from it inherits verbs that do nothing, and states only those that mean something to it.
    It should have ``__slots__``: there is one object a connection.
    """

    __slots__ = ()

    due_s: float
    """When to call :meth:`on_time` next, at the latest; infinite: never again."""
    awaiting_answer: bool
    """Whether what is due next is a judgement that a frame still unread in the socket could avert."""
    failures: int
    """Consecutive failures counted so far."""
    verdict: Verdict

    def on_time(self, now_s: float) -> Action:
        """Say what is to be done at ``now_s``; ask again when the new ``due_s`` has come.

        `SUSPECT` is final. Before ``due_s`` there is `NOTHING` to do.
        """

    def on_inbound(self, now_s: float) -> None:
        """Take any inbound frame."""
        return None

    def on_socket_closed(self) -> None:
        """Take note that the socket is closed, where close detection has not ended the connection for it."""
        return None

    def on_end(self, cause: Cause) -> None:
        """Take note that the connection has ended, and why. Nothing is asked any more."""
        return None


class PingingDetector(Detector):
    """What the detectors share that ping every interval: how they begin, and how they end with a suspicion.

    Args:
        interval_s: T, in seconds.
        first_s: when the first ping is due.
    """

    __slots__ = ("_interval_s", "awaiting_answer", "due_s", "failures", "verdict")

    def __init__(self, interval_s: float, first_s: float) -> None:
        self._interval_s = interval_s
        self.awaiting_answer = False
        self.due_s = first_s
        self.failures = 0
        self.verdict = Verdict.ALIVE

    def _suspect(self) -> Action:
        self.verdict = Verdict.SUSPECTED
        self.due_s = float("inf")
        return Action.SUSPECT


class DetectorSettings(BaseModel):
    """Base of what a configuration says about a detector; a subclass has a ``kind`` of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cause: ClassVar[Cause] = Cause.HEARTBEAT  # that its suspicions are given
    looks_at_sockets: ClassVar[bool] = False  # and not at answers
    counts_answers: ClassVar[bool] = True  # a failure of it is a ping that was not answered

    @property
    def protocol_ping(self) -> bool:
        """Whether the heartbeat is a WebSocket ping frame. Here: it is a JSON message."""
        return False

    def faster(self, factor: float) -> Self:
        """Return it with every time divided by ``factor``. Here: there are no times in it."""
        return self

    def why_missed(self, timeout_s: float) -> str:
        """Say for people what a failure is; ``timeout_s``: the policy's deadline of an answer."""
        return f"no answer within {timeout_s:g} s"
