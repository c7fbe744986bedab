"""A whole search in the model, whose knee is known: a loop that a heartbeat keeps busy for so long."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.judge.thresholds import ThresholdError
from harness.studies.capacity import find_knee as searching
from harness.studies.capacity import steps
from harness.studies.capacity.find_knee import Search, search
from reference_server.errors import Exit, FlatlineError
from scenarios.schema import Scenario

SERVICE_S = 0.2  # of a heartbeat: 150 clients at T = 30 s keep the loop busy for good


def scenario(**changes: Any) -> Scenario:
    given: dict[str, Any] = {
        "name": "busy",
        "duration": "90s",
        "ramp": "30s",
        "gateway": {"heartbeat_service": SERVICE_S},
        "thresholds": ["false_suspicions.count == 0", "heartbeat_lateness.p99 < 1s"],
    }
    return Scenario.model_validate(given | changes)


@pytest.mark.usefixtures("pictures")
def test_the_knee_of_a_loop_of_known_speed(tmp_path: Path) -> None:
    what = Search(start=25, maximum=400, real=False, nodes=(1, 2), users=(10_000,))
    told: list[str] = []
    found = search(scenario(), what, tmp_path, told.append)
    folder = found.report.parent
    table = pd.read_csv(folder / "steps.csv")
    assert len(told) == len(table) + 1, "and the node that is lost"
    knees = table[table["holds"]].groupby("nodes")["clients"].max()
    broke = table[~table["holds"]].groupby("nodes")["clients"].min()
    assert 100 < knees[1] < 150 < 1.3 * broke[1]
    assert 200 < knees[2] < 300 < 1.5 * broke[2]
    assert set(table["engine"]) == {"simulated"}
    assert table["missed"].dropna().str.contains("heartbeat_lateness").any()
    said = json.loads((folder / "capacity.json").read_text())
    assert said["clients_held"] == knees[1]
    assert said["node_loss"]["nodes"] == 2
    assert said["node_loss"]["back_s"] > 0
    assert "cannot tell" in said["scaling"][0]
    assert list(pd.read_csv(folder / "scaling.csv")["clients"]) == [knees[1], knees[2]]
    for name in ("report.html", "report.md", "figures/capacity.svg", "figures/node_loss.png"):
        assert (folder / name).stat().st_size > 1000, name
    assert "cannot tell" in (folder / "report.md").read_text()


def test_four_numbers_of_nodes_are_fitted(tmp_path: Path) -> None:
    """Nodes of the model do not get in each other's way: next to no contention, and the law says so."""
    bound = ["heartbeat_lateness.p99 < 4s"]
    busy = scenario(gateway={"heartbeat_service": 0.4}, duration="60s", thresholds=bound)
    what = Search(
        start=30, maximum=480, factor=2.0, resolution=0.2, real=False, nodes=(1, 2, 3, 4), node_loss=False
    )
    found = search(busy, what, tmp_path)
    assert any("R²" in line for line in found.lines), found.lines
    law = pd.read_csv(found.report.parent / "law.csv")
    assert (law["lo"] <= law["hi"]).all()
    points = pd.read_csv(found.report.parent / "scaling.csv")
    assert points["clients"].iloc[3] > 3 * points["clients"].iloc[0]


def test_ctrl_c_reports_what_was_stepped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = steps.run_step
    seen: list[int] = []

    def interrupted(*args: Any, **keys: Any) -> Any:
        seen.append(keys["clients"])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return done(*args, **keys)

    monkeypatch.setattr(searching, "run_step", interrupted)
    found = search(scenario(), Search(start=20, maximum=100, real=False), tmp_path)
    assert found.interrupted
    assert len(pd.read_csv(found.report.parent / "steps.csv")) == 2
    assert "partial" in found.report.read_text()


def test_a_load_without_a_fault_cannot_keep_its_bound(tmp_path: Path) -> None:
    few = scenario(faults=[{"kind": "frozen", "share": "2%", "at": "5s"}])
    with pytest.raises(FlatlineError, match="start 20: 2 % of them is nobody"):
        search(few, Search(start=20, maximum=40, real=False), tmp_path)


