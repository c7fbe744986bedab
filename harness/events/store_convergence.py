"""When does the store agree with the clients again after an incident? Pure: from events and answers to events.

Says which sessions to ask for and judges what the store has of them; reads no clock, no file and no socket
(`harness/real/store_watch/process.py` does, and the model's store watch).

Hit by an incident of a node are the sessions whose last connection is on it; by one of the store those of
every connected client. A record that names the connection that a crash or a drain has ended is a ghost. A
session agrees when both of its records name its client's living connection, or, where its client is dead or
has left it, when they are gone. A session is counted as agreeing the first time that both of its records do, and
is not watched afterwards. Sessions whose client meets a planned fault during the incident are excluded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reference_server.events import Event, EventKind, Source

__all__ = ["WANTED", "Records", "StoreConvergence"]

WANTED = frozenset(
    {
        EventKind.LOGGED_IN,
        EventKind.CONNECTED,
        EventKind.DISCONNECTED,
        EventKind.SESSION_UNKNOWN,
        EventKind.FAULT_INJECTED,
        EventKind.FAULT_RECOVERED,
        EventKind.INCIDENT_STARTED,
        EventKind.INCIDENT_ENDED,
    }
)
"""The kinds of events that `take` makes use of."""

Records = tuple[str | None, str | None]
"""What the store has of a session: its owner, and ``session|owner`` of its user's status. None: no such record."""


@dataclass(slots=True)
class _Session:
    """What its client has said of it."""

    user_id: str
    node: str = ""
    connection_id: str = ""
    connected: bool = False
    dead: bool = False
    left: bool = False

    @property
    def lives(self) -> bool:
        return self.connected and not self.dead and not self.left


@dataclass(slots=True)
class _Incident:
    """An incident whose marks are still in the store."""

    incident_id: str
    cuts_connections: bool  # all of the node's: a record that names one is a ghost
    node: str
    at_s: float
    waits: bool  # a stalled node says nothing before it goes on
    hit: dict[str, str] = field(default_factory=dict)  # session -> its connection at the time
    differ: set[str] = field(default_factory=set)
    ghosts: set[str] = field(default_factory=set)
    ghosts_gone: bool = False
    difference_seen_s: float | None = None  # when the last question was asked that found a difference
    ghost_seen_s: float | None = None  # likewise, a ghost


