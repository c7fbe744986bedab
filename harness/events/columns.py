"""Many events as columns: `Events`, an array for each field, texts as numbers.

From lists of `reference_server.events.Event` to arrays, and back to the events one by one where somebody wants these.
A million events take a third of the memory that as many objects take, and what is asked of all of them is asked of an
array. Reads no files and knows no scenario time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from reference_server.events import Event, EventKind, Source

__all__ = ["Books", "Codebook", "Codes", "Events", "Flags", "Floats", "Texts", "texts"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]
Texts = NDArray[np.object_]

_SOURCES, _KINDS = tuple(Source), tuple(EventKind)
_SOURCE_CODE = {source: code for code, source in enumerate(_SOURCES)}
_KIND_CODE = {kind: code for code, kind in enumerate(_KINDS)}


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

    def codes(self, values: Sequence[str]) -> Codes:
        """The number of each text, shape (n,)."""
        return np.fromiter(map(self.code, values), dtype=np.int64, count=len(values))

    def texts(self) -> Texts:
        """What each number stands for."""
        if len(self._texts) < len(self._codes):
            self._texts = texts(self._codes)
        return self._texts

    def named(self, codes: Codes | NDArray[np.int32]) -> Texts:
        """What some numbers stand for."""
        found: Texts = self.texts()[codes]
        return found

    def ranked(self, codes: Codes | NDArray[np.int32]) -> Codes:
        """Numbers in the order of their texts. For a book of few."""
        ranks: Codes = np.argsort(np.argsort(self.texts()))[codes]
        return ranks


@dataclass(frozen=True, slots=True)
class Books:
    """The codebooks that events share: ``ids`` of sessions and connections, ``words`` of nodes and causes."""

    ids: Codebook = field(default_factory=Codebook)
    words: Codebook = field(default_factory=Codebook)


class _Arrays(NamedTuple):
    """Of shape (n,). ``kind`` and ``source`` are places in the enums; codes are those of the books."""

    time_s: Floats
    source: NDArray[np.int8]
    kind: NDArray[np.int8]
    session: NDArray[np.int32]
    connection: NDArray[np.int32]
    node: NDArray[np.int32]
    cause: NDArray[np.int32]
    detail: NDArray[np.object_]


def _arrays(events: Sequence[Event], books: Books) -> _Arrays:
    n, ids, words = len(events), books.ids.code, books.words.code
    # A list and then its codes: quicker than both at once.
    return _Arrays(
        np.array([e.time_s for e in events], dtype=float),
        np.fromiter([_SOURCE_CODE[e.source] for e in events], np.int8, n),
        np.fromiter([_KIND_CODE[e.kind] for e in events], np.int8, n),
        np.fromiter(map(ids, [e.session_id for e in events]), np.int32, n),
        np.fromiter(map(ids, [e.connection_id for e in events]), np.int32, n),
        np.fromiter(map(words, [e.node for e in events]), np.int32, n),
        np.fromiter(map(words, [e.cause for e in events]), np.int32, n),
        np.fromiter([e.detail for e in events], object, n),
    )


class Events(Sequence[Event]):
    """Events in an order, by columns. ``time_s`` is that of the log; ``session`` and so on are codes of ``books``."""

    def __init__(self, arrays: _Arrays, books: Books) -> None:
        self._arrays, self.books = arrays, books
        self.time_s, self.source, self.kind = arrays.time_s, arrays.source, arrays.kind
        self.session, self.connection = arrays.session, arrays.connection
        self.node, self.cause, self.detail = arrays.node, arrays.cause, arrays.detail

    @classmethod
    def gather(cls, events: Iterable[Event], books: Books | None = None) -> Self:
        """Make them of events."""
        return cls.join([events if isinstance(events, list) else list(events)], books or Books())

    @classmethod
    def join(cls, blocks: Iterable[Sequence[Event]], books: Books) -> Self:
        """Make them of blocks of events, one after the other."""
        parts = [
            block._arrays if isinstance(block, Events) else _arrays(block, books) for block in blocks
        ] or [_arrays((), books)]
        joined = parts[0] if len(parts) == 1 else _Arrays._make(map(np.concatenate, zip(*parts, strict=True)))
        return cls(joined, books)

    def take(self, which: Codes | Flags | slice) -> Self:
        """Some of them, by their places or by a flag each."""
        return type(self)(_Arrays._make(array[which] for array in self._arrays), self.books)

    def is_of(self, kind: EventKind | None = None, source: Source | None = None) -> Flags:
        """Whether each is of a kind and a witness; None: of any."""
        found = np.ones(len(self), dtype=bool)
        if kind is not None:
            found &= self.kind == _KIND_CODE[kind]
        if source is not None:
            found &= self.source == _SOURCE_CODE[source]
        return found

    def of(self, kind: EventKind | None = None, source: Source | None = None) -> Self:
        """Those of a kind and a witness."""
        return self.take(self.is_of(kind, source))

    def places(self) -> dict[EventKind, Codes]:
        """Where those of each kind are."""
        order = np.argsort(self.kind, kind="stable")
        ends = np.cumsum(np.bincount(self.kind, minlength=len(_KINDS)))
        return dict(zip(_KINDS, np.split(order, ends[:-1]), strict=True))

    @property
    def sources(self) -> frozenset[Source]:
        """The witnesses that there is an event of."""
        return frozenset(_SOURCES[code] for code in np.unique(self.source).tolist())

    def replaced(self, time_s: Floats, detail: Sequence[dict[str, Any]]) -> Self:
        """The same, with other times and details."""
        others = np.fromiter(detail, object, len(self))
        return type(self)(self._arrays._replace(time_s=time_s, detail=others), self.books)

    def __len__(self) -> int:
        return len(self.time_s)

    def __iter__(self) -> Iterator[Event]:
        ids, words = self.books.ids, self.books.words
        columns = (
            self.time_s.tolist(),
            [_SOURCES[code] for code in self.source.tolist()],
            [_KINDS[code] for code in self.kind.tolist()],
            ids.named(self.session).tolist(),
            ids.named(self.connection).tolist(),
            words.named(self.node).tolist(),
            words.named(self.cause).tolist(),
            self.detail.tolist(),
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
