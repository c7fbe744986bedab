"""A recommendation put to the test: the scenario, the comparison, a run that contradicts it, and one for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.policy.tune.conditions import Conditions, conditions_of_profile
from harness.policy.tune.recommend import Recommendation, recommend
from harness.policy.tune.requirements import parse_requirements
from harness.policy.tune.verify import compare_with_prediction, verification_scenario, verify
from harness.run import run
from scenarios.distributions import Distribution, Exponential
from scenarios.faults.host_crash import HostCrash
from scenarios.faults.nat_timeout import NatTimeout
from scenarios.load import dump_scenario
from scenarios.network import Nat, Network, Outages
from scenarios.plan import make_plan
from tests.support import require_silence


@pytest.fixture(scope="module")
def office() -> Recommendation:
    return recommend(conditions_of_profile("office-wifi-60s-lb"), parse_requirements(budget="60/s"))


@pytest.mark.parametrize(
    ("profile", "p99"),
    [("office-wifi-60s-lb", "60s"), ("cellular-4min-nat", "4m"), ("data-centre", "10s"), ("home-nat", "2m")],
)
def test_the_scenario_ends_in_time_and_sees_all(profile: str, p99: str) -> None:
    answer = recommend(conditions_of_profile(profile), parse_requirements(detect_p99=p99))
    scenario = verification_scenario(answer, clients=200)
    assert scenario.horizon_s / scenario.speedup <= 40.0
    assert scenario.liveness == answer.policy
    crash = scenario.faults[0]
    assert isinstance(crash, HostCrash)
    assert crash.at.uniform is not None
    # Every crash is detected before the end, at a phase that is uniform.
    latest_s = crash.at.uniform.high + answer.figures["detect_max_s"]
    assert latest_s < scenario.duration
    assert crash.at.uniform.high - crash.at.uniform.low == answer.policy.heartbeat_interval
    assert any(isinstance(f, NatTimeout) for f in scenario.faults) == (answer.conditions.nat is not None)
    plan = make_plan(scenario)
    assert len(plan.outages) >= 20
    faulted = {fault.client for fault in plan.faults}
    assert faulted.isdisjoint(outage.client for outage in plan.outages)


def test_the_speedup_keeps_clear_of_retransmissions(office: Recommendation) -> None:
    scenario = verification_scenario(office)
    patience = office.policy.patience_s / scenario.speedup
    assert scenario.speedup > 1
    assert np.abs(np.log(patience / np.array(Network().rto_ladder))).min() >= 0.15


def test_the_simulation_confirms_it(office: Recommendation, tmp_path: Path) -> None:
    result = verify(office, engines=("theory", "simulated"), root=tmp_path, clients=900)
    assert result.confirmed, result.table.to_string()
    table = result.table.set_index("check")
    assert set(table["verdict"]) == {"pass"}
    assert len(table) == 6
    thrown_out = table.loc["healthy clients thrown out"]
    assert thrown_out["measured"] > 20  # else it would show nothing
    assert thrown_out["lo"] <= thrown_out["predicted"] <= thrown_out["hi"]
    assert table.loc["mappings that expired", "n"] == 90


@pytest.mark.parametrize(
    ("update", "failing"),
    [
        ({"max_failures": 4}, "detection p50 (s)"),
        ({"heartbeat_timeout": 1.0, "retry_interval": 1.0}, "healthy clients thrown out"),
    ],
)
def test_another_policy_than_the_recommended_one_is_seen(
    office: Recommendation, tmp_path: Path, update: dict[str, object], failing: str
) -> None:
    """Negative control: run one policy, predict by another."""
    told = verification_scenario(office, clients=900)
    other = told.model_copy(update={"liveness": told.liveness.model_copy(update=update)})
    outcome = run(other, engines=("theory", "simulated"), root=tmp_path)
    directory = outcome.report.parent
    (directory / "scenario.yaml").write_text(dump_scenario(told))
    table = compare_with_prediction(directory).set_index("check")
    assert table.loc[failing, "verdict"] == "fail", table.to_string()


def test_an_interval_above_the_idle_timer_is_seen(tmp_path: Path, office: Recommendation) -> None:
    """Negative control: a timer that is half of what was assumed."""
    told = verification_scenario(office)
    shorter = Nat(idle_timeout=30.0)
    faults = tuple(
        fault.model_copy(update={"nat": shorter}) if isinstance(fault, NatTimeout) else fault
        for fault in told.faults
    )
    changed = told.model_copy(update={"faults": faults})
    outcome = run(changed, engines=("theory", "simulated"), root=tmp_path)
    table = compare_with_prediction(outcome.report.parent).set_index("check")
    lost = table.loc["mappings that expired"]
    assert (lost["verdict"], lost["measured"]) == ("fail", 30)


@pytest.mark.real
@pytest.mark.root
@pytest.mark.alone
@pytest.mark.timeout(180)
def test_the_real_engine_confirms_a_small_one(tmp_path: Path) -> None:
    require_silence()
    length = Distribution(exponential=Exponential(mean=0.5))
    where = Conditions("small", Network(outages=Outages(every=3600.0, length=length)), Nat(idle_timeout=12.0))
    answer = recommend(where, parse_requirements(detect_p99="10s", false_suspicions="1/client-year"))
    assert (answer.policy.heartbeat_interval or 0) <= 9.6
    result = verify(answer, engines=("theory", "real"), root=tmp_path, clients=60, real_s=12)
    # A machine that is busy for a second must not look like a network that is out.
    assert answer.policy.patience_s / result.scenario.speedup > 1.5
    table = result.table
    assert set(table["engine"]) == {"real"}
    assert (table["verdict"] == "pass").all(), table.to_string()
    assert table.set_index("check").loc["mappings that expired", "n"] == 6
