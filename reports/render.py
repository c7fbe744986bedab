"""Pages as HTML and Markdown; the one writer of Markdown tables; docs/reference-tables.md.

report.html is one file that opens from disk without a network: figures, style and script are inside it.
report.md has the same sections, words and numbers, for a pull request or a terminal; pictures are links.
From a `Page` to text; what it says is decided in `sections/`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from reports.page import Block, Cell, Page, Picture, Table, Text
from reports.run_tables import TABLES
from reports.sections.cells import mark

__all__ = ["markdown_table", "render_html", "render_markdown", "tables_reference"]


def render_html(page: Page, *, interactive: bool = False) -> str:
    """Return the page as HTML. Links to data files are relative: they work inside the run directory.

    ``interactive``: a script in the page lets its figures be zoomed and moved.
    """
    return _template().render(page=page, interactive=interactive)


@cache
def _template() -> Template:
    """Compiled once: that takes as long as to fill it."""
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("report.html.j2")


def _data_uri(svg: Path) -> str:
    # As an image and not as elements: ids in several figures of one document would clash.
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def render_markdown(page: Page, folder: Path) -> str:
    """Return the page as Markdown for a file in ``folder``; folded tables are left to the CSV files."""
    return "\n".join(_lines(page, folder)) + "\n"


def _lines(page: Page, folder: Path) -> Iterator[str]:
    yield f"# {page.name}: {mark(page.headline.status)} {page.headline.status}"
    yield f"\n**{page.headline.sentence}.**"
    if page.description:
        yield f"\n{_plain(page.description)}"
    yield f"\n{_plain(page.subtitle)}\n"
    yield from (f"- {_plain(reason)}" for reason in page.headline.reasons)
    yield ""
    yield markdown_table([f.detail for f in page.facts], [[f.text for f in page.facts]])
    yield "\n## How to read this\n"
    yield from (f"- **{_plain(term)}**: {_plain(meaning)}" for term, meaning in page.reading)
    for section in page.sections:
        yield f"\n## {section.title}"
        for block in section.blocks:
            yield ""
            yield from _block(block, folder)


def _block(block: Block, folder: Path) -> Iterator[str]:
    match block:
        case Text():
            yield f"> {_plain(block.text)}" if block.kind == "warning" else _plain(block.text)
        case Picture():
            yield f"![{block.title}]({block.png.relative_to(folder).as_posix()})"
        case Table():
            yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield f"### {table.title}\n"
    if table.folded:
        yield f"{len(table.rows)} rows in [{table.csv}]({table.csv})."
        return
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    yield markdown_table(table.headings, rows, flush_right=table.flush_right)
    if table.note:
        yield f"\n{_plain(table.note)}"


def markdown_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    flush_right: Sequence[bool] = (),
    aligned: bool = False,
) -> str:
    """Return a table in Markdown, without a newline at its end; cells are shown as they are.

    Args:
        header: of each column.
        rows: of as many cells.
        flush_right: which columns hold numbers; default: none.
        aligned: fill cells up, so that the columns also line up as plain text.
    """
    right = flush_right or [False] * len(header)
    head, *body = ([_plain(cell) for cell in row] for row in (header, *rows))
    lines = [head, ["---:" if numbers else "---" for numbers in right], *body]
    if aligned:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(cell: Cell) -> str:
    return cell.text + (f" ({cell.detail})" if cell.detail else "")


def _plain(text: str) -> str:
    """Escape what would be taken for a cell's end, emphasis or HTML; not `_` in a word, nor `<` before a space."""
    escaped = re.sub(r"[\\|*`]|<(?=[\w/!?])|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return " ".join(escaped.split("\n"))


_TYPES = {"str": "text", "int64": "integer", "float64": "number", "bool": "True, False"}


def tables_reference() -> str:
    """Describe every table of a run directory in Markdown: docs/reference-tables.md."""
    return "\n".join(_reference()) + "\n"


def _reference() -> Iterator[str]:
    yield "# The tables of a run directory\n"
    yield "Generated from `reports/run_tables.py`; to make it anew: `python docs/generate.py`.\n"
    yield (
        "Every table is a CSV file with a header. “s” are seconds of the scenario, “real s” seconds of the "
        "clock on the wall, which the speedup does not shrink. An empty cell is “no value”. "
        "summary.json has the verdict, run.json what ran."
    )
    for table in TABLES.values():
        yield f"\n## {table.name}.csv\n\nOne row per {_plain(table.row)}.\n"
        yield markdown_table(
            ("column", "type", "unit", "meaning"),
            [(c.name, _TYPES[c.dtype], c.unit, c.meaning) for c in table.columns],
        )
