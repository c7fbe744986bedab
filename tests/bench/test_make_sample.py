"""The sample report: only of a run that may be shown, whole on its own, and silent about the machine."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import orjson
import pytest

from bench.make_sample import MOST_HTML_BYTES, NotASample, make_sample
from harness.runs.directory import RunDir, RunDirError
from tests.reports.handmade_run import DEMO, build, handmade_run

pytestmark = pytest.mark.pictures

COMMITTED = Path(__file__).parents[2] / "reports" / "sample"
_LINK = re.compile(r'href="([^"#:]+)"')


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hand = handmade_run({name: DEMO[name] for name in ("host_crash", "process_crash")})
    hand.summary |= {"engines": ["theory", "simulated", "real"], "status": "complete"}
    folder = hand.write(tmp_path_factory.mktemp("made") / "20300101-demo")
    (folder / "scenario.yaml").write_text("name: demo\n")
    build(folder)
    change(folder / "summary.json", exit_code=0, sound=True, negative_control=None)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(made, tmp_path / "runs" / made.name)))


def change(path: Path, **values: object) -> None:
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | values))


def pictures(page: str) -> list[str]:
    found = re.findall(r'src="data:image/svg\+xml,([^"]+)"', page)
    return [unquote(html.unescape(svg)) for svg in found]


def dead_links(folder: Path) -> list[str]:
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    links = _LINK.findall(page) + re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    return [link for link in links if not (folder / link).exists()]


def test_every_link_works_and_every_picture_is_still_one(run: RunDir, tmp_path: Path) -> None:
    page = make_sample(run, tmp_path / "sample").read_text()
    assert dead_links(tmp_path / "sample") == []
    shown = pictures(page)
    assert len(shown) == len(re.findall("<figure>", page)) > 0
    for svg in shown:
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert len(page) < len((run.path / "report.html").read_text())


def test_what_the_report_says_is_not_changed(run: RunDir, tmp_path: Path) -> None:
    page = make_sample(run, tmp_path / "sample").read_text()
    tags = re.compile(r'src="[^"]*"|<a [^>]*>|</a>')
    assert tags.sub("", page) == tags.sub("", (run.path / "report.html").read_text())


def test_no_log_is_copied(run: RunDir, tmp_path: Path) -> None:
    (run.path / "events.jsonl").write_text("{}\n")
    make_sample(run, tmp_path / "sample")
    assert not list((tmp_path / "sample").rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"exit_code": 99}, "exit_code is 99"),
        ({"sound": False}, "sound is False"),
        ({"status": "partial"}, "status is 'partial'"),
        ({"engines": ["theory", "simulated"]}, "engines is"),
        ({"negative_control": {"max_failures": 2}}, "negative_control is"),
    ],
)
def test_a_run_that_may_not_be_shown_is_refused(
    run: RunDir, tmp_path: Path, what: dict[str, object], said: str
) -> None:
    change(run.summary, **what)
    with pytest.raises(NotASample, match=said):
        make_sample(run, tmp_path / "sample")


def test_a_leak_is_refused_and_the_old_sample_stays(run: RunDir, tmp_path: Path) -> None:
    make_sample(run, tmp_path / "sample")
    before = (tmp_path / "sample" / "report.md").read_text()
    with (run.path / "report.md").open("a") as report:
        report.write(f"\nSee {run.path}/logs.\n")
    with pytest.raises(NotASample, match="of this machine"):
        make_sample(run, tmp_path / "sample")
    assert (tmp_path / "sample" / "report.md").read_text() == before
    assert [path.name for path in tmp_path.iterdir() if "draft" in path.name] == []


def test_a_run_without_its_report_is_told_so(run: RunDir, tmp_path: Path) -> None:
    (run.path / "report.md").unlink()
    with pytest.raises(RunDirError, match=r"no report\.md"):
        make_sample(run, tmp_path / "sample")


def test_the_committed_sample_is_whole() -> None:
    assert (COMMITTED / "report.html").stat().st_size < MOST_HTML_BYTES
    assert dead_links(COMMITTED) == []
    summary = orjson.loads((COMMITTED / "summary.json").read_bytes())
    assert summary["exit_code"] == 0 and summary["sound"] and summary["name"] == "demo"
    assert summary["headline"] in (COMMITTED / "report.md").read_text()
