"""Make `reports/sample/` of a run directory: what a reader of the repository wants to see, and no more.

From a run directory to a small copy: report.html, report.md, the main figures, the summary and the small tables.
Left out are the logs and whatever else is large; links to those become plain text. It measures
nothing and draws nothing: every number is the run's.

    python -m bench.make_sample RUN [--into reports/sample]
"""

from __future__ import annotations

import argparse
import base64
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from harness.runs.directory import RunDir, RunDirError, find_run
from reference_server.errors import Exit, FlatlineError

__all__ = ["MAIN_FIGURES", "MOST_HTML_BYTES", "NotASample", "make_sample"]

MAIN_FIGURES = ("detection_curves_1", "agreement", "live_sessions", "timeline_host_crash")
"""Figures that are beside the report too, as SVG and PNG; the report itself holds all of them."""

MOST_HTML_BYTES = 1_500_000
"""A repository should not grow by more with each new sample."""

_NEEDED = (
    "report.html",
    "report.md",
    "summary.json",
    "run.json",
    "scenario.yaml",
    "qos.csv",
    "agreement.csv",
)
_MOST_TABLE_BYTES = 65_536  # other tables are copied up to this size
_KERNEL = re.compile(r"(Linux \d+\.\d+\.\d+)[-\w.+]*")  # its builder's suffix tells of the machine
_TEXT = {".html", ".md", ".json", ".yaml", ".csv", ".svg"}
_PICTURE = re.compile(r'src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)"')
_LINK = re.compile(r'<a href="([^"#:]+)">([^<]*)</a>')
_MARKDOWN_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:]+)\)")
_COORDINATE = re.compile(r"(\d{2,}\.\d{2})\d+")  # not the 0.015625 by which a glyph is scaled
_SEGMENT = re.compile(r" ?\b([MLQC]) (?=[-\d])")
_UNSEEN = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|(?<=>) (?=<)|(?<=[:;]) ")
_HARMLESS = " !$'()*+,-./:;<=>?@[]^_`{|}~"  # in a data URL in an attribute in double quotes


class NotASample(FlatlineError):
    """This run is not fit to be shown, or its copy would tell of the machine; the message says why."""


def make_sample(run: RunDir, into: Path) -> Path:
    """Copy what a reader wants of a run; return the copy's report.html.

    Args:
        run: a complete, sound run of all engines, in which they agree and every threshold holds.
        into: the folder, replaced as a whole.

    Raises:
        NotASample: the run is red, unknown or partial, the report is too large, or a copy names a folder or the
            host of this machine.
        RunDirError: no summary, or a file that belongs to a sample is missing.
    """
    _check(run)
    missing = [name for name in _NEEDED if not (run.path / name).is_file()]
    if missing:
        raise RunDirError(f"{run.path}: no {', '.join(missing)}; `flatline report` makes them")
    draft = into.with_name(f"{into.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _copy(run, draft)
        _check_copy(draft, run)
        shutil.rmtree(into, ignore_errors=True)
        draft.replace(into)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return into / "report.html"


def _copy(run: RunDir, into: Path) -> None:
    (into / "figures").mkdir(parents=True)
    small = [table.name for table in run.path.glob("*.csv") if table.stat().st_size <= _MOST_TABLE_BYTES]
    for name in {*_NEEDED, *small}:
        shutil.copyfile(run.path / name, into / name)
    for name in MAIN_FIGURES:
        for suffix in (".svg", ".png"):
            shutil.copyfile(run.figures / f"{name}{suffix}", into / "figures" / f"{name}{suffix}")
    page, text, provenance = (into / name for name in ("report.html", "report.md", "run.json"))
    for told in (page, text, provenance):
        told.write_text(_KERNEL.sub(r"\1", told.read_text()))
    page.write_text(_PICTURE.sub(_lighter, _without_dead_links(page.read_text(), into)))
    text.write_text(_without_dead_pictures(text.read_text(), into))


def _check(run: RunDir) -> None:
    summary = run.read_json(run.summary)
    wanted = {
        "engines": ["theory", "simulated", "real"],
        "status": "complete",
        "sound": True,
        "exit_code": int(Exit.GOOD),
        "negative_control": None,
    }
    wrong = [
        f"{key} is {summary.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if summary.get(key) != value
    ]
    if wrong:
        raise NotASample(f"{run.path}: {'; '.join(wrong)}")


def _lighter(picture: re.Match[str]) -> str:
    """The same picture at two thirds of its size: escaped and not base64, to a hundredth of a point, no spare spaces.

    Its text is outlines, so that no space in it is one that a reader sees.
    """
    svg = " ".join(base64.b64decode(picture[1]).decode().split())  # a URL loses its line breaks
    svg = _SEGMENT.sub(r"\1", _COORDINATE.sub(r"\1", _UNSEEN.sub("", svg)))
    if "'" not in svg:
        svg = svg.replace('"', "'")  # XML takes either, the attribute only this one
    return f'src="data:image/svg+xml,{quote(svg, safe=_HARMLESS)}"'


def _without_dead_links(page: str, into: Path) -> str:
    return _LINK.sub(lambda link: link[0] if (into / link[1]).exists() else link[2], page)


def _without_dead_pictures(text: str, into: Path) -> str:
    return _MARKDOWN_LINK.sub(
        lambda link: (
            link[0] if (into / link[3]).exists() else f"{link[2]} (in report.html)" if link[1] else link[2]
        ),
        text,
    )


def _check_copy(copy: Path, run: RunDir) -> None:
    size = (copy / "report.html").stat().st_size
    if size > MOST_HTML_BYTES:
        raise NotASample(f"report.html: {size:,} bytes; allowed: up to {MOST_HTML_BYTES:,}")
    folders = {Path.home(), Path.cwd(), run.path.parent, Path(sys.prefix), Path(tempfile.gettempdir())}
    told = {str(folder) for folder in folders} | {socket.gethostname()}
    for path in sorted(copy.rglob("*")):
        if path.suffix in _TEXT:
            text = path.read_text(encoding="utf-8")
            if found := sorted(word for word in told if re.search(rf"{re.escape(word)}\b", text)):
                raise NotASample(f"{path.name}: names {', '.join(found)} of this machine")


def main() -> None:
    """Entry point of `python -m bench.make_sample`."""
    parser = argparse.ArgumentParser(description="Make the sample report of a run directory.")
    parser.add_argument("run", help="run directory, its name under runs/, or latest")
    parser.add_argument("--into", type=Path, default=Path("reports/sample"))
    told = parser.parse_args()
    try:
        page = make_sample(find_run(told.run), told.into)
    except (NotASample, RunDirError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(int(Exit.BAD_INPUT)) from error
    print(f"sample: {page}, {page.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
