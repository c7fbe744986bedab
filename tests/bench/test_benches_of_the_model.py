"""The benches of measuring and of both models still run, and print a ratio to a baseline of the same run."""

from __future__ import annotations

import re

import pytest

import bench.fleet
import bench.measure
import bench.simulated

RATIO = r"\d+(\.\d+)?(x| ×)"


def test_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    bench.measure.main(["3000"])
    told = capsys.readouterr().out
    assert "187 faults" in told
    assert f"{187 * 5} milestones detected" in told
    assert re.search(f"{RATIO} json.loads", told)


def test_the_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    bench.fleet.main(["--clients", "40", "--hours", "0.1", "--million", "200", "--jobs", "1"])
    told = capsys.readouterr().out
    assert re.search(f"fleet against plain: {RATIO}", told)
    assert "200 clients, 24 h" in told


def test_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.simulated.main(["--clients", "100", "--hours", "0.2", "--rounds", "1"]) == 0
    assert len(re.findall(f"engine against plain model.*: {RATIO}", capsys.readouterr().out)) == 2
