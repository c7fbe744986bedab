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
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from harness.events.columns import Books, Codes, Events
from reference_server.events import Event, EventKind, Source, decode

__all__ = ["LogFile", "ReadLog", "gc_paused", "merge_logs", "read_log", "write_log"]

_DECODER = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()
# So much, and the rest of its last line, is decoded at once: a cache of the processor holds what it makes.
_READ_BYTES = 1 << 16
_WRITE_EVENTS = 1 << 14  # so many are events, and then lines, at once
_BEGIN = b'{"time_s":'  # of a line, as `encode` writes it


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


@gc_paused()
def read_log(*paths: Path) -> ReadLog:
    """Read logs and merge them by time; the order of equal times is the order of the files.

    Raises:
        OSError: a file cannot be read.
    """
    return _in_order(_read_files(paths)[0])[0]


def _read_files(paths: Iterable[Path]) -> tuple[tuple[LogFile, ...], list[Codes]]:
    books = Books()
    read = [_read_file(path, books) for path in paths]
    return tuple(file for file, _ in read), [spans for _, spans in read]


def _in_order(files: tuple[LogFile, ...]) -> tuple[ReadLog, Codes]:
    """Join what was read of files; say which place of all of them each event is from, too."""
    events = Events.join([file.events for file in files], files[0].events.books if files else Books())
    order = np.argsort(events.time_s, kind="stable")
    return ReadLog(events.take(order), files), order


def _read_file(path: Path, books: Books) -> tuple[LogFile, Codes]:
    """Read it; say where each event's line begins and ends, too: (n, 2), -1 where it is not as `encode` writes it."""
    torn, at = 0, 0
    spans = [np.empty((0, 2), dtype=np.int64)]

    def blocks() -> Iterator[list[Event]]:
        nonlocal torn, at
        with path.open("rb") as file:
            while lines := file.read(_READ_BYTES):
                lines += file.readline()
                try:
                    read, its = _decode(lines)
                    spans.append(at + its)
                except ValueError:  # one of them is torn: which?
                    read = []
                    for line in BytesIO(lines):
                        try:
                            read.append(decode(line))
                        except ValueError:
                            torn += 1
                    spans.append(np.full((len(read), 2), -1))
                at += len(lines)
                yield read

    events = Events.join(blocks(), books)
    return LogFile(path.name, events, torn), np.concatenate(spans)


def _decode(lines: bytes) -> tuple[list[Event], Codes]:
    """Decode whole lines at once, and say where each begins and ends, shape (n, 2).

    Raises:
        ValueError: not every one of them is an event as `encode` writes it.
    """
    try:
        events = _DECODER.decode_lines(lines)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    # JSON has no "}{" within a value: then no line has a part of one, and as many lines as values have one each.
    ends = np.flatnonzero(np.frombuffer(lines, dtype=np.uint8) == ord("\n"))
    whole = lines.startswith(_BEGIN) and lines.endswith(b"}\n")
    if not whole or not len(events) == len(ends) == lines.count(b"}\n" + _BEGIN) + 1:
        raise ValueError(f"{len(ends)} lines are {len(events)} events")
    return events, np.column_stack((np.append(0, ends[:-1] + 1), ends + 1))


def write_log(path: Path, events: Sequence[Event]) -> None:
    """Write events to a new file, in one step."""
    starts = range(0, len(events), _WRITE_EVENTS)
    _write(path, (_ENCODER.encode_lines(list(events[start : start + _WRITE_EVENTS])) for start in starts))


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    draft = path.with_suffix(".tmp")
    with draft.open("wb") as file:
        file.writelines(blocks)
    draft.replace(path)


@gc_paused()
def merge_logs(folder: Path, target: Path) -> ReadLog:
    """Merge every `*.jsonl` of a folder into one log sorted by time.

    Processes start one after the other, so the origin of a real run's clock lies before its ramp. What is returned, and
    the merged log, count from the ramp's beginning, as the plan and the simulation do.
    """
    paths = sorted(folder.glob("*.jsonl"))
    files, spans = _read_files(paths)
    real = [~file.events.is_of(source=Source.SIMULATION) for file in files]
    begun = [file.events.is_of(EventKind.RUN_STARTED) & its for file, its in zip(files, real, strict=True)]
    starts_s = [float(t) for f, its in zip(files, begun, strict=True) for t in f.events.time_s[its]]
    if begun_s := min(starts_s, default=0.0):
        for file, its, lines in zip(files, real, spans, strict=True):
            lines[file.events.shift(its, begun_s)] = -1
    read, order = _in_order(files)
    texts = [_text(path) if len(lines) else b"" for path, lines in zip(paths, spans, strict=True)]
    which = np.repeat(np.arange(len(paths)), [len(lines) for lines in spans])
    _write(target, _merged(read.events, texts, which[order], np.concatenate(spans)[order]))
    return read


def _text(path: Path) -> mmap:
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ)


def _merged(events: Events, texts: Sequence[mmap | bytes], which: Codes, spans: Codes) -> Iterator[bytes]:
    """Lines of events: a new time and the rest of the line that is there in its text; -1: all of it is new."""
    for start in range(0, len(events), _WRITE_EVENTS):
        some = slice(start, start + _WRITE_EVENTS)
        times_s = _ENCODER.encode(events.time_s[some].tolist())[1:-1]
        heads = (_BEGIN + times_s.replace(b",", b"," + _BEGIN)).split(b",")
        origins = [texts[n] for n in which[some].tolist()]
        lines = [
            head + text[text.find(b",", begin) : end]
            for head, text, begin, end in zip(heads, origins, *spans[some].T.tolist(), strict=True)
        ]
        anew = np.flatnonzero(spans[some, 0] < 0)
        written = _ENCODER.encode_lines(list(events[some].take(anew))).splitlines(keepends=True)
        for place, line in zip(anew.tolist(), written, strict=True):
            lines[place] = line
        yield b"".join(lines)
