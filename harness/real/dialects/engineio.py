"""Engine.IO 4 over WebSocket, and the Socket.IO 5 packets in it: how `socket.io` and `python-socketio` speak.

    server  0{"sid":…,"pingInterval":25000,…}     client  40        connect to the namespace /
    server  40{"sid":…}                           client            ready
    server  2                                     client  3         ping, pong
    server  42["offline","user-7"]                                  an event; `gone_event` names it

Source: engine.io-protocol v4, socket.io-protocol v5.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from harness.real.dialects.base import Answer, Dialect, Item, Message, PeerGone, Ready, Refused, Who

__all__ = ["EngineIo"]


class EngineIo(Dialect):
    """Engine.IO 4; with ``socketio`` the client connects to the namespace `/` of Socket.IO.

    Args:
        who: whose connection.
        socketio: false: bare Engine.IO, ready with its handshake.
        gone_event: Socket.IO event whose first argument is a client that has gone; "": none.
    """

    __slots__ = ("_gone_event", "_socketio")
    name = "engineio"
    summary = "Engine.IO 4 and Socket.IO: the server pings, the client answers 3"
    shown = "run"
    ready_at_once = False

    def __init__(self, who: Who, socketio: bool = True, gone_event: str = "") -> None:
        super().__init__(who)
        self._socketio, self._gone_event = socketio, gone_event

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a packet: its type is the first character."""
        if not isinstance(message, str) or not message:
            return ()
        match message[0]:
            case "2":
                return (Answer("3" + message[1:]),)
            case "0":
                return (Answer("40", heartbeat=False),) if self._socketio else (Ready(),)
            case "4" if self._socketio and message[1:2] == "0":
                return (Ready(),)
            case "4" if self._socketio and message[1:2] == "4":
                return (Refused(message[2:] or "connect_error"),)
            case "4" if self._gone_event and message[1:2] == "2":
                return self._event(message[2:])
        return ()

    def _event(self, text: str) -> Sequence[Item]:
        try:
            said = orjson.loads(text)
        except orjson.JSONDecodeError:
            return ()
        if isinstance(said, list) and len(said) > 1 and said[0] == self._gone_event:
            return (PeerGone(str(said[1])),)
        return ()
