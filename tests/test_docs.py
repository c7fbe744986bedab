"""The documentation: generated pages are current, its commands and scenarios are accepted, the site builds strictly."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from reference_server.errors import Exit
from scenarios.load import load_scenario

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [page for page in PAGES if "reference-" not in page.name]


def blocks(page: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for word, text in fenced if word == language]


COMMANDS = sorted(
    {
        line.split(" > ")[0].split(" #")[0].removeprefix("sudo ").strip()
        for page in WRITTEN
        for block in blocks(page, "")
        for line in block.replace("\\\n", "").splitlines()
        if re.match(r"(sudo )?flatline ", line)
    }
)
LOCUSTS = [line for line in COMMANDS if line.startswith("flatline locust ")]
SCENARIOS = [
    block
    for page in WRITTEN
    for block in blocks(page, "yaml")
    if re.search(r"^clients:", block, re.MULTILINE)
]


def test_generated_pages_are_current() -> None:
    """To make them anew: python docs/generate.py."""
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    stale = [
        name for name, text in made.items() if (ROOT / "docs" / name).read_text(encoding="utf-8") != text
    ]
    assert not stale


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_no_line_of_code_is_cut_on_a_screen_of_1280_pixels(page: Path) -> None:
    code = re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert not [line for block in code for line in block.splitlines() if len(line) > 80]


def test_there_is_something_to_try() -> None:
    assert len(COMMANDS) > 30
    assert SCENARIOS


@pytest.mark.parametrize("line", [line for line in COMMANDS if line not in LOCUSTS])
def test_a_command_of_the_documentation_is_one_of_ours(line: str) -> None:
    """Its name and its options: those are read before `--help` ends it."""
    done = CliRunner().invoke(app, [*shlex.split(line)[1:], "--help"])
    assert done.exit_code == 0, done.output


def test_those_that_become_locusts_process_are_too() -> None:
    """All of their options in one, for a process takes as long as all other commands together."""
    options = [word for line in LOCUSTS for word in shlex.split(line)[2:]]
    argv = [sys.executable, "-m", "harness", "locust", *options, "--help-all"]
    assert len(LOCUSTS) > 1
    helped = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "--scenario" in helped and "--run-dir" in helped and "--spawn-rate" in helped


@pytest.mark.parametrize("text", SCENARIOS)
def test_a_scenario_of_the_documentation_is_one(text: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text, encoding="utf-8")
    assert load_scenario(str(mine)).clients


def test_every_exit_code_is_told() -> None:
    told = re.findall(
        r"^\| (\d+) \|", (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [int(code) for code in told] == sorted(Exit)


def test_the_readme_is_read_in_a_minute() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 80


def test_the_site_builds(tmp_path: Path) -> None:
    """Strictly: a link or an anchor that leads nowhere is an error."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()
    page = (tmp_path / "observability.html").read_text(encoding="utf-8")
    assert "<code>flatline_<wbr>run_<wbr>losses{<wbr>cause}</code>" in page, "a phone's column can break it"


def test_the_wheel_has_what_examples_and_notebooks_read() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    taken = {
        (f"share/flatline/{path.parent.relative_to(ROOT)}" == folder, path)
        for folder, patterns in settings["data-files"].items()
        for pattern in patterns
        for path in ROOT.glob(pattern)
    }
    there = [
        path
        for folder in ("examples", "notebooks")
        for path in (ROOT / folder).rglob("*.*")
        if path.is_file() and "__pycache__" not in path.parts and ".ipynb_checkpoints" not in path.parts
    ]
    assert {path for path in there if (True, path) not in taken} == {ROOT / "notebooks" / "render.py"}
