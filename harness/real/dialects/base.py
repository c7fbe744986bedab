"""What a dialect is: messages of a WebSocket in, answers and what they tell out. Sans I/O.

    handshake done ── opening() ─────►  messages to send
    a message      ── receive(m) ────►  Answer, Ready, PeerGone, Refused
    a beat is due  ── beat() ────────►  a message; None: a protocol ping

Pings of the WebSocket protocol are answered by the client itself. An object is one connection of one client, so it has
``__slots__``.

    class Echo(Dialect):
        name = "echo"
        def receive(self, message):
            return [Answer(message)]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from reference_server.errors import FlatlineError

__all__ = ["Answer", "Dialect", "DialectError", "Item", "Message", "PeerGone", "Ready", "Refused", "Who"]

Message = str | bytes
"""One WebSocket message: text or binary."""


class DialectError(FlatlineError):
    """A dialect cannot be used: it is not there, or its options are wrong."""


@dataclass(frozen=True, slots=True)
class Who:
    """Whose connection it is: a name of this very connection, the user's, the client's number, its own beat.

    Attributes:
        beat_s: real seconds from one beat of the client to the next; infinite: it sends none.
        watched: the users whose going it is to be told of, if its server does that only for who asks.
        taken: what the login's answer gave, by the names of the target file.
    """

    client: str
    user: str
    index: int
    beat_s: float
    watched: tuple[str, ...] = ()
    taken: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> Mapping[str, object]:
        """What stands for the placeholders of a client."""
        return {"client": self.client, "user": self.user, "index": self.index, **self.taken}


@dataclass(frozen=True, slots=True)
class Answer:
    """A message to send. ``heartbeat``: it answers one, so a fault that delays answers delays it."""

    message: Message
    heartbeat: bool = True


@dataclass(frozen=True, slots=True)
class Ready:
    """The server has taken the client in."""


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The server says that another client has gone: its name or its user's."""

    who: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The server does not take the client in."""

    reason: str


Item = Answer | Ready | PeerGone | Refused


class Dialect:
    """One client's side of one connection. A subclass states what differs from plain WebSocket."""

    __slots__ = ("who",)

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    shown: ClassVar[str] = (
        "derived"  # run: interoperation is tested with a real server; derived: after its document
    )
    subprotocol: ClassVar[str | None] = None
    ready_at_once: bool = True  # with the handshake; else `Ready` comes

    def __init__(self, who: Who, **options: Any) -> None:
        self.who = who
        if options:
            raise DialectError(f"dialect {self.name}: unknown options {', '.join(options)}; allowed: none")

    def opening(self) -> Iterable[Message]:
        """What is sent right after the handshake."""
        return ()

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a message. What is no message of the dialect is passed over: never raises for what a server sends."""
        return ()

    def beat(self) -> Message | None:
        """A heartbeat of the client's own; None: a protocol ping."""
        return None
