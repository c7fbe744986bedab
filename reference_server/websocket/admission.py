"""Admission: a connection gets its session, from the path or the first message and then the store's answer.

From handshakes and authentications to calls of the gateway (`Host`), which takes over once a connection has its
session's records. A connection that does not authenticate in time is closed.
"""

from __future__ import annotations

import weakref
from asyncio import get_running_loop
from functools import partial
from typing import Protocol
from urllib.parse import parse_qs

from websockets.http11 import Request

from reference_server.config import GatewayConfig
from reference_server.events import Cause
from reference_server.session_log import without_controls
from reference_server.sessions.origin import Origin, address_of
from reference_server.sessions.records import (
    Connected,
    ConnectRefused,
    OlderThan,
    Record,
    Sessions,
    session_id_of,
)
from reference_server.sessions.redis_writer import StoreUnavailable
from reference_server.websocket.connection import GatewayConnection, Phase

__all__ = [
    "CLOSE_KICKED",
    "CLOSE_SESSION_UNKNOWN",
    "CLOSE_TAKEN_OVER",
    "CLOSE_TRY_AGAIN",
    "CLOSE_WRONG_USER",
    "MOST_ID_LENGTH",
    "Admission",
    "Host",
]

MOST_ID_LENGTH = 128
_MOST_QUERY_LENGTH = 512
CLOSE_SESSION_UNKNOWN = 4401
CLOSE_WRONG_USER = 4403
CLOSE_TAKEN_OVER = 4409
CLOSE_KICKED = 4410
CLOSE_TRY_AGAIN = 1013
_REFUSED = {
    "session_unknown": (CLOSE_SESSION_UNKNOWN, "log in again"),
    "wrong_user": (CLOSE_WRONG_USER, "the session is another user's"),
}


class Host(Protocol):
    """The gateway, as far as admission is concerned."""

    def is_full(self) -> bool:
        """Tell whether nobody new gets a session now."""

    def note_refused(self, connection: GatewayConnection, code: str) -> None:
        """Count and log an authentication that failed."""

    def begin(self, connection: GatewayConnection, record: Record, resumed: bool) -> None:
        """Put a connection into service that has its session's records."""

    def on_stranger(self, session_id: str, user_id: str, origin: Origin) -> None:
        """Take note of a session that was made for whoever named a user."""

    def take_over(self, owner: str, by: str = "") -> None:
        """End the connection that had the records until now, or what is left of it; ``by`` is the session now."""

    def end_session(self, owner: str, how: str) -> None:
        """End a connection whose session was ended."""

    def keep_for_resume(self, connection: GatewayConnection, record: Record) -> None:
        """Keep the records of a connection that has ended for as long as its session may be resumed."""


