"""What befalls gateway nodes and Redis, with real processes: nobody stays away, no ghost outlasts its bound.

Real time: T = 0.6 s, lease 1.5 / 0.5 / 0.5 s. Bounds are the table's own (`harness/measure/incidents.py`), plus ε
and the width of the store watch's look, as measured in the run.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.real.errors import CannotRun
from harness.real.incidents import check_incidents
from harness.run import run
from reference_server.errors import Exit
from reference_server.events import EventKind
from scenarios.load import parse_scenario
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.harness.test_run import latest, measured, run_and, summary
from tests.support import is_gone, require_silence

pytestmark = [pytest.mark.real, pytest.mark.root, pytest.mark.timeout(180)]

POLICY = (
    "liveness: {heartbeat_interval: 6s, heartbeat_timeout: 2s, max_failures: 3, resume_window: 4s}\n"
    "gateway: {nodes: 3}\n"
)


def scenario(text: str) -> Scenario:
    base = "name: small\nseed: 3\nclients: 60\nramp: 6s\nduration: 64s\nspeedup: 10\n"
    return parse_scenario(base + POLICY + text)


def rows(directory: Path) -> pd.DataFrame:
    table = pd.read_csv(directory / "incidents.csv")
    return table[table["engine"] == "real"].set_index("incident_id")


def test_a_crash_a_flush_an_empty_restart_and_a_deploy_leave_no_ghost_and_nobody_away(tmp_path: Path) -> None:
    """60 clients on three nodes; two in five lost power just before the crash, so only the lease clears theirs."""
    require_silence()
    text = """faults: [{kind: host_crash, share: 40%, at: {uniform: {low: 2s, high: 3s}}}]
incidents:
  - {kind: node_crash, at: 4s, node: 2, restart_after: 5s}
  - {kind: store_flush, at: 31s}
  - {kind: store_restart, at: 38s, down: 3s, keeps: false}
  - {kind: node_drain, at: 54s, node: 1}
"""
    told = scenario(text)
    outcome = run(told, engines=("theory", "real"), root=tmp_path)
    directory = latest(tmp_path)
    found = rows(directory)
    # Theory has no law for incidents, so nothing is compared.
    assert outcome.exit_code in (Exit.UNDECIDED, Exit.UNSOUND), outcome
    assert list(found.index) == [one.incident_id for one in make_plan(told).incidents]
    assert found["clients_away"].eq(0).all(), found["clients_away"]
    assert found.loc[["node_crash", "node_drain"], "clients_lost"].gt(0).all()
    assert found.loc[["store_flush", "store_restart"], "clients_lost"].eq(0).all()
    slack = summary(directory)["epsilon_s"] + found["grain_s"]
    late = found["store_agrees_s"] - found["bound_s"] - slack
    assert late.le(0).all(), found[["store_agrees_s", "bound_s", "grain_s"]]
    crash = found.loc["node_crash"]
    assert crash["ghosts_gone_s"] <= crash["store_agrees_s"]
    # Who died with the node was found by its lease, between ttl - renew and ttl + check.
    assert 10.0 - slack["node_crash"] <= crash["detected_s"] <= 20.0 + slack["node_crash"]
    assert (measured(directory, "false_suspicions")["count"] == 0).all()


def test_a_node_that_dies_unplanned_ends_the_run_with_a_report_that_says_so(tmp_path: Path) -> None:
    require_silence()

    def kill(pids: dict[str, int]) -> None:
        os.kill(pids["gateway/node-2"], signal.SIGKILL)

    outcome, pids = run_and(scenario(""), tmp_path, EventKind.CONNECTED, kill)
    assert outcome.exit_code == Exit.UNSOUND, outcome
    assert all(is_gone(pid) for pid in pids.values())
    told = summary(latest(tmp_path))
    assert told["status"] == "partial"
    assert told["unsound_reasons"][0] == "gateway node-2 was killed by SIGKILL"
    assert "gateway node-2 was killed by SIGKILL" in (latest(tmp_path) / "report.md").read_text()


@pytest.mark.parametrize(
    ("incident", "redis_url", "says"),
    [
        ({"kind": "node_crash", "at": 5.0, "by": "host"}, "redis://h/0", "reaches nothing outside"),
        ({"kind": "store_restart", "at": 5.0, "down": 2.0}, "redis://h/0", "not ours to restart"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    incident: dict[str, Any], redis_url: str | None, says: str
) -> None:
    what = Scenario.model_validate({"name": "t", "duration": 60.0, "incidents": [incident]})
    with pytest.raises(CannotRun, match=says):
        check_incidents(make_plan(what), redis_url)
