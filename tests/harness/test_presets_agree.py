"""Every preset against every fault of the claims: what theory says and what the simulation sees are the same."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pandas as pd
import pytest

from harness.measure.one_engine import measure
from harness.simulated import simulate
from harness.theory.predict import predict
from reference_server.presets import find_preset, load_presets
from scenarios.clock import SCENARIO_TIME
from scenarios.plan import make_plan
from scenarios.schema import Scenario

KINDS = ("orderly_close", "refresh", "network_cut", "frozen", "process_crash")
CLIENTS = 160
SLACK_S = 0.01  # a round trip of the model, and where its events meet


def scenario(preset: str, kinds: tuple[str, ...] = KINDS, **changes: Any) -> Scenario:
    """Faults over a whole sweep, so that its phase is uniform; long enough for TCP to give up."""
    span_s = max(90.0, find_preset(preset).policy.sweep_interval)
    at = {"uniform": {"low": 40.0, "high": 40.0 + span_s}}
    given: dict[str, Any] = {
        "name": "agree",
        "clients": CLIENTS,
        "ramp": 60.0,
        "duration": span_s + 1100.0,
        "preset": preset,
        "faults": [{"kind": kind, "share": 0.96 / len(kinds), "at": at} for kind in kinds],
    }
    if find_preset(preset).second_login == "refuse":
        given["reconnect"] = {"relogin": {"after": 3.0, "retry": 7.0}}
    return Scenario.model_validate(given | changes)


@cache
def seen(preset: str) -> pd.DataFrame:
    what = scenario(preset)
    plan = make_plan(what)
    events = simulate(what, plan)
    return measure(events, plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=plan.horizon_s).tables[
        "detections"
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", load_presets())
def test_the_simulation_is_within_theory_s_law(preset: str, kind: str) -> None:
    table = seen(preset)
    checked = 0
    for prediction in predict(scenario(preset, (kind,))):
        law = prediction.law
        rows = table[(table["fault"] == kind) & (table["milestone"] == prediction.milestone)]
        if law is None or (rows["outcome"] == "not_applicable").all():
            continue
        checked += 1
        found = rows[rows["outcome"] == "detected"]
        assert len(found) == round(law.mass * len(rows)), (prediction.milestone, law.mass)
        if found.empty:
            continue
        late_s = SLACK_S * (300 if prediction.milestone == "locked_out" else 1)  # tries take time
        assert found["duration_s"].between(law.lo_s - SLACK_S, law.hi_s + late_s).all()
        six_errors = 6 * (law.hi_s - law.lo_s + SLACK_S) / math.sqrt(12 * len(found))
        assert found["duration_s"].mean() == pytest.approx(law.mean_s, abs=six_errors + late_s)
        if prediction.milestone == "suspected":
            assert found["cause"].mode()[0] == prediction.cause
    assert checked >= 2


# What was known before anything was built: preset, fault, the layer, the law's ends. Seconds.
KNOWN: dict[tuple[str, str], tuple[str, float, float]] = {
    ("b-as-meant", "network_cut"): ("heartbeat", 70.0, 100.0),
    ("b-as-written", "network_cut"): ("session_timeout", 270.0, 330.0),
    ("b-as-written", "process_crash"): ("tcp_fin", 0.0, 0.0),
    # 924.6 s of tcp_retries2 = 15, at the kernel's first timer that is no earlier: see `ladder_give_up_s`
    ("b-heartbeat-alone", "network_cut"): ("tcp_timeout", 933.6, 963.6),
    ("b-heartbeat-alone", "frozen"): ("", math.nan, math.nan),
    ("a-before", "network_cut"): ("", math.nan, math.nan),
    ("a-before", "process_crash"): ("", math.nan, math.nan),
    ("a-after", "network_cut"): ("state_check", 933.6, 1020.0),
    ("a-after", "process_crash"): ("state_check", 0.0, 60.0),
    ("c-as-meant", "network_cut"): ("session_timeout", 60.0, 100.0),  # (TO − T, TO + S]
    ("ours", "network_cut"): ("heartbeat", 20.0, 40.0),
    ("ours", "frozen"): ("heartbeat", 20.0, 40.0),
}


@pytest.mark.parametrize(("preset", "kind"), KNOWN)
def test_known_answers(preset: str, kind: str) -> None:
    cause, lo_s, hi_s = KNOWN[preset, kind]
    found = next(p for p in predict(scenario(preset, (kind,))) if p.milestone == "suspected")
    assert found.law is not None
    assert found.cause == cause
    assert [found.law.lo_s, found.law.hi_s] == pytest.approx([lo_s, hi_s], abs=0.01, nan_ok=True)


def test_a_ghost_locks_its_user_out_for_ever_before_and_until_tcp_gives_up_after() -> None:
    for preset, ends in (("a-before", {"censored"}), ("a-after", {"detected"})):
        rows = seen(preset).query("fault == 'network_cut' and milestone == 'locked_out'")
        assert set(rows["outcome"]) == ends
    assert rows["duration_s"].between(933.0, 1020.0 + 7.3).all()


def test_negative_control_the_gateway_as_written_is_not_as_meant() -> None:
    law = next(p.law for p in predict(scenario("b-as-meant", ("network_cut",))) if p.milestone == "suspected")
    assert law is not None
    rows = seen("b-as-written").query("fault == 'network_cut' and milestone == 'suspected'")
    assert (rows["duration_s"] > law.hi_s + SLACK_S).all()


# -- layers that no preset has -------------------------------------------------------------------

VARIANTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a failing write decides where close detection does not": (
        {"preset": "b-heartbeat-alone", "liveness": {"close_detection": "none"}},
        "network_cut",
        "send_error",
    ),
    "a crash that is not heard is found by the next write": (
        {"preset": "b-heartbeat-alone", "liveness": {"close_detection": "frames"}},
        "process_crash",
        "send_error",
    ),
    "a crash that is not heard runs into the answer's deadline": (
        {"preset": "b-as-meant", "liveness": {"close_detection": "frames"}},
        "process_crash",
        "heartbeat",
    ),
    "kernel probes find an idle connection": (
        {"preset": "c-as-meant", "liveness": {"tcp_keepalive": {"idle": 40.0, "interval": 5.0, "count": 2}}},
        "network_cut",
        "tcp_timeout",
    ),
    "kernel probes are answered for a frozen client": (
        {"preset": "c-as-meant", "liveness": {"tcp_keepalive": {"idle": 40.0, "interval": 5.0, "count": 2}}},
        "frozen",
        "session_timeout",
    ),
    "the user timeout bounds a heartbeat that only sends": (
        {"preset": "b-as-written", "liveness": {"tcp_user_timeout": 60.0}},
        "network_cut",
        "tcp_timeout",
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_layers_that_no_preset_has(name: str) -> None:
    changes, kind, cause = VARIANTS[name]
    preset = changes["preset"]
    what = scenario(preset, (kind,), **{k: v for k, v in changes.items() if k != "preset"})
    plan = make_plan(what)
    table = measure(
        simulate(what, plan), plan, engine="simulated", clock=SCENARIO_TIME, horizon_s=plan.horizon_s
    ).tables["detections"]
    found = next(p for p in predict(what) if p.milestone == "suspected")
    rows = table[(table["fault"] == kind) & (table["milestone"] == "suspected")]
    assert found.law is not None
    assert found.cause == cause and rows["cause"].mode()[0] == cause
    assert set(rows["outcome"]) == {"detected"}
    assert rows["duration_s"].between(found.law.lo_s - SLACK_S, found.law.hi_s + SLACK_S).all()
    six_errors = 6 * (found.law.hi_s - found.law.lo_s) / math.sqrt(12 * len(rows))
    assert rows["duration_s"].mean() == pytest.approx(found.law.mean_s, abs=six_errors + SLACK_S)
