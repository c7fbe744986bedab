"""When an incident began, for the log: before anybody could be hurt by it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from harness.events.log import read_log
from harness.real.incidents import Incidents
from reference_server.events import EventKind
from scenarios.clock import SCENARIO_TIME
from scenarios.plan import make_plan
from scenarios.schema import Scenario


class Busy:
    """A node and a store to which things happen late: the process that sent the signal had to wait for the core."""

    name = "node-1"
    runs = True

    def __init__(self) -> None:
        self.hurt_s: list[float] = []

    def __getitem__(self, number: int) -> Busy:
        return self

    def hurt(self, number: int | None = None, *, host: bool = False) -> bool:
        self.hurt_s.append(time.monotonic())
        time.sleep(0.02)
        return True

    kill = drain = stall = flush = reset_connections = hurt


@pytest.mark.parametrize(
    "incident",
    [
        {"kind": "node_crash", "at": 0.0, "node": 1},
        {"kind": "node_drain", "at": 0.0, "node": 1},
        {"kind": "gateway_stall", "at": 0.0, "node": 1, "length": 9.0},
        {"kind": "store_flush", "at": 0.0},
        {"kind": "reconnect_storm", "at": 0.0},
    ],
)
def test_an_incident_begins_before_it_hurts(incident: dict[str, Any], tmp_path: Path) -> None:
    told = Scenario.model_validate({"name": "t", "duration": 60.0, "incidents": [incident]})
    plan, busy, log = make_plan(told), cast(Any, Busy()), tmp_path / "harness.jsonl"
    due_s = time.monotonic()
    incidents = Incidents(plan, SCENARIO_TIME, busy, busy, {}, log, 0.0)
    incidents(due_s, due_s - plan.incidents[0].at_s)
    (event,) = [e for e in read_log(log).events if e.kind is EventKind.INCIDENT_STARTED]
    assert due_s <= event.time_s <= busy.hurt_s[0]