class Admission:
    """Lets connections in.

    Args:
        sessions: gives connections their records.
        host: called with what becomes of a connection.
        config: of the gateway.
    """

    def __init__(self, sessions: Sessions, host: Host, config: GatewayConfig) -> None:
        self._sessions = sessions
        self._host = host
        self._timeout_s = config.auth_timeout_s
        self._user_id_handshake = config.records.user_id_handshake
        self._trusted_proxies = config.trusted_proxies
        self._token_in_path = config.records.token_in_path
        # Owners that wait for their records, and how others ended them meanwhile.
        self.asking: dict[str, str] = {}

    def refusal(self, target: str) -> tuple[int, str] | None:
        """Return status and sentence that refuse a handshake for a path and query; None for the API's own."""
        path, _, query = target.partition("?")
        token = path.removeprefix("/ws/")
        names_a_session = (
            self._token_in_path and token != path and 0 < len(token) <= MOST_ID_LENGTH and "/" not in token
        )
        if len(query) <= _MOST_QUERY_LENGTH and (path == "/ws" or names_a_session):
            return None
        return 404, "not found: connect to /ws\n"

    def on_handshake(self, connection: GatewayConnection, request: Request) -> None:
        """Take a connection whose handshake is over."""
        path, _, query = request.path.partition("?")
        named = parse_qs(query)
        if path != "/ws":
            user_id = named.get("user_id", [""])[0]
            trace = named.get("trace") == ["1"]
            self.authenticate(connection, session_id_of(path[4:]), user_id=user_id, trace=trace)
        elif self._user_id_handshake and "userId" in named:
            connection.phase = Phase.AUTHENTICATING
            connection.owner.limiter.known(connection)
            user_id = without_controls(named["userId"][0])
            origin = self._origin(connection, request, named.get("deviceType", ["web"])[0])
            self._sessions.login_unasked(user_id, partial(self._let_in, connection, user_id, origin))
        else:
            # A weak reference: who ends earlier need not be kept until then.
            get_running_loop().call_later(self._timeout_s, _on_deadline, weakref.ref(connection))

    def authenticate(
        self, connection: GatewayConnection, session_id: str, *, user_id: str = "", trace: bool
    ) -> None:
        """Ask the store for the session's records, in the connection's name.

        A client that names a user has to name the session's. Where a full gateway refuses newcomers, so it does one
        that comes back while its older connection is still believed alive.
        """
        if self._host.is_full():
            self._refuse(connection, "too_many_sessions", CLOSE_TRY_AGAIN, "try again later")
            return
        connection.phase = Phase.AUTHENTICATING
        connection.owner.limiter.known(connection)
        connection.trace = trace
        record = connection.record = Record(session_id, self._sessions.owners.next(), user_id)
        self.asking[record.owner] = ""
        self._sessions.connect(record, partial(self._on_answer, connection, record))

    def _origin(self, connection: GatewayConnection, request: Request, device_type: str) -> Origin:
        peer = (connection.transport.get_extra_info("peername") or ("",))[0]
        forwarded = request.headers.get_all("X-Forwarded-For")
        agent = "".join(request.headers.get_all("User-Agent")[:1])
        return Origin.of(device_type, address_of(peer, forwarded, self._trusted_proxies), agent)

    def _let_in(
        self, connection: GatewayConnection, user_id: str, origin: Origin, session_id: str | None
    ) -> None:
        """Go on with the session of a user who was merely named."""
        if connection.phase is Phase.ENDED:
            return
        if session_id is None:
            connection.send_error("already_online", "the user is online already, or the store is away")
            connection.shut(Cause.PROTOCOL_ERROR, CLOSE_TAKEN_OVER, "already_online")
        else:
            self._host.on_stranger(session_id, user_id, origin)
            self.authenticate(connection, session_id, trace=False)

    def _on_answer(
        self,
        connection: GatewayConnection,
        asked: Record,
        answer: Connected | ConnectRefused | OlderThan | StoreUnavailable,
    ) -> None:
        how = self.asking.pop(asked.owner)
        match answer:
            case Connected(user_id, resumed, displaced, device):
                record = Record(asked.session_id, asked.owner, user_id, device)
                connection.record = record
                for owner in displaced:
                    self._host.take_over(owner, asked.session_id)
                if connection.phase is Phase.ENDED:  # while the store was asked
                    self._host.keep_for_resume(connection, record)
                else:
                    self._host.begin(connection, record, resumed)
                    # The kick came by another way than the answer, and was faster.
                    if how == "taken_over":
                        self._host.take_over(asked.owner)
                    elif how:
                        self._host.end_session(asked.owner, how)
            case OlderThan(owner):
                # Its node's clock is ahead of ours, or the two asked at the same time: who still waits is newer.
                self._sessions.owners.learn(owner)
                if connection.phase is not Phase.ENDED:
                    self.authenticate(
                        connection, asked.session_id, user_id=asked.user_id, trace=connection.trace
                    )
            case ConnectRefused(code):
                close_code, sentence = _REFUSED.get(code, (CLOSE_TAKEN_OVER, "the user is online already"))
                self._refuse(connection, code, close_code, sentence)
            case StoreUnavailable():
                self._refuse(connection, "store_unavailable", CLOSE_TRY_AGAIN, "try again later")
                # The records may be this connection's all the same: nobody else would clear them.
                self._host.keep_for_resume(connection, Record(asked.session_id, asked.owner))

    def _refuse(self, connection: GatewayConnection, code: str, close_code: int, sentence: str) -> None:
        self._host.note_refused(connection, code)
        connection.send_error(code, sentence)
        connection.shut(Cause.PROTOCOL_ERROR, close_code, code)


def _on_deadline(of: weakref.ref[GatewayConnection]) -> None:
    connection = of()
    if connection is not None and connection.phase is Phase.ANONYMOUS:
        connection.send_error("auth_timeout", "no authentication in time")
        connection.shut(Cause.PROTOCOL_ERROR, CLOSE_SESSION_UNKNOWN, "auth timeout")
