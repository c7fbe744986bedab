"""Bytes that a WebSocket server sends to whole messages and control frames, and a dialect's messages, sans I/O."""

from __future__ import annotations

from collections.abc import Generator

from websockets.exceptions import ProtocolError
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.streams import StreamReader

from harness.real.dialects import Message

__all__ = ["FrameReader", "frame_of", "message_of"]


class FrameReader:
    """Cuts what a server sends into frames, sans I/O; fragments are put together.

    Args:
        begun_with: bytes that are there already; the next `feed` looks at them.
        most_bytes: a longer message is not accepted.
    """

    __slots__ = ("_most", "_parser", "_parts", "_stream")

    def __init__(self, begun_with: bytes = b"", most_bytes: int = 1 << 20) -> None:
        self._most = most_bytes
        self._stream = StreamReader()
        self._stream.feed_data(begun_with)
        self._parser: Generator[None, None, Frame] | None = None  # of a frame that is not whole yet
        self._parts: list[Frame] = []  # of a message that is not whole yet

    @property
    def idle(self) -> bool:
        """Whether it stands between two messages and holds nothing."""
        return not (self._stream.buffer or self._parser or self._parts)

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the messages and control frames that are whole by now, in order.

        Raises:
            ProtocolError, PayloadTooBig: what no server may send. What came before it in the same bytes is lost.
        """
        self._stream.feed_data(data)
        frames: list[Frame] = []
        while self._parser or self._stream.buffer:
            if self._parser is None:
                room = self._most - sum(len(part.data) for part in self._parts)
                self._parser = Frame.parse(self._stream.read_exact, mask=False, max_size=room)
            try:
                next(self._parser)
            except StopIteration as whole:
                self._parser = None
                self._take(whole.value, frames)
            else:
                break
        return frames

    def _take(self, frame: Frame, frames: list[Frame]) -> None:
        if frame.opcode in CTRL_OPCODES:  # may stand between two fragments
            frames.append(frame)
            return
        if (frame.opcode is Opcode.CONT) != bool(self._parts):
            raise ProtocolError("a fragment without its beginning, or a beginning among fragments")
        self._parts.append(frame)
        if frame.fin:
            frames.append(Frame(self._parts[0].opcode, b"".join(part.data for part in self._parts)))
            self._parts = []


def frame_of(message: Message) -> Frame:
    """The frame that carries a dialect's message: text or binary."""
    if isinstance(message, str):
        return Frame(Opcode.TEXT, message.encode())
    return Frame(Opcode.BINARY, message)


def message_of(frame: Frame) -> Message:
    """What a dialect is given of a data frame; bytes that are no UTF-8 are replaced."""
    data = bytes(frame.data)
    return data.decode(errors="replace") if frame.opcode is Opcode.TEXT else data
