"""Print a page of HTML as PDF, by a Chromium or Chrome of this machine; flatline brings none of its own.

From report.html to report.pdf beside it. What it looks like is in the page's own style for print.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from reference_server.errors import MachineError

__all__ = ["find_browser", "print_pdf"]

_BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "microsoft-edge"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
_MOST_S = 120.0


def find_browser() -> str:
    """Return the path of a Chromium or Chrome.

    Raises:
        MachineError: there is none.
    """
    for name in _BROWSERS:
        if found := shutil.which(name):
            return found
    raise MachineError(
        "no PDF: neither Chromium nor Chrome is installed here (looked for: "
        f"{', '.join(Path(name).name for name in _BROWSERS)}); install one, or open report.html and print it"
    )


def print_pdf(page: Path, browser: str) -> Path:
    """Print a page; return the PDF, which has its name and folder.

    Args:
        page: HTML.
        browser: as `find_browser` gives it.

    Raises:
        MachineError: the browser wrote nothing, or took longer than two minutes.
    """
    pdf = page.with_suffix(".pdf")
    pdf.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="flatline-print-") as profile:
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
        ]
        if os.geteuid() == 0:
            command.append(
                "--no-sandbox"
            )  # Chromium's sandbox refuses root; the page is ours, and loads nothing
        command += [f"--print-to-pdf={pdf.resolve()}", page.resolve().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_MOST_S)
        except subprocess.TimeoutExpired as late:
            raise MachineError(f"no PDF: {browser} did not print within {_MOST_S:g} s") from late
    if not pdf.exists():
        said = (done.stderr.strip().splitlines() or ["said nothing"])[-1]
        raise MachineError(f"no PDF: {browser} wrote none (exit code {done.returncode}): {said}")
    return pdf
