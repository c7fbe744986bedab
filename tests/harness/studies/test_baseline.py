"""A good run is kept and later ones are compared with it; a run that is not good is no baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.run import run
from harness.runs.directory import RunDir
from harness.studies.baseline import check_baseline, set_baseline
from harness.studies.compare.inputs import CannotCompare
from reference_server.errors import Exit
from scenarios.load import load_scenario


def simulated(root: Path, seed: int, **changes: object) -> RunDir:
    scenario = load_scenario("frozen", clients=60, seed=seed, **changes)
    return RunDir(run(scenario, engines=("theory", "simulated"), root=root).report.parent)


def test_a_run_is_kept_and_a_slower_one_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    first = simulated(tmp_path / "runs", 1, thresholds=())
    with pytest.raises(CannotCompare, match="no baseline; make one: flatline baseline set"):
        check_baseline(first, folder)
    kept = set_baseline(first, folder, anyway=True)
    assert kept == folder / "frozen"
    assert sum(file.stat().st_size for file in kept.iterdir()) < 2_000_000, "small enough to be committed"
    assert (
        check_baseline(simulated(tmp_path / "runs", 2, thresholds=()), folder).exit_code(strict=False)
        is Exit.GOOD
    )


def test_a_run_that_is_not_good_is_no_baseline(tmp_path: Path) -> None:
    red = simulated(tmp_path / "runs", 1, thresholds=("detection_latency{fault=frozen}.max < 1s",))
    with pytest.raises(CannotCompare, match="a baseline is a good run"):
        set_baseline(red, tmp_path / "baselines")
