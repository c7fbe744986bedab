"""Knee, scaling law and plan on inputs whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.studies.capacity.extrapolation import (
    Assumptions,
    UnitCost,
    plan,
    plan_rows,
    slope,
    unit_costs,
    with_tls_cost,
)
from harness.studies.capacity.find_knee import Search, find_knee
from harness.studies.capacity.scaling_law import fit, reasons_against, usl
from reference_server.errors import FlatlineError
from scenarios.client_rules import Reconnect
from scenarios.schema import Scenario

KNEES: dict[str, tuple[int, dict[str, Any]]] = {
    # the true knee, how it is searched
    "doubling, then halving the gap": (3000, {"start": 500}),
    "an even step": (3000, {"start": 500, "factor": None, "step": 1000}),
    "not even the first": (100, {"start": 500}),
    "all of them": (10**9, {"start": 500}),
    "the last one breaks": (7999, {"start": 500}),
    "no bisection": (3000, {"start": 500, "resolution": 1.0}),
    "one client more": (5, {"start": 1, "resolution": 0.01}),
}


@pytest.mark.parametrize("name", KNEES)
def test_the_knee_lies_in_its_bracket(name: str) -> None:
    true, given = KNEES[name]
    asked: list[int] = []

    def holds(load: int) -> bool:
        asked.append(load)
        return load <= true

    knee = find_knee(holds, Search(**{"resolution": 0.1, **given}))
    assert knee.holds <= true
    assert knee.breaks is None or knee.breaks > true
    if knee.is_bracketed and given.get("resolution", 0.1) < 1 and knee.breaks is not None:
        assert knee.breaks - knee.holds <= max(1, given.get("resolution", 0.1) * knee.holds)
    assert len(asked) == len(set(asked)), "nothing is run twice"
    assert ("knee" in knee.in_words()) == knee.is_bracketed


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": 0},
        {"start": 9000},
        {"start": 1, "factor": 1.0},
        {"start": 1, "resolution": 0.0},
        {"start": 1, "factor": None, "step": 0},
    ],
)
def test_loads_that_do_not_rise_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FlatlineError, match="allowed"):
        Search(**wrong)


NODES = [1, 2, 4, 6, 8, 12]


def test_the_law_is_found_again_from_its_own_points() -> None:
    law = fit(NODES, usl(NODES, 20_000, 0.05, 0.002).tolist())
    assert law.rate == pytest.approx(20_000, rel=1e-4)
    assert law.contention == pytest.approx(0.05, rel=1e-3)
    assert law.coherency == pytest.approx(0.002, rel=1e-3)
    assert law.r_squared == pytest.approx(1)
    assert law.peak_nodes == pytest.approx(math.sqrt(0.95 / 0.002), rel=1e-3)


def test_its_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """95 % intervals of the rate over 300 noisy fits: at least 90 % hold it, by the binomial's own error."""
    rng = np.random.default_rng(5)
    truth = usl(NODES, 20_000, 0.05, 0.002)
    held = 0
    for _ in range(300):
        law = fit(NODES, (truth * rng.normal(1, 0.02, len(truth))).tolist())
        held += abs(law.rate - 20_000) <= law.half_widths[0]
    assert held >= 270


def test_linear_growth_has_neither_contention_nor_a_peak() -> None:
    law = fit([1, 2, 4, 8], [100, 200, 400, 800])
    assert law.contention == pytest.approx(0, abs=1e-6)
    assert law.curve([16])["clients"].iloc[0] == pytest.approx(1600, rel=1e-4)
    band = law.curve(np.arange(1, 17))
    assert (band["lo"] <= band["clients"]).all()
    assert (band["hi"] >= band["clients"]).all()
    assert law.lines()


AGAINST = {
    "three numbers of nodes": ([1, 2, 4], None, 1),
    "four, each on its own machine": ([1, 2, 4, 8], None, 0),
    "four on a machine that is too small": ([1, 2, 3, 4], 2, 1),
    "two on two cores, with everything else": ([1, 2], 2, 2),
    "four on a large machine": ([1, 2, 3, 4], 16, 0),
}


@pytest.mark.parametrize("name", AGAINST)
def test_when_points_cannot_tell(name: str) -> None:
    nodes, cores, count = AGAINST[name]
    assert len(reasons_against(nodes, cores)) == count


def test_three_points_are_not_fitted() -> None:
    with pytest.raises(ValueError, match="4 or more"):
        fit([1, 2, 4], [1.0, 2.0, 4.0])


def steps(**changes: Any) -> pd.DataFrame:
    """Four steps at speedup 10: 50 µs a heartbeat at T = 30 s, 12 KiB a client, 20 commands a session."""
    clients = np.array([500, 1000, 2000, 4000])
    beats = clients / 30 * 10
    return pd.DataFrame(
        {
            "clients": clients,
            "speedup": 10.0,
            "cpu_percent": 100 * (0.01 + beats * 50e-6),
            "rss_bytes": 60e6 + clients * 12 * 1024,
            "idle_rss_bytes": 60e6,
            "login_core_s": 2e-3,
            "commands_per_session": 20.0,
            "store_bytes_per_session": 3000.0,
            **changes,
        }
    )


def scenario(**changes: Any) -> Scenario:
    return Scenario.model_validate({"name": "planned", "duration": "60s"} | changes)


def planned(
    n: int, table: pd.DataFrame, *, given: Assumptions | None = None, **changes: Any
) -> pd.Series[Any]:
    one, given = scenario(**changes), given or Assumptions()
    return plan(unit_costs(table, one, given), [n], given, one.reconnect).iloc[0]