def test_without_thresholds_nothing_can_break(tmp_path: Path) -> None:
    with pytest.raises(ThresholdError, match="no thresholds"):
        search(scenario(thresholds=[]), Search(real=False), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path) -> None:
    given = tmp_path / "calibration.yaml"
    arguments = ["capacity", "--simulated", "--start", "30", "--max", "40", "--runs", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "280 µs a heartbeat, 3.2 ms a login" in done.stderr, "nobody's own, and it is told"
    given.write_text("gateway: {heartbeat_service: 1ms, handshake_service: 5ms}\n")
    for old in tmp_path.glob("2*"):
        shutil.rmtree(old)
    arguments += ["--calibration", str(given)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "no --calibration" not in done.stderr
    assert "nothing broke up to 40 clients, the highest load that was tried" in done.output
    assert "1 of 2 nodes with 40 clients died" in done.stderr
    assert "nodes, of which one may die" in done.stdout
    (report,) = tmp_path.glob("*-capacity-*/report.md")
    for text in (done.output, report.read_text(), (report.parent / "capacity.json").read_text()):
        assert not re.search(r"\bnan\b|NaN|\bknees?\b", text), text
    assert CliRunner().invoke(app, [*arguments, "--nodes", "0"]).exit_code == 2
    assert CliRunner().invoke(app, [*arguments, "--factor", "1"]).exit_code == 2
    assert len(list(tmp_path.glob("*-capacity-*"))) == 1, "nothing is left of what was refused"


def test_where_no_load_holds_there_is_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = search(scenario(), Search(start=400, maximum=400, real=False), tmp_path / "broken")
    assert broken.exit_code is Exit.UNDECIDED
    assert not broken.plan
    assert "--start 100" in broken.lines[-1]
    done = steps.run_step

    def late(*args: Any, **keys: Any) -> Any:
        return replace(done(*args, **keys), sound=False, holds=False, limit="unsound: late by 3 s")

    monkeypatch.setattr(searching, "run_step", late)
    unsound = search(scenario(), Search(start=40, maximum=40, real=False), tmp_path / "unsound")
    assert unsound.exit_code is Exit.UNSOUND
    assert not unsound.plan
    assert not pd.read_csv(unsound.report.parent / "steps.csv")["sound"].any()
    for told in ("\n".join(unsound.lines), unsound.report.read_text()):
        assert "no load was sound" in told
        assert "a machine that does nothing else" in told
        assert "late by 3 s" in told


def test_a_longer_back_off_has_a_number(tmp_path: Path) -> None:
    slow = scenario(gateway={"heartbeat_service": "1ms", "handshake_service": "2s"})
    slow = slow.model_copy(update={"thresholds": ("false_suspicions.count >= 0",)})
    found = search(slow, Search(start=10, maximum=20, real=False, users=(1000,), node_loss=False), tmp_path)
    (told,) = (line for line in found.lines if "back-off" in line)
    assert re.search(r"spread over [\d,]+ s \(reconnect\.backoff_base\) at most [\d,]+ a second", told), told
    assert any("waits for 0 to 1 s" in line for line in found.assumed)


@pytest.mark.parametrize(
    ("late", "told"), [(1, "the knee lies between"), (9, "this machine was late itself")]
)
def test_a_machine_that_is_late_itself_is_no_knee(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int, told: str
) -> None:
    """A load in whose run the machine was late is tried once more; late again, it says nothing of the gateway."""
    done = steps.run_step
    tried: list[int] = []

    def run(*args: Any, clients: int, **keys: Any) -> Any:
        step = done(*args, clients=clients, **keys)
        tried.append(clients)
        if clients != 80 or tried.count(80) > late:
            return step
        return replace(step, sound=False, holds=False, limit="unsound: late by 3 s", cpu_percent_busiest=40.0)

    monkeypatch.setattr(searching, "run_step", run)
    found = search(scenario(), Search(start=40, maximum=400, real=False, node_loss=False), tmp_path)
    assert tried.count(80) == 2
    (line,) = (line for line in found.lines if line.startswith("1 node: "))
    assert told in line
    page = found.report.read_text()
    assert ("at the knee" in page) is (late == 1)
    assert ("how much more is not known" in page) is (late == 9)
