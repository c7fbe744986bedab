"""By when the store must agree again after an incident, and what counts as in time."""

from __future__ import annotations

import numpy as np
import pytest

from harness.judge.incidents import judge_incidents
from reports.run_tables import frame
from scenarios.load import parse_scenario

NAN = np.nan
SCENARIO = parse_scenario("{name: s, clients: 100, duration: 60s, speedup: 5, gateway: {nodes: 2}}")
LEASE = SCENARIO.gateway.lease
BOUND_S = LEASE.ttl + LEASE.check


@pytest.mark.parametrize(
    ("late_s", "watched_s", "verdict"),
    [
        (-1.0, 100.0, "pass"),
        (0.55, 100.0, "pass"),  # by ε, and by the width of the look
        (0.56, 100.0, "fail"),
        (NAN, 100.0, "fail"),  # never, though watched for longer than the bound
        (NAN, 5.0, "unknown"),  # the run ended first
    ],
)
def test_in_time_is_the_bound_and_what_the_measurement_may_be_off(
    late_s: float, watched_s: float, verdict: str
) -> None:
    agrees_s = BOUND_S + late_s
    row = (
        "real",
        "crash",
        "node_crash",
        "node-2",
        True,
        110.0,
        NAN,
        watched_s,
        88,
        88,
        88,
        0,
        0.5,
        1.0,
        1.2,
        18.4,
        agrees_s,
        agrees_s,
        0.25,
        0,
        NAN,
        "",
    )
    found = judge_incidents(frame("incidents", [row]), SCENARIO, epsilon_s=0.3).iloc[0]
    assert (found["bound_s"], found["in_time"]) == (BOUND_S, verdict)


def test_an_incident_without_a_bound_is_not_judged() -> None:
    row = (
        "real",
        "x",
        "unheard_of",
        "",
        False,
        1.0,
        NAN,
        9.0,
        1,
        0,
        0,
        0,
        NAN,
        NAN,
        NAN,
        NAN,
        1.0,
        1.0,
        0.1,
        0,
        NAN,
        "",
    )
    found = judge_incidents(frame("incidents", [row]), SCENARIO, epsilon_s=0.3).iloc[0]
    assert np.isnan(found["bound_s"])
    assert found["in_time"] == "unknown"


def test_no_incident_is_an_empty_table() -> None:
    assert judge_incidents(frame("incidents"), SCENARIO, 0.0).dtypes.equals(frame("incidents").dtypes)
