"""report.html: one file that opens from disk without a network. Figures, style and script are inside it.

From a `Page` to text; what it says is decided in `sections/`.
"""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports.page import Page

__all__ = ["render_html"]


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
