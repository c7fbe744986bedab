"""One WebSocket in the model: what the gateway's end, its kernel and the way know of it. State only.

Who acts on it: `gateway.py` (decisions), `network.py` (messages), `clients.py` (the other end). Of its two ends it
knows the protocols stated here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from harness.simulated.clock import Alarm
from reference_server.events import Cause
from reference_server.liveness.detector import Detector
from scenarios.faults import PlannedFault

__all__ = ["NEVER_S", "Box", "ClientEnd", "Connection", "Deliver", "GatewayEnd"]

NEVER_S = math.inf

Deliver = Callable[[float], None]
"""What becomes of a message that reaches the client; it is told how long that packet took, seconds."""


@dataclass(frozen=True, slots=True)
class Box:
    """What a box on the way sees and counts (`middle.py`); the same for every connection."""

    at_gateway: bool  # where it stands; else at the client's end
    to_client: bool  # counts what goes there
    to_gateway: bool
    pings: bool  # counts heartbeats and their answers
    probes: bool  # counts the kernel's probes

    def saw_exchange_s(self, at_client_s: float, answer_s: float) -> float:
        """When a ping or its answer passed last that counts; never: minus infinity."""
        if not self.pings:
            return -math.inf
        if not self.at_gateway:
            return at_client_s
        return answer_s if self.to_gateway else 2 * at_client_s - answer_s


class ClientEnd(Protocol):
    """The client, as its connections, the network and the gateway see it."""

    index: int
    logins: int  # of its user, so far
    user_id: str
    traced: bool  # its heartbeats are logged one by one
    alive: bool
    way_open: bool
    frozen: bool
    connection: Connection | None  # the one that it is on
    answers_after_s: Callable[[], float] | None  # its answers wait so long
    loses: Callable[[], bool] | None  # whether the next packet to it gets lost
    healing: PlannedFault | None  # over, but not yet known to be survived

    def on_ping(self, connection: Connection, one_way_s: float) -> None:
        """A ping is here; its answer takes this long back."""

    def on_pong(self, connection: Connection) -> None:
        """The answer to a beat of its own is here."""

    def on_end(self, connection: Connection, cause: Cause, code: int | None = None) -> None:
        """The connection's end is here: a close frame with this code, FIN, RST, or its kernel's give-up."""

    def disturb(self) -> None:
        """Something is about to happen to the client or its way."""


class GatewayEnd(Protocol):
    """The gateway's node, as its connections, the network and the clients see it."""

    node: str

    def on_frame(self, connection: Connection) -> None:
        """A frame is here."""

    def on_data(self, connection: Connection) -> None:
        """A frame of application data is here."""

    def on_client_beat(self, connection: Connection) -> None:
        """A beat of the client's own is here."""

    def on_end(self, connection: Connection, cause: Cause) -> None:
        """The connection's end is here, or the kernel has given it up."""

    def suspect(self, connection: Connection, cause: Cause) -> None:
        """Decide that a connection is over."""

    def due_earlier(self, connection: Connection) -> None:
        """Something is due before the moment that the connection's alarm waits for."""

    def watch(self, connection: Connection, user_ids: Iterable[str]) -> None:
        """A client asks to be told about other users."""


@dataclass(slots=True, eq=False)
class Connection:
    """A connection from its authentication on. Scenario seconds.

    ``answer_s`` is the predicted arrival of the outstanding ping's answer at the gateway, ``at_client_s``
    when that ping reaches the client; :data:`NEVER_S` where nothing is predicted.
    """

    gateway: GatewayEnd
    client: ClientEnd
    connection_id: str
    session_id: str
    heard_s: float  # last sign of life at the gateway
    user_id: str = field(init=False)
    traced: bool = field(init=False)
    packet_s: float = field(init=False)  # last packet at the client's end, either direction
    arrival_s: float = field(init=False)  # of the last message sent to the client
    open: bool = True
    lost: Cause | None = None  # its socket is gone, and close detection does not act on that
    orphaned: bool = False  # its node died with it, and nobody has said so yet
    queued: bool = False  # its heartbeat waits for the loop, not for its alarm
    detector: Detector | None = None
    alarm: Alarm[Connection] | None = None
    alarm_unset: bool = False  # the alarm waits for the predicted answer before it is set
    answer_alarm: Alarm[Connection] | None = None  # for the next predicted answer; None: it is under way
    refresh_due_s: float = NEVER_S  # the next frame from then on has its records refreshed
    at_client_s: float = NEVER_S
    answer_s: float = NEVER_S
    unacked: list[Deliver] = field(default_factory=list)
    unacked_since_s: float | None = None
    tries: int = 0  # retransmissions of the oldest unacknowledged message
    probed: bool = False  # the last message that got lost came with TCP's tail-loss probe
    nat_drops: bool = False  # a middlebox forgot it, and drops
    nat_resets: bool = False  # a middlebox forgot it, and answers with RST
    box: Box | None = None  # one that watches it
    seen_s: float = -math.inf  # when that saw something last that counts
    up: list[Callable[[], None]] = field(default_factory=list)  # sent by the client, unacknowledged
    up_since_s: float | None = None
    ended_between: bool = False  # a box has closed it, and the client's end is cut
    # Frames that wait for their turn, where reading takes long: how long each takes, and what reads it.
    unread: deque[tuple[float, Callable[[], None]]] | None = None
    watching: tuple[str, ...] = ()
    records_kept: bool = True  # its session may still be resumed, or is in use

    def __post_init__(self) -> None:
        self.user_id = self.client.user_id
        self.traced = self.client.traced
        self.packet_s = self.arrival_s = self.heard_s

    @property
    def record_key(self) -> tuple[str, str, str]:
        """Its session, its user, and what marks the records of both as its own."""
        return self.session_id, self.user_id, self.connection_id

    @property
    def passes(self) -> bool:
        """Whether a packet passes the client's end of the way now."""
        return self.client.way_open and not self.nat_drops and not self.nat_resets

    def delivers(self) -> bool:
        """Whether a packet that is at the client's end now gets through. Ask once a packet: loss throws dice."""
        loses = self.client.loses
        return self.passes and (loses is None or not loses())

    @property
    def undisturbed(self) -> bool:
        """Whether nothing is in the way of an exchange, and nobody wants to see its single steps."""
        client = self.client
        return (
            client.connection is self
            and client.way_open
            and not client.frozen
            and client.answers_after_s is None
            and client.loses is None
            and client.healing is None
            and self.unacked_since_s is None
            and self.up_since_s is None
            and not (self.traced or self.nat_drops or self.nat_resets)
        )

    def forget(self, expiry: str) -> None:
        """A middlebox forgot it, and from now on drops its packets or answers them with RST."""
        if expiry == "reset":
            self.nat_resets = True
        else:
            self.nat_drops = True

    def apply_due_answer(self, now_s: float) -> None:
        """Let a predicted answer that is due by now have arrived."""
        answer_s = self.answer_s
        if answer_s <= now_s:
            self.heard_s = answer_s
            self.exchanged()
            if self.detector is not None:
                self.detector.on_inbound(answer_s)

    def exchanged(self) -> None:
        """The predicted ping and answer have passed."""
        self.packet_s = self.at_client_s
        if self.box is not None:
            self.seen_s = max(self.seen_s, self.box.saw_exchange_s(self.at_client_s, self.answer_s))
        self.answer_s = NEVER_S

    def last_packet_s(self, now_s: float) -> float:
        """When the last packet passed the client's end."""
        self.apply_due_answer(now_s)
        return self.at_client_s if self.answer_s < NEVER_S and self.at_client_s <= now_s else self.packet_s