def test_unit_costs_are_slopes_at_the_policys_own_pace() -> None:
    costs = unit_costs(steps(), scenario(), Assumptions())
    assert costs.core_share.value == pytest.approx(50e-6 / 30)
    assert costs.rss_bytes.value == pytest.approx(12 * 1024)
    # What the process holds anyway is in no client's share: neither of one load, nor where only the slope tells it.
    for table in (steps().iloc[:1], steps(idle_rss_bytes=np.nan)):
        one = unit_costs(table, scenario(), Assumptions()).rss_bytes
        assert one.value == pytest.approx(12 * 1024)
    blind = unit_costs(steps(idle_rss_bytes=np.nan).iloc[:1], scenario(), Assumptions()).rss_bytes
    assert (blind.value, blind.n) == (Assumptions().client_bytes, 0)
    assert costs.login_core_s.ends == pytest.approx((2e-3, 2e-3, 2e-3))
    assert costs.clients_per_core(0.6)[0] == pytest.approx(0.6 * 30 / 50e-6)
    # Two records, each refreshed at the first beat after half of its TTL.
    assert costs.refreshes_per_s == pytest.approx(2 / 3600)


def test_a_plan_counts_what_is_assumed() -> None:
    given = Assumptions(kernel_bytes=4096, memory_share=1.0, node_gib=4.0)
    row = planned(1_000_000, steps(), given=given)
    assert row["cores"] == pytest.approx(1e6 * (50e-6 / 30 + 2e-3 / 3600) / 0.6)
    assert row["gib"] == pytest.approx(1e6 * 16 * 1024 / 2**30)
    assert row["nodes"] == 1 + math.ceil(max(row["cores_hi"], row["gib_hi"] / 4))
    wide = planned(1_000_000, steps(), given=replace(given, node_cores=4, node_gib=64.0))
    assert wide["nodes"] == 1 + math.ceil(max(row["cores_hi"] / 4, row["gib_hi"] / 64))
    assert wide["cores"] == row["cores"] and "4 processes on as many cores" in " ".join(
        replace(given, node_cores=4).lines(Reconnect(), of_a_model=False)
    )
    assert row["store_commands_per_s"] == pytest.approx(1e6 * (20 / 3600 + 2 / 3600))
    assert row["store_shards"] == 1
    # 199 bytes: three TCP headers, the frames of a ping and its answer.
    assert row["client_mbit_per_s"] == pytest.approx(1e6 / 30 * 199 * 8 / 1e6)


def test_the_storm_after_a_lost_node_is_as_fast_as_its_clients_or_as_the_others() -> None:
    row = planned(1_000_000, steps())
    others = row["nodes"] - 1
    assert row["storm_clients"] == math.ceil(1e6 / row["nodes"])
    # Full jitter of a second: every one of them within the first one.
    assert row["storm_asked_per_s"] == row["storm_clients"]
    spare = 1 - 1e6 * (50e-6 / 30 + 2e-3 / 3600) / others
    assert row["storm_taken_per_s"] == pytest.approx(others * spare / 2e-3)
    assert row["storm_back_s"] == pytest.approx(row["storm_clients"] / row["storm_taken_per_s"])
    slow = planned(1_000_000, steps(), reconnect={"backoff_base": "1000s", "backoff_max": "1000s"})
    assert slow["storm_asked_per_s"] == pytest.approx(slow["storm_clients"] / 1000, rel=0.5)
    assert slow["storm_back_s"] == pytest.approx(1000, rel=0.001)


def test_tls_and_traffic_are_in_the_plan() -> None:
    traffic = {
        "to_gateway": {"every": "10s", "bytes": 200},
        "to_client": {"every": "5s", "bytes": 200, "burst": 2},
    }
    plain = planned(1000, steps())
    full = planned(1000, steps(), network={"tls": True}, traffic=traffic)
    extra = 44 / 30 + 2078 / 3600 + (104 + 8 + 200 + 22) / 10 + 2 * (104 + 4 + 200 + 22) / 5
    assert full["client_mbit_per_s"] - plain["client_mbit_per_s"] == pytest.approx(1000 * extra * 8 / 1e6)
    model = with_tls_cost(scenario(gateway={"heartbeat_service": "0.1ms", "handshake_service": "1ms"}))
    assert model.network.tls
    assert model.gateway.heartbeat_service.mean_s == pytest.approx(132e-6)
    assert model.gateway.handshake_service.mean_s == pytest.approx(2e-3)


def test_few_loads_give_a_plan_without_an_interval_and_nothing_is_nan() -> None:
    two = slope([1.0, 2.0], [2.0, 4.0])
    assert (two.value, two.half) == (2.0, math.inf)
    # From one load, all that was used is its clients': too much rather than too little.
    assert slope([2.0], [4.0]) == UnitCost(2.0, math.inf, 1)
    assert slope([1.0, 2.0, 3.0], [5.0, 4.0, 3.0]).value == 1.0
    bare = {"rss_bytes": np.nan, "commands_per_session": np.nan, "store_bytes_per_session": np.nan}
    for table in (steps().iloc[:1], steps(**bare), steps(**bare).iloc[:2]):
        one = scenario()
        found = plan(unit_costs(table, one, Assumptions()), [1000, 10**6], Assumptions(), one.reconnect)
        assert not found.isna().any(axis=None), found
        text = str(plan_rows(found))
        assert "nan" not in text
        assert "inf" not in text
