"""The fleet beside the closed forms: confirms the right, contradicts the wrong, says what it does not know."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from harness.policy.tune.check import SimulationCheck, check_by_simulation, compare, neighbours
from harness.policy.tune.conditions import conditions_of_profile
from harness.policy.tune.explain import explain
from harness.policy.tune.recommend import Recommendation, recommend
from harness.policy.tune.requirements import parse_requirements
from harness.simulated.fleet import not_simulated, run_fleet
from reference_server.liveness.socket_checks import SendErrors
from scenarios.faults.host_crash import HostCrash
from scenarios.load import built_in, load_scenario

# 25,000 client-days of each of three policies, however slow the machine is.
simulate = partial(check_by_simulation, client_days=75_000.0, at_most_s=600.0)
KNOWN = {"host_crash", "network_cut", "frozen", "nat_timeout"}


@cache
def answer(profile: str) -> Recommendation:
    return recommend(conditions_of_profile(profile), parse_requirements(detect_p99="60s"))


@cache
def checked(profile: str) -> SimulationCheck:
    return simulate(answer(profile))


@pytest.mark.parametrize("profile", ["office-wifi-60s-lb", "data-centre", "home-nat"])
def test_the_fleet_confirms_what_is_recommended(profile: str) -> None:
    found = checked(profile)
    assert found.agrees, found.table.to_string()
    assert found.client_days >= 25_000 * 3 * 0.98
    assert list(found.table["policy"].unique()) == ["recommended", "next cheaper", "next faster"]
    assert (found.table["lo"] <= found.table["simulated"]).all()
    assert (found.table["simulated"] <= found.table["hi"]).all()


def test_both_numbers_are_told_with_their_interval() -> None:
    found = checked("data-centre")
    text = explain(answer("data-centre"), found)
    assert "## Simulated: " in text
    assert "99.99% interval" in text
    assert "recommended: T " in text
    assert "## Simulated" not in explain(answer("data-centre"))


def test_the_same_seed_gives_the_same_numbers() -> None:
    again = simulate(answer("data-centre"))
    assert again.table.equals(checked("data-centre").table)


def test_the_neighbours_are_the_next_ones_of_the_pareto_front() -> None:
    r = answer("home-nat")
    found = neighbours(r)
    t = r.policy.heartbeat_interval or 0.0
    cheaper, faster = found["next cheaper"], found["next faster"]
    assert (cheaper.heartbeat_interval or 0.0) > t
    assert (faster.detection_range_s or (0, 0))[1] < (r.policy.detection_range_s or (0, 0))[1] + t
    between = r.pareto[
        (r.pareto["interval_s"] > t) & (r.pareto["interval_s"] < (cheaper.heartbeat_interval or 0))
    ]
    assert between.empty


@pytest.mark.parametrize("change", [{"max_failures": 1}, {"heartbeat_timeout": 3.0}], ids=str)
def test_a_fleet_under_another_policy_contradicts_the_prediction(change: dict[str, float]) -> None:
    """The negative control: what theory is asked about is not what was simulated."""
    r = answer("office-wifi-60s-lb")
    other = r.policy.model_copy(update=change)
    at = load_scenario("demo").faults[0].at
    rng = np.random.default_rng(3)
    healthy = run_fleet(other, r.conditions.network, clients=25_000, duration_s=86400.0, rng=rng)
    crash = HostCrash(kind="host_crash", share=1.0, at=at)
    crashed = run_fleet(other, r.conditions.network, clients=20_000, duration_s=400.0, rng=rng, fault=crash)
    table = compare(r.policy, r.conditions, replace(r.rules, lag_s=0.0), healthy, crashed)
    assert not table["agrees"].any(), table.to_string()


def test_what_an_idle_timer_ends_in_an_outage_is_predicted() -> None:
    """T = 47 s and a retransmission at 13.4 s are more than the timer's 60 s: that ping finds its mapping gone."""
    found = checked("office-wifi-60s-lb")
    assert not found.contradicted, found.table.to_string()
    assert not found.notes


def test_a_policy_that_the_fleet_refuses_is_told_and_not_judged() -> None:
    r = answer("data-centre")
    other = replace(r, policy=r.policy.model_copy(update={"close_detection": "none"}))
    found = simulate(other)
    assert "recommended" not in set(found.table["policy"])
    (note,) = found.notes
    assert note.startswith("not simulated: recommended: close_detection other than all")


@pytest.mark.parametrize("name", built_in())
def test_what_a_scenario_has_and_the_fleet_does_not_is_said(name: str) -> None:
    scenario = load_scenario(name)
    told = " ".join(not_simulated(scenario))
    for fault in scenario.faults:
        assert (f"fault {fault.kind};" in told) == (fault.kind not in KNOWN)
    for incident in scenario.incidents:
        assert f"incident {incident.kind};" in told
    assert ("detector" in told) == (scenario.detector.kind != "ping")


def test_another_detector_is_said() -> None:
    scenario = load_scenario("demo").model_copy(update={"detector": SendErrors(kind="send_errors")})
    assert "not simulated: detector send_errors; the fleet does not know it" in not_simulated(scenario)
