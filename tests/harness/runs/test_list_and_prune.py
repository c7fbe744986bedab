from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.conclude import conclude
from harness.events.log import write_log
from harness.runs.directory import RunDir, RunDirError, new_run
from harness.runs.list_and_prune import describe, list_runs, prune, table
from harness.simulated import simulate
from reference_server.config import GatewayConfig
from reference_server.errors import FlatlineError
from reports.gallery import draw
from scenarios.load import dump_scenario, parse_scenario
from scenarios.plan import make_plan

DAY_S = 86400.0
NOW_S = 1_767_225_600.0  # 2026-01-01 00:00 UTC


def make(root: Path, name: str, *, status: str = "complete", verdict: str | None = "pass") -> Path:
    path = root / name
    path.mkdir(parents=True)
    RunDir(path).marker.touch()
    (path / "scenario.yaml").write_text("name: demo\n")
    started = f"{name[:4]}-{name[4:6]}-{name[6:8]}T{name[9:11]}:00:00+00:00"
    write(
        path / "run.json",
        scenario="demo",
        started=started,
        status=status,
        seed=7,
        engines=["theory", "simulated"],
    )
    if verdict:
        write(path / "summary.json", verdict=verdict, status=status, counts={"clients": 640, "faults": 550})
    (path / "events.jsonl").write_bytes(b"x" * 3_000_000)
    return path


