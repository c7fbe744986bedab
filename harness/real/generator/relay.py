"""Carry a worker's event log to the master: batches with numbers, kept until they are acknowledged.

    worker: lines ──► Sender ── batch n ──► Receiver ──► file of the run directory
                        ▲ └── again when late ──┘ │
                        └──────── "n is in" ──────┘

Whatever the way loses, repeats or reorders, the file holds each line once and in order, up to the last batch
that came: what a worker that dies has sent is kept.

Pure: knows no sockets and no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Batch", "Receiver", "Sender"]

_MOST_BYTES = 1 << 18  # of a batch
_WINDOW = 16  # batches on the way at a time


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of a worker's lines, whole ones, and their place in the order."""

    number: int
    data: bytes


class Sender:
    """The worker's half.

    Args:
        again_after_s: a batch not acknowledged for this long is sent again.
    """

    def __init__(self, again_after_s: float = 2.0) -> None:
        self._again_after_s = again_after_s
        self._lines: deque[bytes] = deque()  # not in a batch yet
        self._next = 0
        self._out: dict[int, tuple[Batch, float]] = {}  # not acknowledged, and when last sent

    def add(self, line: bytes) -> None:
        """Take a line, with its newline."""
        self._lines.append(line)

    def due(self, now_s: float) -> list[Batch]:
        """What is to be sent now: new batches as far as the window has room, and those that are late."""
        late = [b for b, sent_s in self._out.values() if now_s - sent_s >= self._again_after_s]
        while self._lines and len(self._out) < _WINDOW:
            batch = Batch(self._next, self._cut())
            self._next += 1
            late.append(batch)
            self._out[batch.number] = (batch, now_s)
        for batch in late:
            self._out[batch.number] = (batch, now_s)
        return late

    def acknowledged(self, number: int) -> None:
        """The master has every batch up to this one."""
        for known in [n for n in self._out if n <= number]:
            del self._out[known]

    @property
    def done(self) -> bool:
        """Whether the master has everything."""
        return not self._lines and not self._out

    def _cut(self) -> bytes:
        size = 0
        taken: list[bytes] = []
        while self._lines and (not taken or size + len(self._lines[0]) <= _MOST_BYTES):
            taken.append(self._lines.popleft())
            size += len(taken[-1])
        return b"".join(taken)


class Receiver:
    """The master's half, of one worker."""

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, bytes] = {}

    def take(self, batch: Batch) -> bytes:
        """Take a batch as it came; return what is to be appended to the worker's file, maybe nothing."""
        if batch.number >= self._next:
            self._early[batch.number] = batch.data
        ready = []
        while self._next in self._early:
            ready.append(self._early.pop(self._next))
            self._next += 1
        return b"".join(ready)

    @property
    def last(self) -> int:
        """The number to acknowledge: of the last batch without a gap before it; −1: none."""
        return self._next - 1
