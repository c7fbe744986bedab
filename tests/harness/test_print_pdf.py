"""A page is printed by whichever Chromium is there; that it may not be there is told before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.print_pdf import find_browser, print_pdf
from reference_server.errors import Exit, MachineError

PRINTS = 'for a in "$@"; do case "$a" in --print-to-pdf=*) echo "%PDF $*" > "${a#*=}";; esac; done'
FAILS = "echo cannot open display >&2; exit 1"


def browser(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "google-chrome"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_the_pdf_is_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(tmp_path, PRINTS, monkeypatch)
    page = tmp_path / "a report.html"
    page.write_text("<p>")
    pdf = print_pdf(page, str(tmp_path / "google-chrome"))
    assert pdf == tmp_path / "a report.pdf"
    assert f"file://{tmp_path}/a%20report.html" in pdf.read_text()


def test_a_browser_that_prints_nothing_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser(tmp_path, FAILS, monkeypatch)
    with pytest.raises(MachineError, match=r"exit code 1\): cannot open display"):
        print_pdf(tmp_path / "report.html", str(tmp_path / "google-chrome"))


def test_without_a_browser_it_says_so_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.print_pdf._BROWSERS", ("chromium",))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="install one"):
        find_browser()
    for command in (["report", "no-such"], ["compare", "no-such", "neither", "--output", str(tmp_path)]):
        result = CliRunner().invoke(app, [*command, "--pdf"])
        assert result.exit_code == Exit.MACHINE_CANNOT
        assert "neither Chromium nor Chrome" in result.output


def test_a_comparison_is_printed_where_it_is_written() -> None:
    result = CliRunner().invoke(app, ["compare", "no-such", "neither", "--pdf"])
    assert result.exit_code == Exit.BAD_INPUT
    assert "with --output FOLDER" in result.output
