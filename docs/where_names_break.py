"""Make room for tables: where a long name may break, and which pages have no list of contents at their right.

A phone's column is narrower than `flatline_run_losses`.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["on_page_content", "on_page_markdown"]

# Their tables take the room beside the text.
_WIDE = ("reference-profiles.md", "who-notices-a-dead-client.md")

_CELL = re.compile(r"<td.*?</td>", re.DOTALL)
_BREAK = re.compile(r"(?<=[^\W\d])([_./=,{\[]|-(?!-))(?=[^\W\d])")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Hide the list of contents of wide pages; MkDocs calls this for each page."""
    if page.file.src_uri in _WIDE:
        page.meta["hide"] = ["toc"]
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Put a `<wbr>` after each sign that joins two words, in the text of cells; MkDocs calls this for each page."""
    return _CELL.sub(lambda cell: re.sub(r"[^<>]+(?=<)", _broken, cell[0]), html)


def _broken(text: re.Match[str]) -> str:
    return _BREAK.sub(r"\1<wbr>", text[0])
