"""JSON messages of clients: authenticate, heartbeat, watch, send.

From a message to a call of the part that it concerns, or to an error that names what is wrong. The exact answer to a
heartbeat does not come here: `connection.py` takes it without parsing.
"""

from __future__ import annotations

from typing import Any

import orjson

from reference_server.cluster.routing import Router
from reference_server.frames import PONG, text_frame
from reference_server.sessions.presence import Presence
from reference_server.websocket.admission import Admission
from reference_server.websocket.connection import GatewayConnection, Phase

__all__ = ["Messages"]

_MOST_WATCHED = 1000  # users that one client may watch
_MOST_ID_LENGTH = 128


class Messages:
    """Takes the messages of all clients."""

    def __init__(self, admission: Admission, presence: Presence, router: Router) -> None:
        self._admission = admission
        self._presence = presence
        self._router = router

    def take(self, connection: GatewayConnection, message: dict[str, Any]) -> None:
        """Take a JSON object with a ``type``."""
        match message:
            case {"type": "auth", "session_id": str(session_id)} if _are_ids(
                [session_id, message.get("user_id", session_id)]
            ):
                if connection.phase is Phase.ANONYMOUS:
                    self._admission.authenticate(
                        connection,
                        session_id,
                        user_id=message.get("user_id", ""),
                        trace=message.get("trace") is True,
                    )
                else:
                    connection.send_error("already_authenticated", "one session a connection")
            case _ if connection.phase is not Phase.READY:
                connection.send_error("not_authenticated", 'send {"type":"auth","session_id":…} first')
            case {"type": "heartbeat"}:
                connection.send_frame(PONG)
            case {"type": "watch", "user_ids": list(user_ids)} if _are_ids(user_ids):
                count = self._presence.watch(connection, user_ids, _MOST_WATCHED)
                if count is None:
                    connection.send_error("too_many", f"at most {_MOST_WATCHED} users")
                else:
                    answer = {"type": "watching", "count": count}
                    connection.send_frame(text_frame(orjson.dumps(answer)))
            case {"type": "send", "user_id": str(user_id), "payload": payload} if _are_ids([user_id]):
                self._router.pass_on(connection, user_id, payload)
            case _:
                connection.send_error("unknown_message", f"not understood: {message['type']:.40}")


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(value, str) and 0 < len(value) <= _MOST_ID_LENGTH for value in values)
