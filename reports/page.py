"""What a report is made of, before it is HTML or Markdown: sections of sentences, tables and pictures.

Both writers render this, so both show the same words and numbers. Knows no format and reads no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

__all__ = ["Block", "Cell", "Headline", "Page", "Picture", "Section", "Table", "Text"]

Tone = Literal["", "pass", "fail", "unknown", "theory", "simulated", "real"]


class Headline(NamedTuple):
    """What was decided elsewhere, in one sentence, and its reasons.

    ``status``: ``pass``, ``fail``, ``unknown`` or ``partial``; ``finding`` where nothing was asked that could fail.
    """

    status: str
    sentence: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, the value that it sorts by (default: the text), a smaller addition, a tone."""

    text: str
    value: float | None = None
    detail: str = ""
    tone: Tone = ""

    @property
    def numeric(self) -> bool:
        """Whether it is set flush right."""
        return self.value is not None


@dataclass(frozen=True)
class Text:
    """A paragraph. ``kind`` is `missing` for the sentence that stands in for data that are not there."""

    text: str
    kind: Literal["plain", "missing", "warning"] = "plain"
    block: ClassVar[str] = "text"


@dataclass(frozen=True)
class Table:
    """A table. ``groups`` are headings over several columns as (heading, columns); ``csv`` has all of its data."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    csv: str = ""
    groups: Sequence[tuple[str, int]] = ()
    folded: bool = False
    block: ClassVar[str] = "table"

    @cached_property
    def flush_right(self) -> list[bool]:
        """Which columns hold numbers."""
        return [any(row[n].numeric for row in self.rows) for n in range(len(self.columns))]

    @property
    def headings(self) -> list[str]:
        """What each column is called where nothing stands over it."""
        if not self.groups:
            return list(self.columns)
        over = [heading for heading, width in self.groups for _ in range(width)]
        return [
            f"{heading}: {column}" if heading else column
            for heading, column in zip(over, self.columns, strict=True)
        ]


@dataclass(frozen=True)
class Picture:
    """A figure that has been saved."""

    name: str
    title: str
    svg: Path
    png: Path
    block: ClassVar[str] = "picture"


Block = Text | Table | Picture


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report."""

    name: str
    description: str
    subtitle: str
    headline: Headline
    facts: Sequence[Cell]  # beside the verdict: text, and in detail what it is
    reading: Sequence[tuple[str, str]]  # how to read this: a term and what it means
    sections: Sequence[Section] = field(default=())
