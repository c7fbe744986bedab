"""Reading event logs: decode their lines, merge the logs of all witnesses, write the merged one.

A process that is killed leaves a torn last line; it is passed over and counted. The record is
`reference_server.events`, the witnesses write it with `reference_server.event_log`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from harness.events.columns import Books, Events
from reference_server.events import Event, EventKind, Source, decode

__all__ = ["LogFile", "ReadLog", "gc_paused", "merge_logs", "read_log", "write_log"]

_DECODER = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()
# So much, and the rest of its last line, is decoded at once: a cache of the processor holds what it makes.
_READ_BYTES = 1 << 16
_WRITE_EVENTS = 1 << 14  # so many are events, and then lines, at once


@contextmanager
def gc_paused() -> Iterator[None]:
    """Switch the garbage collector off for a block of code; afterwards it is as it was before.

    For code that makes millions of objects of which none is garbage: the collector would look through all of them
    again and again. Reference counting goes on.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class LogFile(NamedTuple):
    """One file of events, in the order of its lines, and how many of its lines could not be read."""

    name: str
    events: Events
    torn_lines: int


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Events in time order, and the files that they are from."""

    events: Events
    files: tuple[LogFile, ...]

    @property
    def torn_lines(self) -> int:
        """How many lines could not be read (the last one of a process that was killed may be torn)."""
        return sum(file.torn_lines for file in self.files)


def read_log(*paths: Path) -> ReadLog:
    """Read logs and merge them by time; the order of equal times is the order of the files.

    Raises:
        OSError: a file cannot be read.
    """
    return _in_order(_read_files(paths))


def _read_files(paths: Iterable[Path]) -> tuple[LogFile, ...]:
    books = Books()
    with gc_paused():  # a million new objects would have it look again and again
        return tuple(_read_file(path, books) for path in paths)


def _in_order(files: tuple[LogFile, ...]) -> ReadLog:
    events = Events.join([file.events for file in files], files[0].events.books if files else Books())
    if (np.diff(events.time_s) < 0).any():
        events = events.take(np.argsort(events.time_s, kind="stable"))
    return ReadLog(events, files)


def _read_file(path: Path, books: Books) -> LogFile:
    torn = 0

    def blocks() -> Iterator[list[Event]]:
        nonlocal torn
        with path.open("rb") as file:
            while lines := file.read(_READ_BYTES):
                lines += file.readline()
                try:
                    read = _decode(lines)
                except ValueError:  # one of them is torn: which?
                    read = []
                    for line in BytesIO(lines):
                        try:
                            read.append(decode(line))
                        except ValueError:
                            torn += 1
                yield read

    events = Events.join(blocks(), books)
    return LogFile(path.name, events, torn)


def _decode(lines: bytes) -> list[Event]:
    """Decode whole lines at once.

    Raises:
        ValueError: not every one of them is an event.
    """
    try:
        events = _DECODER.decode_lines(lines)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    # JSON has no "}{" within a value: then no line has a part of one, and as many lines as values have one each.
    text = np.frombuffer(lines, dtype=np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    begins = np.append(0, ends[:-1] + 1)
    whole = lines.endswith(b"\n") and (text[begins] == ord("{")).all() and (text[ends - 1] == ord("}")).all()
    if len(events) != len(ends) or not whole:
        raise ValueError(f"{len(ends)} lines are {len(events)} events")
    return events


def write_log(path: Path, events: Sequence[Event]) -> None:
    """Write events to a new file, in one step."""
    draft = path.with_suffix(".tmp")
    with draft.open("wb") as file:
        for start in range(0, len(events), _WRITE_EVENTS):
            file.write(_ENCODER.encode_lines(list(events[start : start + _WRITE_EVENTS])))
    draft.replace(path)


def merge_logs(folder: Path, target: Path) -> ReadLog:
    """Merge every `*.jsonl` of a folder into one log sorted by time.

    Processes start one after the other, so the origin of a real run's clock lies before its ramp. What is returned, and
    the merged log, count from the ramp's beginning, as the plan and the simulation do.
    """
    files = _read_files(sorted(folder.glob("*.jsonl")))
    real = [~file.events.is_of(source=Source.SIMULATION) for file in files]
    begun = [file.events.is_of(EventKind.RUN_STARTED) & its for file, its in zip(files, real, strict=True)]
    starts_s = [float(t) for f, its in zip(files, begun, strict=True) for t in f.events.time_s[its]]
    if begun_s := min(starts_s, default=0.0):
        for file, its in zip(files, real, strict=True):
            file.events.shift(its, begun_s)
    read = _in_order(files)
    write_log(target, read.events)
    return read
