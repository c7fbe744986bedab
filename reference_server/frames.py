"""WebSocket frames that a server sends as they are, made once and written to any number of sockets."""

from __future__ import annotations

import orjson
from websockets.frames import Frame, Opcode

__all__ = ["HEARTBEAT", "PING", "PONG", "PONG_TEXT", "error_frame", "text_frame"]


def text_frame(payload: bytes) -> bytes:
    """Return a whole text frame for UTF-8 text: unmasked, no extension (RFC 6455, section 5)."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)


def error_frame(code: str, message: str) -> bytes:
    """Return an error message of the protocol: a code for programs and a sentence for people."""
    return text_frame(orjson.dumps({"type": "error", "code": code, "message": message}))


HEARTBEAT = text_frame(b'{"type":"heartbeat"}')
PONG_TEXT = b'{"type":"pong"}'  # the exact answer to it; others that mean the same are parsed
PONG = text_frame(PONG_TEXT)  # the gateway's own, to a client that beats
PING = Frame(Opcode.PING, b"").serialize(mask=False)
