"""Replications: seeds, warm-up, intervals that cover, stopping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.runs.directory import new_run
from harness.studies.replicate import COLUMNS, Stopping, replicate, replication_seeds, summarise
from reference_server.errors import FlatlineError
from scenarios.schema import Scenario

MEAN_S = 85.0  # T=30, k=3, τ=10


def scenario(**changes: object) -> Scenario:
    given: dict[str, object] = {
        "name": "small",
        "clients": 60,
        "ramp": 30.0,
        "duration": 250.0,
        "faults": [{"kind": "host_crash", "share": "50%", "at": {"uniform": {"low": 0.0, "high": 120.0}}}],
    }
    return Scenario.model_validate(given | changes)


def test_the_mean_of_the_replications_covers_theory() -> None:
    done = replicate(scenario(), stopping=Stopping(12, 12), n_jobs=1)
    row = done.table.set_index("figure").loc["host_crash.suspected.mean_s"]
    assert row["n"] == 12 and row["missing"] == 0
    assert row["lo"] < MEAN_S < row["hi"] and row["boot_lo"] < MEAN_S < row["boot_hi"]
    # 30 uniform phases a run, 12 runs: half-width t·(30/√12)/√360, within the spread of its own estimate.
    assert row["half_width"] == pytest.approx(2.2 * 30 / 12**0.5 / 360**0.5, rel=0.6)
    assert done.table.set_index("figure").loc["false_suspicions.per_client_day", "mean"] == 0.0


def test_a_replications_figures_depend_on_its_seed_alone() -> None:
    few = replicate(scenario(), stopping=Stopping(2, 2), n_jobs=1).runs
    more = replicate(scenario(), stopping=Stopping(3, 3), n_jobs=2).runs
    pd.testing.assert_frame_equal(few, more.iloc[:2])
    assert more["seed"].nunique() == 3
    assert more["host_crash.suspected.mean_s"].nunique() == 3
    assert replication_seeds(1, 5) == replication_seeds(1, 50)[:5] != replication_seeds(2, 5)


def test_what_happens_in_the_warm_up_does_not_count() -> None:
    """Two kinds of crash: one within the warm-up, one after it."""
    at = {"uniform": {"low": 61.0, "high": 100.0}}
    what = scenario(
        faults=[
            {"kind": "host_crash", "name": "early", "share": "20%", "at": 30.0},
            {"kind": "host_crash", "name": "later", "share": "20%", "at": at},
        ]
    )
    names = set(replicate(what, stopping=Stopping(2, 2), warm_up_s=60.0, n_jobs=1).table["figure"])
    assert "later.suspected.mean_s" in names and "early.suspected.mean_s" not in names
    names = set(replicate(what, stopping=Stopping(2, 2), n_jobs=1).table["figure"])
    assert "early.suspected.mean_s" in names


def test_false_suspicions_in_the_warm_up_do_not_count_either() -> None:
    """A NAT below the heartbeat throws everyone out within minutes, and nobody comes back."""
    what = scenario(faults=[], network={"nat": {"idle_timeout": 20.0}}, duration=600.0)
    figure = "false_suspicions.per_client_day"
    whole = replicate(what, stopping=Stopping(2, 2), n_jobs=1).runs[figure]
    later = replicate(what, stopping=Stopping(2, 2), warm_up_s=400.0, n_jobs=1).runs[figure]
    assert (whole > 0).all()
    assert later.isna().all(), "no healthy time is left to count in"


def test_it_goes_on_until_it_is_precise_enough() -> None:
    rough = replicate(scenario(), stopping=Stopping(3, 40, precision=0.05), n_jobs=1)
    fine = replicate(scenario(), stopping=Stopping(3, 40, precision=0.01), n_jobs=1)
    assert rough.precise and fine.precise
    assert 3 <= len(rough.runs) < len(fine.runs) < 40
    row = fine.table.set_index("figure").loc["host_crash.suspected.mean_s"]
    assert row["half_width"] <= 0.01 * row["mean"]


def test_it_says_when_it_is_not_precise_enough() -> None:
    done = replicate(scenario(), stopping=Stopping(2, 3, precision=1e-6), n_jobs=1)
    assert not done.precise and len(done.runs) == 3


def test_t_intervals_cover_as_often_as_they_say() -> None:
    """1,000 samples of 8 normal figures: 95 % of the intervals hold the truth, within 4.5 errors."""
    rng = np.random.default_rng(9)
    samples = pd.DataFrame(rng.normal(3.0, 2.0, (8, 1000)))
    table = summarise(samples.iloc[:, :1000].rename(columns=str), 0.95, seed=1)
    covered = ((table["lo"] < 3.0) & (table["hi"] > 3.0)).mean()
    assert abs(covered - 0.95) < 4.5 * (0.95 * 0.05 / 1000) ** 0.5
    assert list(table.columns) == list(COLUMNS)


def test_missing_figures_are_counted_and_constant_ones_have_no_width() -> None:
    figures = pd.DataFrame({"some": [1.0, np.nan, 3.0], "same": [2.0] * 3, "one": [np.nan, np.nan, 5.0]})
    table = summarise(figures, 0.95, seed=1).set_index("figure")
    assert (table.loc["some", "n"], table.loc["some", "missing"]) == (2, 1)
    assert table.loc["same", "half_width"] == 0.0 and table.loc["same", "boot_lo"] == 2.0
    assert table["mean"]["one"] == 5.0 and np.isnan(table["half_width"]["one"])


def test_the_tables_are_saved(tmp_path: Path) -> None:
    run = new_run(tmp_path, "replicated")
    replicate(scenario(), stopping=Stopping(2, 2), n_jobs=1).save(run)
    assert len(pd.read_csv(run.table("replication_runs"))) == 2
    assert list(pd.read_csv(run.table("replications")).columns) == list(COLUMNS)


@pytest.mark.parametrize("warm_up_s", [-1.0, 250.0])
def test_a_warm_up_leaves_something_of_the_run(warm_up_s: float) -> None:
    with pytest.raises(FlatlineError, match="warm-up"):
        replicate(scenario(), warm_up_s=warm_up_s)


def test_one_run_is_no_sample() -> None:
    with pytest.raises(FlatlineError, match="at_least"):
        Stopping(1, 5)