def write(path: Path, **content: Any) -> None:
    path.write_bytes(orjson.dumps(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs of three days, the newest of which `latest` does *not* point at, and what is no run."""
    for name in ("20251229-100000-demo", "20251230-100000-demo", "20251231-100000-demo"):
        make(tmp_path, name)
    (tmp_path / "latest").symlink_to("20251230-100000-demo")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_text("mine")
    return tmp_path


def names(runs: Any) -> list[str]:
    return [run.name[:8] for run in runs]


def test_runs_are_listed_newest_first_and_other_folders_are_not(root: Path) -> None:
    runs = list_runs(root)
    assert names(runs) == ["20251231", "20251230", "20251229"]
    assert [run.latest for run in runs] == [False, True, False]
    first = runs[0]
    assert (first.scenario, first.verdict, first.clients, first.faults) == ("demo", "pass", 640, 550)
    assert 3_000_000 < first.size_bytes < 3_010_000
    header, rows = table(runs)
    assert all(len(row) == len(header) for row in rows)
    assert rows[0][-1] == "3\u00a0MiB"


def test_no_folder_is_no_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "runs") == []
    assert prune(tmp_path / "runs", keep=0).gone == ()


def test_by_default_nothing_goes(root: Path) -> None:
    told = prune(root, keep=1)
    assert names(told.gone) == ["20251229"]
    assert told.freed_bytes > 3_000_000
    assert len(list_runs(root)) == 3


@pytest.mark.parametrize(
    ("sentence", "rules", "left"),
    [
        ("the newest one stays, and the latest one", {"keep": 1}, ["20251231", "20251230"]),
        ("even keep=0 leaves the latest", {"keep": 0}, ["20251230"]),
        ("what is young stays", {"older_than_s": 2 * DAY_S}, ["20251231", "20251230"]),
        (
            "with both rules what either keeps stays",
            {"keep": 3, "older_than_s": 0.0},
            ["20251231", "20251230", "20251229"],
        ),
        ("older than a week: none", {"older_than_s": 7 * DAY_S}, ["20251231", "20251230", "20251229"]),
    ],
)
def test_pruning(sentence: str, rules: dict[str, Any], left: list[str], root: Path) -> None:
    done = prune(root, **rules, dry_run=False, now_s=NOW_S)
    assert names(list_runs(root)) == left, sentence
    assert {run.path for run in done.gone}.isdisjoint(root.iterdir())
    assert (root / "notes" / "read.me").exists()
    assert (root / "latest").is_dir()


def test_what_may_still_be_running_stays_until_it_is_abandoned(root: Path) -> None:
    path = make(root, "20251228-100000-demo", status="running", verdict=None)
    now_s = (path / "events.jsonl").stat().st_mtime + 10
    told = prune(root, keep=3, now_s=now_s)
    assert [(run.name[:8], why) for run, why in told.spared] == [("20251228", "it may still be running")]
    assert names(prune(root, keep=3, now_s=now_s + DAY_S).gone) == ["20251228"]


def test_a_folder_that_only_looks_like_a_run_stays(root: Path) -> None:
    theirs = root / "20251229-100000-demo"
    RunDir(theirs).marker.unlink()
    done = prune(root, keep=0, dry_run=False)
    assert names(done.gone) == ["20251231"]
    assert "no .flatline-run in it" in {run.path: why for run, why in done.spared}[theirs]
    assert (theirs / "scenario.yaml").exists()


def test_what_a_gateway_is_told_is_for_us_alone(tmp_path: Path) -> None:
    """It has the operator's token, and may have passwords of Redis and ledger."""
    run = new_run(tmp_path, "demo")
    told = run.write_gateway_config(GatewayConfig(operator_token="secret"))
    assert told.stat().st_mode & 0o777 == 0o600
    assert run.gateway_configs()[0].operator_token == "secret"


def test_what_we_make_may_go(root: Path) -> None:
    ours = new_run(root, "ours").path
    (ours / "scenario.yaml").touch()
    new_run(root, "latest")
    assert ours in [run.path for run in prune(root, keep=0).gone]


def test_without_a_link_the_newest_is_the_latest(root: Path) -> None:
    (root / "latest").unlink()
    prune(root, keep=0, dry_run=False)
    assert names(list_runs(root)) == ["20251231"]


def test_a_link_in_a_run_is_removed_and_not_followed(root: Path, tmp_path: Path) -> None:
    (root / "20251229-100000-demo" / "elsewhere").symlink_to(root / "notes")
    prune(root, keep=1, dry_run=False)
    assert (root / "notes" / "read.me").exists()
    assert not (root / "20251229-100000-demo").exists()


@pytest.mark.parametrize(("rules"), [{}, {"keep": -1}, {"older_than_s": -1.0}])
def test_a_rule_that_says_nothing_is_refused(rules: dict[str, Any], root: Path) -> None:
    with pytest.raises(FlatlineError, match="keep"):
        prune(root, **rules, dry_run=False)
    assert len(list_runs(root)) == 3


def test_a_damaged_run_is_listed_and_can_go(root: Path) -> None:
    (root / "20251229-100000-demo" / "run.json").write_text("{torn")
    (root / "20251229-100000-demo" / "summary.json").unlink()
    damaged = list_runs(root)[-1]
    assert (damaged.name[:8], damaged.status) == ("20251229", "no report")
    assert f"{damaged.started:%Y-%m-%d}" == "2025-12-29", "from its name"
    assert names(prune(root, keep=1).gone) == ["20251229"]


def test_a_folder_that_is_no_run_cannot_be_shown(root: Path) -> None:
    with pytest.raises(RunDirError, match="not a run directory"):
        describe(root / "notes")


def test_a_run_directory_copied_elsewhere_still_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = parse_scenario(
        "{name: tiny, clients: 20, ramp: 10s, duration: 150s, faults: "
        "[{kind: host_crash, share: 50%, at: {uniform: {low: 5s, high: 30s}}}]}"
    )
    plan = make_plan(scenario)
    home = RunDir(tmp_path / "home" / "20260101-000000-tiny")
    home.logs.mkdir(parents=True)
    home.scenario.write_text(dump_scenario(scenario))
    plan.save(home.plan)
    write_log(home.logs / "simulation.jsonl", simulate(scenario, plan))
    first = conclude(home)
    away = tmp_path / "away" / "from-a-colleague"
    shutil.copytree(home.path, away)
    shutil.rmtree(home.path)
    shutil.rmtree(away / "logs")
    monkeypatch.setattr("reports.build.draw", draw)
    second = conclude(RunDir(away))
    assert (second.headline, second.exit_code) == (first.headline, first.exit_code)
    assert second.report.parent == away
    assert str(home.path) not in second.report.read_text()
    assert describe(away).clients == 20
    assert any((away / "figures").iterdir())
