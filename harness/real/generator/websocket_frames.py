"""WebSocket frames of a client, sans I/O: bytes from a server to frames, and messages to masked bytes (RFC 6455).

No extension, no state but a frame that is not whole yet. The handshake is the library's (`websocket.py`); after it
a client lives for hours on 21 bytes every half minute, and the library's protocol object would be most of
what it weighs.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "BadFrame",
    "Frame",
    "FrameReader",
    "ReadyMade",
    "masked",
]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_FIN = 0x80
_RESERVED = 0x70
_MASKED = 0x80
_MOST_IN_CONTROL = 125
_BATCH = 512


class BadFrame(Exception):
    """The server broke the protocol: how."""


class Frame(NamedTuple):
    """A whole message, or a control frame."""

    opcode: int
    data: bytes


class FrameReader:
    """Cuts what a server sends into frames; fragments are put together.

    Args:
        begun_with: bytes that are there already; the next `feed` looks at them.
        most_bytes: a longer message is not accepted.
    """

    __slots__ = ("_most", "_opcode", "_parts", "_rest")

    def __init__(self, begun_with: bytes = b"", most_bytes: int = 1 << 20) -> None:
        self._most = most_bytes
        self._rest = begun_with
        self._parts: list[bytes] = []
        self._opcode = CONTINUATION  # of the message that the parts belong to; CONTINUATION: none

    @property
    def idle(self) -> bool:
        """Whether it stands between two messages and holds nothing."""
        return not self._rest and self._opcode == CONTINUATION

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the messages and control frames that are whole by now, in order.

        Raises:
            BadFrame: what no server may send. What came before it in the same bytes is lost.
        """
        buffer = self._rest + data if self._rest else data
        frames: list[Frame] = []
        at = 0
        while (end := self._next(buffer, at, frames)) is not None:
            at = end
        self._rest = buffer[at:]
        return frames

    def _next(self, buffer: bytes, at: int, frames: list[Frame]) -> int | None:
        """Append the frame that begins at `at`, if it is whole; return where the next one begins."""
        have = len(buffer) - at
        if have < 2:
            return None
        head, size = buffer[at], buffer[at + 1]
        opcode = head & 0x0F
        if head & _RESERVED or opcode not in _KNOWN:
            raise BadFrame(f"first byte {head:#04x}: a reserved bit or opcode")
        if size & _MASKED:
            raise BadFrame("a server's frame is not masked")
        if opcode >= CLOSE and (size > _MOST_IN_CONTROL or not head & _FIN):
            raise BadFrame("a control frame is short and whole")
        begin = at + 2
        if size >= 126:
            wide = 2 if size == 126 else 8
            if have < 2 + wide:
                return None
            begin += wide
            size = int.from_bytes(buffer[at + 2 : begin])
        if size + sum(map(len, self._parts)) > self._most:
            raise BadFrame(f"a message above {self._most} bytes")
        if len(buffer) < begin + size:
            return None
        self._take(opcode, bool(head & _FIN), buffer[begin : begin + size], frames)
        return begin + size

    def _take(self, opcode: int, fin: bool, data: bytes, frames: list[Frame]) -> None:
        if opcode >= CLOSE:  # may stand between two fragments
            frames.append(Frame(opcode, data))
            return
        if (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            raise BadFrame("a fragment without its beginning, or a beginning among fragments")
        if fin and opcode != CONTINUATION:
            frames.append(Frame(opcode, data))
            return
        self._opcode = self._opcode or opcode
        self._parts.append(data)
        if fin:
            frames.append(Frame(self._opcode, b"".join(self._parts)))
            self._opcode, self._parts = CONTINUATION, []


def masked(opcode: int, data: bytes, mask: bytes | None = None) -> bytes:
    """Return a whole masked frame. ``mask`` is four bytes; None: random ones, as a client must."""
    mask = os.urandom(4) if mask is None else mask
    size = len(data)
    if size < 126:
        head = bytes((_FIN | opcode, _MASKED | size))
    elif size < 1 << 16:
        head = bytes((_FIN | opcode, _MASKED | 126)) + size.to_bytes(2)
    else:
        head = bytes((_FIN | opcode, _MASKED | 127)) + size.to_bytes(8)
    key = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size)


class ReadyMade:
    """One message, masked anew for each sending: made in batches, used once each.

    A masked answer costs a microsecond to make, and there are thousands a second; in a batch the random bytes
    come from the kernel at once.
    """

    __slots__ = ("_data", "_frames", "_opcode")

    def __init__(self, opcode: int, data: bytes) -> None:
        self._opcode, self._data = opcode, data
        self._frames: list[bytes] = []

    def take(self) -> bytes:
        """Return a frame that nobody else gets."""
        if not self._frames:
            random = os.urandom(4 * _BATCH)
            self._frames = [
                masked(self._opcode, self._data, random[n : n + 4]) for n in range(0, len(random), 4)
            ]
        return self._frames.pop()
