"""Late answers and closed windows: the model against the closed forms, each fault at random phases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from harness.simulated import simulate
from harness.theory.law import Law
from harness.theory.predict import predict
from reference_server.events import Cause, Event, EventKind
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.harness.theory.montecarlo import agrees

AT = {"uniform": {"low": "5s", "high": "95s"}}
CLIENTS = 300


def scenario(fault: dict[str, Any], **liveness: Any) -> Scenario:
    policy = {"heartbeat_interval": "20s", "heartbeat_timeout": "10s", "max_failures": 3} | liveness
    return Scenario.model_validate(
        {
            "name": "t",
            "clients": CLIENTS,
            "ramp": "40s",
            "duration": "600s",
            "liveness": policy,
            "faults": [{"share": "100%", "at": AT} | fault],
        }
    )


def suspected_s(one: Scenario) -> tuple[np.ndarray[Any, Any], set[str]]:
    """Time from the fault to the first suspicion of each session, nan where there was none; and the causes."""
    events = simulate(one, make_plan(one))
    hit = {e.session_id: e.time_s for e in events if e.kind is EventKind.FAULT_INJECTED}
    first: dict[str, Event] = {}
    for event in events:
        if event.kind is EventKind.SUSPECTED and event.time_s >= hit.get(event.session_id, 1e9):
            first.setdefault(event.session_id, event)
    found = np.array([first[s].time_s - t if s in first else np.nan for s, t in hit.items()])
    return found, {event.cause for event in first.values()}


def law(one: Scenario) -> Law:
    prediction = predict(one)[0]
    assert prediction.law is not None, prediction.note
    return prediction.law


THROTTLED = {
    "half of the phases leave room for the verdict within a minute": ({"every": "60s"}, {}, 0.5),
    "a quick policy throws every hidden page out": (
        {"every": "60s"},
        {"heartbeat_interval": "15s", "heartbeat_timeout": "5s"},
        1.0,
    ),
    "a patient one keeps them": ({"every": "45s"}, {}, 0.0),
    "the phase moves from period to period": ({"every": "57s"}, {}, 1.0),
}


@pytest.mark.parametrize("name", THROTTLED)
def test_throttled_timers(name: str) -> None:
    fault, liveness, share = THROTTLED[name]
    one = scenario({"kind": "throttled_timers"} | fault, **liveness)
    found, causes = suspected_s(one)
    assert law(one).mass == pytest.approx(share, abs=0.01)
    assert np.isfinite(found).mean() == pytest.approx(share, abs=0.05)
    if share:
        assert causes == {Cause.HEARTBEAT}
        agrees(law(one), found)


DELAYED = {
    "later than the deadline alone: a miss, and never a verdict": ("30s", 0.0),
    "always later than the whole patience": ({"uniform": {"low": "51s", "high": "80s"}}, 1.0),
}


@pytest.mark.parametrize("name", DELAYED)
def test_delayed(name: str) -> None:
    by, share = DELAYED[name]
    one = scenario({"kind": "delayed", "by": by})
    found, _ = suspected_s(one)
    assert law(one).mass == np.isfinite(found).mean() == share
    if share:
        agrees(law(one), found)


def test_a_lateness_around_the_patience_has_no_closed_form_but_a_simulation() -> None:
    one = scenario({"kind": "delayed", "by": {"exponential": {"mean": "40s"}}})
    assert predict(one)[0].law is None
    assert 0.2 < np.isfinite(suspected_s(one)[0]).mean() <= 1.0


def test_a_fast_answer_again_is_the_recovery() -> None:
    one = scenario({"kind": "throttled_timers", "every": "45s", "heal_after": "100s"})
    events = simulate(one, make_plan(one))
    healed = [e for e in events if e.kind is EventKind.FAULT_HEALED]
    assert len(healed) == CLIENTS
    assert len([e for e in events if e.kind is EventKind.FAULT_RECOVERED]) == CLIENTS


def test_one_that_was_thrown_out_comes_back_by_itself() -> None:
    one = scenario(
        {"kind": "throttled_timers"}, heartbeat_interval="15s", heartbeat_timeout="5s", resume_window="300s"
    )
    events = simulate(one, make_plan(one))
    assert len([e for e in events if e.kind is EventKind.FAULT_RECOVERED]) == CLIENTS
    # and is a fast client then: nobody is thrown out twice
    assert len([e for e in events if e.kind is EventKind.SUSPECTED]) == CLIENTS


LOSS: dict[str, tuple[float, dict[str, Any]]] = {
    "every other packet: m tries in time, 2^-m a heartbeat": (0.5, {}),
    "some come later than the next heartbeat, which queues behind them": (0.7, {"max_failures": 5}),
    "nearly all: the first heartbeat mostly decides": (0.95, {}),
    "so few that hardly anybody is thrown out": (0.1, {}),
    "the first miss is the verdict": (0.6, {"heartbeat_timeout": "7s", "max_failures": 1}),
}


@pytest.mark.parametrize("name", LOSS)
def test_packet_loss(name: str) -> None:
    rate, liveness = LOSS[name]
    one = scenario({"kind": "packet_loss", "rate": rate}, **liveness)
    found, causes = suspected_s(one)
    of = law(one)
    # A client that nobody has thrown out by the run's end has been watched for as long as the others.
    end_s = 500.0
    share, seen = float(of.cdf(np.array([end_s]))[0]), found[found <= end_s]
    assert len(seen) / CLIENTS == pytest.approx(
        share, abs=4 * max(0.02, (share * (1 - share) / CLIENTS) ** 0.5)
    )
    if share > 0.5:
        assert causes == {Cause.HEARTBEAT}
        # given that it happens by then
        assert kstest(of.cdf(seen) / share, "uniform").pvalue > 1e-4


def test_tcp_brings_what_was_lost_before_the_loss_was_over() -> None:
    one = scenario({"kind": "packet_loss", "rate": 0.5, "heal_after": "30s"})
    events = simulate(one, make_plan(one))
    healed = [e for e in events if e.kind is EventKind.FAULT_HEALED]
    back = {e.session_id for e in events if e.kind is EventKind.FAULT_RECOVERED}
    assert len(healed) > CLIENTS * 0.9
    assert {e.session_id for e in healed} <= back


SLOW_READER = {
    "nothing but the missing answer tells": ({}, {Cause.HEARTBEAT}, (50, 70)),
    "TCP_USER_TIMEOUT counts from the moment the window closes": (
        {"tcp_user_timeout": "30s"},
        {Cause.TCP_TIMEOUT},
        (30.4, 30.5),
    ),
    "and may race the heartbeat": (
        {"tcp_user_timeout": "60s"},
        {Cause.TCP_TIMEOUT, Cause.HEARTBEAT},
        (50, 60.5),
    ),
}


@pytest.mark.parametrize("name", SLOW_READER)
def test_slow_reader(name: str) -> None:
    liveness, causes, (low, high) = SLOW_READER[name]
    one = scenario({"kind": "slow_reader"}, **liveness)
    found, seen = suspected_s(one)
    assert seen == causes
    assert low - 0.01 <= found.min() <= found.max() <= high
    if causes == {Cause.HEARTBEAT}:
        agrees(law(one), found)
    else:
        assert predict(one)[0].law is None  # the real kernel's probe timer is too coarse for one