class StoreConvergence:
    """Follows every incident of a run until the store agrees with the clients again.

    Args:
        source: whose the events are that it returns.
    """

    def __init__(self, source: Source = Source.STORE) -> None:
        self._source = source
        self._sessions: dict[str, _Session] = {}
        self._of_user: dict[str, str] = {}
        self._open: list[_Incident] = []

    def take(self, event: Event) -> None:
        """Take note of a client's event, or of an incident."""
        if event.kind is EventKind.INCIDENT_STARTED:
            self._begin(event)
        elif event.kind is EventKind.INCIDENT_ENDED:
            for incident in self._open:
                if incident.incident_id == event.detail["incident_id"]:
                    incident.waits = False
        elif event.session_id:
            self._of_client(event)

    def _of_client(self, event: Event) -> None:
        one = self._sessions.get(event.session_id)
        if one is None:
            if event.kind not in (EventKind.LOGGED_IN, EventKind.CONNECTED):
                return  # of a session that its client has left
            user_id = str(event.detail.get("user_id", ""))
            one = self._sessions[event.session_id] = _Session(user_id)
            one.left = self._of_user.get(user_id, event.session_id) != event.session_id
        before = None
        match event.kind:
            case EventKind.LOGGED_IN:
                one.user_id = str(event.detail.get("user_id", one.user_id))
                one.left = False
                before = self._of_user.get(one.user_id)
                if before in self._sessions and before != event.session_id:
                    self._sessions[before].left = True
                self._of_user[one.user_id] = event.session_id
            case EventKind.CONNECTED:
                one.node, one.connection_id, one.connected = event.node, event.connection_id, True
                one.dead = False
            case EventKind.DISCONNECTED:
                one.connected = False
            case EventKind.SESSION_UNKNOWN:
                one.connected, one.left = False, True
            case EventKind.FAULT_INJECTED:
                one.dead = True
            case EventKind.FAULT_RECOVERED:
                one.dead = False
        for incident in self._open:
            if event.time_s <= incident.at_s:  # clients write with a delay: it was so at the time
                self._consider(incident, event.session_id, one)
            elif event.kind is EventKind.FAULT_INJECTED:
                incident.differ.discard(event.session_id)
                incident.ghosts.discard(event.session_id)
        self._forget_if_left(event.session_id)
        if before is not None:
            self._forget_if_left(before)

    def _forget_if_left(self, session_id: str) -> None:
        """Forget a session that its client has left, and that no open incident has hit: nobody asks for it again."""
        one = self._sessions.get(session_id)
        if one is not None and one.left and not any(session_id in each.hit for each in self._open):
            del self._sessions[session_id]

    def _begin(self, event: Event) -> None:
        cuts, stops = bool(event.detail["cuts_connections"]), bool(event.detail["stops_loop"])
        incident = _Incident(event.detail["incident_id"], cuts, event.node, event.time_s, stops)
        for session_id, one in self._sessions.items():
            self._consider(incident, session_id, one)
        self._open.append(incident)

    @staticmethod
    def _consider(incident: _Incident, session_id: str, one: _Session) -> None:
        """Put a session into an incident, or out of it, by what its client had said until then."""
        if incident.node:
            hit = bool(one.connection_id) and one.node == incident.node and not one.left
            hit = hit and (one.connected or one.dead)
        else:
            hit = one.lives
        for found in (incident.differ, incident.ghosts):
            found.discard(session_id)
        incident.hit.pop(session_id, None)
        if hit:
            incident.hit[session_id] = one.connection_id
            incident.differ.add(session_id)
            if incident.cuts_connections:
                incident.ghosts.add(session_id)

    @property
    def is_open(self) -> bool:
        """Whether an incident has not come to its end in the store."""
        return bool(self._open)

    def questions(self) -> dict[str, str]:
        """Return the sessions to ask the store for now, with their users."""
        asked: dict[str, str] = {}
        for incident in self._open:
            if not incident.waits:
                for session_id in (*incident.differ, *incident.ghosts):
                    asked[session_id] = self._sessions[session_id].user_id
        return asked

    def answer(self, found: Mapping[str, Records], asked_s: float, answered_s: float) -> Iterable[Event]:
        """Judge what the store has of the sessions asked for; yield what has come to its end.

        Args:
            found: of each session of `questions`.
            asked_s: when the questions left, seconds since the origin.
            answered_s: when the answers were there.
        """
        for incident in list(self._open):
            if incident.waits or any(one not in found for one in (*incident.differ, *incident.ghosts)):
                continue
            self._judge(incident, found)
            if incident.ghosts:
                incident.ghost_seen_s = asked_s
            elif incident.cuts_connections and not incident.ghosts_gone:
                incident.ghosts_gone = True
                yield self._event(EventKind.GHOSTS_GONE, incident, incident.ghost_seen_s, answered_s)
            if incident.differ:
                incident.difference_seen_s = asked_s
            elif not incident.ghosts:
                self._open.remove(incident)
                for session_id in incident.hit:
                    self._forget_if_left(session_id)
                yield self._event(EventKind.STORE_AGREES, incident, incident.difference_seen_s, answered_s)

    def _judge(self, incident: _Incident, found: Mapping[str, Records]) -> None:
        for session_id in (*incident.ghosts, *incident.differ):
            owner, status = found[session_id]
            one, was = self._sessions[session_id], incident.hit[session_id]
            ended = incident.cuts_connections and one.connection_id == was
            if was not in (owner, _owner_of(status, session_id)):
                incident.ghosts.discard(session_id)
            lives = one.lives and not ended
            mine = (owner, status) == (one.connection_id, f"{session_id}|{one.connection_id}")
            gone = owner is None and _owner_of(status, session_id) is None
            if mine if lives else gone:
                incident.differ.discard(session_id)

    def _event(self, kind: EventKind, incident: _Incident, before_s: float | None, now_s: float) -> Event:
        detail = {
            "incident_id": incident.incident_id,
            "sessions": len(incident.hit),
            "previous_poll_s": before_s,
        }
        return Event(now_s, self._source, kind, node=incident.node, detail=detail)


def _owner_of(status: str | None, session_id: str) -> str | None:
    """The connection that a status names for this session; None: it names another session, or there is none."""
    if status is None or not status.startswith(f"{session_id}|"):
        return None
    return status[len(session_id) + 1 :]
