"""Many events as columns: `Events`, an array for each field, texts as numbers.

From `reference_server.events.Event` to arrays, and back to the events one by one where somebody wants these. What is
asked of a million events is asked of an array, and they take little more than half of the memory that as many objects
take. Reads no files and knows no scenario time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from reference_server.events import CLOCK_KEYS, Event, EventKind, Source

__all__ = ["Books", "Codebook", "Codes", "Events", "Flags", "Floats", "Texts", "texts"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]
Texts = NDArray[np.object_]
Numbers = NDArray[np.int32]


def texts(values: Iterable[str]) -> Texts:
    """An array of texts, of dtype object: shape (n,)."""
    given = list(values)
    found = np.empty(len(given), dtype=object)
    found[:] = given
    return found


class Codebook:
    """Numbers for texts, the same whenever asked: 0 for the empty one, then in the order of asking."""

    def __init__(self) -> None:
        codes: defaultdict[str, int] = defaultdict()
        codes.default_factory = codes.__len__
        self._codes = codes
        self._texts = texts(())
        self.code: Callable[[str], int] = codes.__getitem__
        self.code("")

    def __len__(self) -> int:
        return len(self._codes)

    def codes(self, values: Iterable[str]) -> Codes:
        """The number of each text, shape (n,)."""
        return np.fromiter(map(self.code, values), dtype=np.int64)

    def texts(self) -> Texts:
        """What each number stands for."""
        if len(self._texts) < len(self._codes):
            self._texts = texts(self._codes)
        return self._texts

    def named(self, codes: Codes | Numbers) -> Texts:
        """What some numbers stand for."""
        found: Texts = self.texts()[codes]
        return found


class Marks:
    """Numbers for what few different ones have in common: source, kind, node and cause."""

    def __init__(self) -> None:
        codes: defaultdict[tuple[Source, EventKind, str, str], int] = defaultdict()
        codes.default_factory = codes.__len__
        self._codes, self.code = codes, codes.__getitem__

    @property
    def things(self) -> list[tuple[Source, EventKind, str, str]]:
        """What each number stands for."""
        return list(self._codes)


class Details:
    """What events tell in their ``detail``: a table for each set of keys, in which an event has a row."""

    def __init__(self) -> None:
        codes: defaultdict[tuple[str, ...], int] = defaultdict()
        codes.default_factory = codes.__len__
        self._code = codes.__getitem__
        self.keys: list[tuple[str, ...]] = []
        """Of each table."""
        self._values: list[dict[str, list[Any]]] = []
        self._columns: dict[tuple[int, str], Texts] = {}
        self._rows: list[int] = []

    def add(self, details: Sequence[dict[str, Any]]) -> tuple[Numbers, Numbers]:
        """Take what some events tell; return the table and the row of each."""
        keys = list(map(tuple, details))
        table = np.fromiter(map(self._code, keys), np.int32, len(keys))
        row = np.empty(len(keys), dtype=np.int32)
        for one in np.flatnonzero(np.bincount(table)).tolist():
            places = np.flatnonzero(table == one)
            theirs = [details[place] for place in places.tolist()]
            if one == len(self.keys):
                self.keys.append(tuple(theirs[0]))
                self._values.append({key: [] for key in theirs[0]})
                self._rows.append(0)
            row[places] = np.arange(self._rows[one], self._rows[one] + len(theirs))
            self._rows[one] += len(theirs)
            for key, column in self._values[one].items():
                column += [detail[key] for detail in theirs]
        return table, row

    def column(self, table: int, key: str) -> Texts:
        """What all rows of a table say under one of its keys."""
        values, at = self._values[table][key], (table, key)
        if at not in self._columns or len(self._columns[at]) < len(values):
            self._columns[at] = np.fromiter(values, object, len(values))
        return self._columns[at]

    def shift(self, table: int, key: str, rows: list[int], by_s: float) -> None:
        """Take so many seconds from what some rows say, where they say something."""
        values = self._values[table][key]
        for row in rows:
            if values[row] is not None:
                values[row] -= by_s
        self._columns.pop((table, key), None)


@dataclass(frozen=True, slots=True)
class Books:
    """What events share: ``ids`` of sessions and connections, ``marks`` and details."""

    ids: Codebook = field(default_factory=Codebook)
    marks: Marks = field(default_factory=Marks)
    details: Details = field(default_factory=Details)


class _Arrays(NamedTuple):
    """Of shape (n,): codes and places of the books."""

    time_s: Floats
    mark: Numbers
    session: Numbers
    connection: Numbers
    table: Numbers
    row: Numbers


def _arrays(events: Sequence[Event], books: Books) -> _Arrays:
    n, ids, marks = len(events), books.ids.code, books.marks.code
    # A list and then its codes: quicker than both at once.
    return _Arrays(
        np.array([e.time_s for e in events], dtype=float),
        np.fromiter(map(marks, [(e.source, e.kind, e.node, e.cause) for e in events]), np.int32, n),
        np.fromiter(map(ids, [e.session_id for e in events]), np.int32, n),
        np.fromiter(map(ids, [e.connection_id for e in events]), np.int32, n),
        *books.details.add([e.detail for e in events]),
    )


class Events(Sequence[Event]):
    """Events in an order, by columns. ``time_s`` is that of the log; ``session`` and so on are codes of ``books``."""

    def __init__(self, arrays: _Arrays, books: Books) -> None:
        self._arrays, self.books = arrays, books
        self.time_s, self.session, self.connection = arrays.time_s, arrays.session, arrays.connection

    @classmethod
    def gather(cls, events: Iterable[Event]) -> Self:
        """Make them of events."""
        return cls.join([list(events)], Books())

    @classmethod
    def join(cls, blocks: Iterable[Sequence[Event]], books: Books) -> Self:
        """Make them of blocks of events, one after the other; those that are columns have the same books."""
        parts = [block._arrays if isinstance(block, Events) else _arrays(block, books) for block in blocks]
        parts = parts or [_arrays((), books)]
        return cls(_Arrays._make(map(np.concatenate, zip(*parts, strict=True))), books)

    def take(self, which: Codes | Flags | slice) -> Self:
        """Some of them, by their places or by a flag each."""
        return type(self)(_Arrays._make(array[which] for array in self._arrays), self.books)

    def is_of(self, kind: EventKind | None = None, source: Source | None = None) -> Flags:
        """Whether each is of a kind and a witness; None: of any."""
        asked = [kind in (None, k) and source in (None, s) for s, k, _, _ in self.books.marks.things]
        found: Flags = np.array(asked, dtype=bool)[self._arrays.mark]
        return found

    def of(self, kind: EventKind | None = None, source: Source | None = None) -> Self:
        """Those of a kind and a witness."""
        return self.take(self.is_of(kind, source))

    def places(self) -> dict[EventKind, Codes]:
        """Where those of each kind are."""
        kinds = list(EventKind)
        code = np.array([kinds.index(kind) for _, kind, _, _ in self.books.marks.things], dtype=np.int8)
        its = code[self._arrays.mark]
        ends = np.cumsum(np.bincount(its, minlength=len(kinds)))
        return dict(zip(kinds, np.split(np.argsort(its, kind="stable"), ends[:-1]), strict=True))

    @property
    def sources(self) -> frozenset[Source]:
        """The witnesses that there is an event of."""
        things = self.books.marks.things
        return frozenset(things[mark][0] for mark in np.flatnonzero(np.bincount(self._arrays.mark)).tolist())

    @property
    def cause(self) -> Texts:
        """The cause of each."""
        return self._of_marks([cause for _, _, _, cause in self.books.marks.things])

    @property
    def node(self) -> Texts:
        """The node of each."""
        return self._of_marks([node for _, _, node, _ in self.books.marks.things])

    def _of_marks(self, values: Sequence[Any]) -> Texts:
        found: Texts = texts(values)[self._arrays.mark]
        return found

    def told(self, key: str) -> Texts:
        """What the detail of each says under a key; None: nothing."""
        found = np.full(len(self), None, dtype=object)
        for table, its in self._tables():
            if key in self.books.details.keys[table]:
                found[its] = self.books.details.column(table, key)[self._arrays.row[its]]
        return found

    def details(self) -> list[dict[str, Any]]:
        """The detail of each."""
        found, of = np.empty(len(self), dtype=object), self.books.details
        for table, its in self._tables():
            keys, row = of.keys[table], self._arrays.row[its]
            columns = [of.column(table, key)[row].tolist() for key in keys]
            rows = zip(*columns, strict=True) if keys else [()] * len(row)
            found[its] = np.fromiter((dict(zip(keys, one, strict=True)) for one in rows), object, len(row))
        return found.tolist()

    def _tables(self) -> Iterator[tuple[int, Codes]]:
        """The tables that their details are in, and whose are in each."""
        order = np.argsort(self._arrays.table, kind="stable")
        count = np.bincount(self._arrays.table)
        for table, its in enumerate(np.split(order, np.cumsum(count)[:-1])):
            if len(its):
                yield table, its

    def shift(self, which: Flags, by_s: float) -> Flags:
        """Take so many seconds from the times of some, in place: for whoever has just read them.

        Moments in their details are shifted, too; return which have one.
        """
        self.time_s[which] -= by_s
        found, details = np.zeros(len(self), dtype=bool), self.books.details
        for table, its in self._tables():
            for key in CLOCK_KEYS.intersection(details.keys[table]):
                found[its] = which[its]
                details.shift(table, key, self._arrays.row[its[which[its]]].tolist(), by_s)
        return found

    def __len__(self) -> int:
        return len(self.time_s)

    def __iter__(self) -> Iterator[Event]:
        ids, things = self.books.ids, self.books.marks.things
        columns = (
            self.time_s.tolist(),
            self._of_marks([source for source, _, _, _ in things]).tolist(),
            self._of_marks([kind for _, kind, _, _ in things]).tolist(),
            ids.named(self.session).tolist(),
            ids.named(self.connection).tolist(),
            self.node.tolist(),
            self.cause.tolist(),
            self.details(),
        )
        return map(Event, *columns)

    @overload
    def __getitem__(self, place: int) -> Event: ...
    @overload
    def __getitem__(self, place: slice) -> Self: ...
    def __getitem__(self, place: int | slice) -> Event | Self:
        if isinstance(place, slice):
            return self.take(place)
        (event,) = self.take(np.array([place]))
        return event

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list
