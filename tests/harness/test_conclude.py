"""A simulated run concluded: every table is written with its columns, and they agree with each other."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.conclude import conclude, measure_run
from harness.events.log import gc_paused, write_log
from harness.runs.directory import RunDir, RunDirError
from harness.simulated import simulate
from reports.run_tables import SCHEMAS, RunTables, load_run
from scenarios.load import dump_scenario, parse_scenario
from scenarios.plan import make_plan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    scenario = parse_scenario(
        "{name: small, clients: 60, ramp: 10s, duration: 150s, faults: "
        "[{kind: host_crash, share: 50%, at: {uniform: {low: 5s, high: 30s}}}, "
        "{kind: refresh, share: 25%, at: {uniform: {low: 5s, high: 30s}}}]}"
    )
    plan = make_plan(scenario)
    home = RunDir(tmp_path_factory.mktemp("run"))
    home.logs.mkdir()
    home.scenario.write_text(dump_scenario(scenario))
    plan.save(home.plan)
    write_log(home.logs / "simulation.jsonl", simulate(scenario, plan))
    conclude(home)
    return load_run(home.path)


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_table_is_written_with_its_columns(run: RunTables, name: str) -> None:
    columns = pd.read_csv(run.path / f"{name}.csv", nrows=0).columns
    assert list(columns) == list(SCHEMAS[name])


def test_a_report_knows_the_tables_that_it_links(run: RunTables) -> None:
    page = (run.path / "report.html").read_text()
    for name in ("incidence", "omission", "session_quality", "presence_flaps", "cost", "reconnects"):
        assert name in SCHEMAS
        assert f"{name}.csv" in page


def test_the_summary_has_facts_and_verdict(run: RunTables) -> None:
    assert run.summary["verdict"] == run.summary["agreement"]["verdict"]
    assert run.summary["exit_code"] in (0, 99)
    assert run.summary["round_trip_s"] > 0
    assert run.summary["epsilon_s"] is None, "a simulation has no loops that lag"


def by(table: pd.DataFrame, *keys: str) -> dict[tuple[str, ...], dict[str, Any]]:
    return {
        tuple(str(row[key]) for key in keys): {str(k): v for k, v in row.items()}
        for row in table.to_dict("records")
    }


def test_theory_is_asked_the_cost_of_as_many_clients_as_were_held(run: RunTables) -> None:
    cost = by(run.table("cost"), "engine")
    assert list(cost) == [("theory",), ("simulated",)]
    held = cost["simulated",]["clients"]
    assert cost["theory",]["clients"] == held
    assert cost["theory",]["frames_per_s"] == pytest.approx(2 * held / 30, rel=0.02)


def test_the_tables_agree(run: RunTables) -> None:
    """The last point of a layer's curve, the share detected, and a layer's median: the same from each table."""
    qos = run.table("qos")
    suspected = by(qos[qos["milestone"] == "suspected"], "fault")
    last = by(run.table("incidence").groupby("fault").tail(1), "fault")
    causes, omission = (by(run.table("detections_by_layer"), "fault"), by(run.table("omission"), "fault"))
    assert set(suspected) == {("host_crash",), ("refresh",)}
    for fault, row in suspected.items():
        assert last[fault]["incidence"] == row["detected"] / row["n"] == 1
        assert causes[fault]["median_s"] == row["p50_s"], "one layer caught all"
        assert omission[fault]["p50_s"] == row["p50_s"]
    quality = by(run.table("session_quality"), "figure", "fault")
    assert quality["resumed", "refresh"]["count"] == 15
    assert run.table("reconnects")["resumed"].sum() == 15


def test_a_report_that_fails_leaves_no_older_verdict(
    run: RunTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(run.path, again)
    (again / "report.pdf").write_bytes(b"of the older report")
    monkeypatch.setattr("reports.build.draw", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        conclude(RunDir(again))
    assert (again / "qos.csv").exists()
    assert not any(
        (again / name).exists() for name in ("summary.json", "report.html", "report.md", "report.pdf")
    )


def test_a_folder_that_is_no_run_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"no scenario.yaml, so this is no run"):
        measure_run(RunDir(tmp_path))


def test_the_collector_is_as_it_was_before() -> None:
    assert gc.isenabled()
    with gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            pass
        assert not gc.isenabled(), "the outer block is not over"
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), gc_paused():
        _ = 1 / 0
    assert gc.isenabled()
