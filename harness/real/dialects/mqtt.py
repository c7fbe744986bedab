"""MQTT 3.1.1 and 5 over WebSocket: CONNECT with a keep-alive and a will, PINGREQ, and the wills of others.

    client  CONNECT (keep alive K, will on `gone`)      server  CONNACK
    client  PINGREQ every K                             server  PINGRESP
                                                        server  PUBLISH gone: user-7   a will: its client has gone

A WebSocket message may hold parts of packets, or several (MQTT 3.1.1 section 6). Source: OASIS MQTT 3.1.1, 5.0.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence

from harness.real.dialects.base import (
    Answer,
    Dialect,
    DialectError,
    Item,
    Message,
    PeerGone,
    Ready,
    Refused,
    Who,
)

__all__ = ["Mqtt"]

_PINGREQ = b"\xc0\x00"
_CONNACK, _PUBLISH = 2, 3
_MOST_BYTES = 1 << 20
_MOST_KEEP_ALIVE_S = 65535


class Mqtt(Dialect):
    """One MQTT session with a will; it subscribes to those of others if it is to be told of any.

    Args:
        who: whose connection; its own beat is the keep-alive, in whole seconds, upwards.
        version: 4 (3.1.1) or 5.
        will: topic on which others are told that it has gone, with its name as payload; "": no will.
    """

    __slots__ = ("_buffer", "_version", "_will")
    name = "mqtt"
    summary = "MQTT 3.1.1 or 5: keep-alive by PINGREQ, a will for others"
    shown = "run"
    subprotocol = "mqtt"
    ready_at_once = False

    def __init__(self, who: Who, version: int = 4, will: str = "gone") -> None:
        super().__init__(who)
        if version not in (4, 5):
            raise DialectError(f"dialect mqtt: version {version}; allowed: 4 (that is 3.1.1), 5")
        self._version, self._will = version, will
        self._buffer = b""

    def opening(self) -> Iterable[Message]:
        """CONNECT."""
        beat_s = self.who.beat_s
        keep_alive_s = 0 if math.isinf(beat_s) else min(_MOST_KEEP_ALIVE_S, math.ceil(beat_s - 1e-9))
        flags = 0x02 | (0x04 if self._will else 0)
        none = b"\x00" if self._version == 5 else b""  # no properties
        body = _text("MQTT") + struct.pack("!BBH", self._version, flags, keep_alive_s) + none
        body += _text(self.who.client)
        if self._will:
            body += none + _text(self._will) + _text(self.who.client)
        return (_packet(0x10, body),)

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a part of the stream of packets; one that is too long or has no length empties it."""
        self._buffer += message.encode() if isinstance(message, str) else message
        found: list[Item] = []
        for kind, body in self._packets():
            if kind >> 4 == _CONNACK and len(body) >= 2:
                found += [Ready(), *self._subscribe()] if body[1] == 0 else [Refused(f"CONNACK {body[1]}")]
            elif kind >> 4 == _PUBLISH and len(body) >= 2:
                end = 2 + int.from_bytes(body[:2])
                if body[2:end] == self._will.encode() and self._will:
                    found.append(PeerGone(body[end:].lstrip(b"\x00").decode(errors="replace")))
        return found

    def beat(self) -> Message | None:
        """PINGREQ."""
        return _PINGREQ

    def _subscribe(self) -> Iterator[Item]:
        if self.who.watched and self._will:
            none = b"\x00" if self._version == 5 else b""
            yield Answer(_packet(0x82, b"\x00\x01" + none + _text(self._will) + b"\x00"), heartbeat=False)

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        while len(self._buffer) >= 2:
            length = shift = 0
            for at in range(1, 5):
                if at >= len(self._buffer):
                    return
                length |= (self._buffer[at] & 0x7F) << shift
                shift += 7
                if not self._buffer[at] & 0x80:
                    break
            else:
                self._buffer = b""
                return
            end = at + 1 + length
            if length > _MOST_BYTES:
                self._buffer = b""
                return
            if len(self._buffer) < end:
                return
            kind, body = self._buffer[0], self._buffer[at + 1 : end]
            self._buffer = self._buffer[end:]
            yield kind, body


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("!H", len(data)) + data


def _packet(kind: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(digits) + body
