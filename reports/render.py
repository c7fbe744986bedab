"""report.md: the same sections, words and numbers as report.html, for a pull request or a terminal.

From a `Page` to text; pictures are links to the PNG files.

report.html: one file that opens from disk without a network. Figures, style and script are inside it.

From a `Page` to text; what it says is decided in `sections/`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports.page import Block, Cell, Page, Picture, Table, Text
from reports.sections.cells import mark

__all__ = ["render_html", "render_markdown"]


def render_html(page: Page) -> str:
    """Return the page as HTML. Links to data files are relative: they work inside the run directory."""
    environment = Environment(
        loader=PackageLoader("reports"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("report.html.j2").render(page=page)


def _data_uri(svg: Path) -> str:
    # As an image and not as elements: ids in several figures of one document would clash.
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def render_markdown(page: Page, folder: Path) -> str:
    """Return the page as Markdown for a file in ``folder``; folded tables are left to the CSV files."""
    return "\n".join(_lines(page, folder)) + "\n"


def _lines(page: Page, folder: Path) -> Iterator[str]:
    yield f"# {page.name}: {mark(page.verdict.verdict)} {page.verdict.verdict}"
    yield f"\n**{page.verdict.headline}.**"
    if page.description:
        yield f"\n{_plain(page.description)}"
    yield f"\n{_plain(page.subtitle)}\n"
    yield from (f"- {_plain(reason)}" for reason in page.verdict.reasons)
    yield "\n| " + " | ".join(_plain(fact.detail) for fact in page.facts) + " |"
    yield "|" + " --- |" * len(page.facts)
    yield "| " + " | ".join(_plain(fact.text) for fact in page.facts) + " |"
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
    names = _headings(table)
    yield "| " + " | ".join(map(_plain, names)) + " |"
    yield "|" + "".join(" ---: |" if right else " --- |" for right in table.flush_right)
    for row in table.rows:
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"
    if table.note:
        yield f"\n{_plain(table.note)}"


def _headings(table: Table) -> list[str]:
    if not table.groups:
        return list(table.columns)
    over = [heading for heading, width in table.groups for _ in range(width)]
    return [
        f"{heading}: {column}" if heading else column
        for heading, column in zip(over, table.columns, strict=True)
    ]


def _cell(cell: Cell) -> str:
    return _plain(cell.text) + (f" ({_plain(cell.detail)})" if cell.detail else "")


def _plain(text: str) -> str:
    """Escape what a table or an emphasis would take for its own."""
    for sign in "\\|*_<`":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split("\n"))
