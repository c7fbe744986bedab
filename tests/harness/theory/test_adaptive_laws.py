"""Laws of detectors that learn, against the model, which drives the gateway's own detectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.theory.predict import predict
from scenarios.schema import Scenario
from tests.harness.simulated.support import K, run_planned
from tests.harness.theory.montecarlo import agrees

SECOND = {"heartbeat_interval": "1s", "heartbeat_timeout": "1s"}
PATIENT = {"session_timeout": None}


def scenario(
    detector: dict[str, Any], at: tuple[str, str], kind: str = "host_crash", **keys: Any
) -> Scenario:
    """All of the clients die, and the last of them is noticed soon before the end."""
    fault = {"kind": kind, "share": "100%", "at": {"uniform": {"low": at[0], "high": at[1]}}}
    given: dict[str, Any] = {"name": "learns", "clients": 300, "duration": "120s", "faults": [fault]}
    return Scenario.model_validate(given | {"detector": detector} | keys)


WIDE = {"round_trip": {"uniform": {"low": "10ms", "high": "80ms"}}}
CASES = {
    f"{kind}, {name}": scenario({"kind": kind, **more}, at, **keys)
    for kind in ("phi_akka", "phi_cassandra")
    for name, more, at, keys in (
        ("learnt", {"samples": 20}, ("60s", "90s"), {"liveness": SECOND}),
        ("learning for a minute", {}, ("60s", "90s"), {"liveness": SECOND}),
        ("learning for seconds", {}, ("2s", "9s"), {"liveness": SECOND, "ramp": "3s", "duration": "40s"}),
        # What a client learnt of 20 beats moves the ends of its own law by up to 20 ms; these draws stay within.
        (
            "round trips spread",
            {"samples": 20},
            ("60s", "90s"),
            {"liveness": SECOND, "network": WIDE, "seed": 2},
        ),
        ("frozen", {"samples": 20}, ("60s", "90s"), {"liveness": SECOND, "kind": "frozen"}),
        ("learning every 30 s", {}, ("100s", "300s"), {"duration": "700s"}),
        (
            "an idle limit races",
            {"samples": 20},
            ("60s", "90s"),
            {"liveness": SECOND | {"session_timeout": "4.2s", "sweep_interval": "2s"}},
        ),
    )
} | {
    "probing, still growing": scenario(
        {"kind": "probing"}, ("100s", "4000s"), duration="5000s", liveness=PATIENT
    ),
    "probing, at its first interval": scenario(
        {"kind": "probing"}, ("1s", "400s"), duration="1000s", liveness=PATIENT
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_death_against_the_model(name: str) -> None:
    found = predict(CASES[name])[0]
    assert found.milestone == "suspected" and found.law is not None, found.note
    agrees(found.law, np.array(run_planned(CASES[name]).since_fault_s(K.SUSPECTED)))


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (scenario({"kind": "probing"}, ("100s", "200s")), "idle limit may run out"),
        (scenario({"kind": "phi_akka"}, ("0s", "20s"), liveness=SECOND, ramp="1s"), "first interval"),
        (
            scenario(
                {"kind": "phi_akka"},
                ("60s", "90s"),
                liveness=SECOND,
                network={"round_trip": {"exponential": {"mean": "200ms"}}},
            ),
            "round trips",
        ),
        (
            scenario({"kind": "phi_cassandra", "threshold": 0.4}, ("60s", "90s"), liveness=SECOND),
            "healthy client",
        ),
        (scenario({"kind": "phi_akka"}, ("60s", "90s"), "throttled_timers", liveness=SECOND), "phi_akka"),
    ],
)
def test_where_one_clients_network_decides_no_law_is_given(what: Scenario, why: str) -> None:
    found = predict(what)[0]
    assert found.law is None and why in found.note
