"""Predictions of whole scenarios, each against connections played by the gateway's own detector."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest

from harness.theory.law import FloatArray, Law
from harness.theory.predict import Prediction, locked_out, predict
from harness.theory.tables import curves_frame, laws_frame
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.distributions import Distribution, Exponential, Lognormal, Uniform
from scenarios.faults import Fault
from scenarios.faults.frozen import Frozen
from scenarios.faults.host_crash import HostCrash
from scenarios.faults.network_cut import NetworkCut
from scenarios.load import built_in, load_scenario
from scenarios.schema import Scenario
from tests.harness.theory.montecarlo import agrees, share_agrees
from tests.harness.theory.worlds import Life, Way, live_through

N = 2500
AT = {"uniform": {"low": "40s", "high": "120s"}}
SHORT_RETRY = {
    "heartbeat_interval": "20s",
    "heartbeat_timeout": "4s",
    "max_failures": 4,
    "retry_interval": "5s",
}
IDLE_RACES = {"session_timeout": "95s", "sweep_interval": "25s"}
TIGHT_TCP = {"tcp_user_timeout": "60s"}


def scenario(*faults: dict[str, Any], **keys: Any) -> Scenario:
    """A scenario of a few faults at random times, long enough for all of them."""
    shares = {"share": "10%", "at": AT}
    return Scenario.model_validate(
        {"name": "t", "duration": "2000s", "faults": [shares | f for f in faults], **keys}
    )


def by_milestone(found: list[Prediction]) -> dict[str, Prediction]:
    return {one.milestone: one for one in found}


def law_of(found: list[Prediction], milestone: str) -> Law:
    law = by_milestone(found)[milestone].law
    assert law is not None, by_milestone(found)[milestone].note
    return law


def play(one: Scenario, speedup: float, r: np.random.Generator) -> list[Life]:
    """Play the scenario's one fault many times; TCP and round trips do not shrink with the speedup."""
    (fault,) = one.faults
    policy = one.liveness
    trips = one.network.round_trip.sample(r, N) * speedup
    heals = _heals(fault)
    ends = np.full(N, math.inf) if heals is None else heals.sample(r, N)
    frozen = isinstance(fault, Frozen)
    gives_up = 924.6
    if policy.tcp_user_timeout is not None:
        gives_up = policy.tcp_user_timeout + one.network.rto_ladder[1] * speedup
    phases = r.uniform(0, policy.heartbeat_interval or 0, N)
    sweeps = r.uniform(0, policy.sweep_interval, N)
    ladder = tuple(step * speedup for step in one.network.rto_ladder)
    return [
        live_through(
            policy,
            phase,
            Way(trip, end, ladder, frozen, gives_up_s=math.inf if frozen else gives_up, sweep_phase_s=sweep),
        )
        for phase, trip, end, sweep in zip(
            phases.tolist(), trips.tolist(), ends.tolist(), sweeps.tolist(), strict=True
        )
    ]


def _heals(fault: Fault) -> Distribution | None:
    match fault:
        case NetworkCut():
            return fault.heal_after
        case Frozen():
            return fault.thaw_after
        case _:
            assert isinstance(fault, HostCrash)
            return None


SLOW_WAY = {"round_trip": {"uniform": {"low": "200ms", "high": "2s"}}}
SILENT: dict[str, tuple[Scenario, float]] = {
    "power loss": (scenario({"kind": "host_crash"}), 1.0),
    "power loss at speedup 5": (scenario({"kind": "host_crash"}), 5.0),
    "short retries": (scenario({"kind": "host_crash"}, liveness=SHORT_RETRY), 1.0),
    "the idle limit races": (scenario({"kind": "host_crash"}, liveness=IDLE_RACES), 1.0),
    "TCP_USER_TIMEOUT wins": (scenario({"kind": "host_crash"}, liveness=TIGHT_TCP), 1.0),
    "but not over a frozen client": (scenario({"kind": "frozen"}, liveness=TIGHT_TCP), 1.0),
    "a slow way": (scenario({"kind": "host_crash"}, network=SLOW_WAY), 1.0),
    "a slow way and the idle limit": (
        scenario({"kind": "frozen"}, network=SLOW_WAY, liveness=IDLE_RACES),
        1.0,
    ),
    "a cut for good": (scenario({"kind": "network_cut"}), 1.0),
    "a cut that heals": (
        scenario({"kind": "network_cut", "heal_after": {"exponential": {"mean": "60s"}}}),
        1.0,
    ),
    "a cut that heals, at speedup 3": (
        scenario({"kind": "network_cut", "heal_after": {"exponential": {"mean": "60s"}}}),
        3.0,
    ),
    "a cut of one length": (scenario({"kind": "network_cut", "heal_after": "65s"}), 1.0),
    "a cut of a log-normal length over a slow way": (
        scenario(
            {"kind": "network_cut", "heal_after": {"lognormal": {"median": "70s", "sigma": 0.5}}},
            network=SLOW_WAY,
        ),
        1.0,
    ),
    "a healing cut, retries and the idle limit": (
        scenario(
            {"kind": "network_cut", "heal_after": {"uniform": {"low": "10s", "high": "90s"}}},
            liveness=SHORT_RETRY | {"session_timeout": "35s", "sweep_interval": "12s"},
        ),
        1.0,
    ),
    "a freeze that thaws": (
        scenario({"kind": "frozen", "thaw_after": {"exponential": {"mean": "60s"}}}),
        1.0,
    ),
    "a freeze that thaws, over a slow way": (
        scenario(
            {"kind": "frozen", "thaw_after": {"uniform": {"low": "50s", "high": "120s"}}}, network=SLOW_WAY
        ),
        1.0,
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_silent_fault_against_the_gateways_own_detector(name: str) -> None:
    one, speedup = SILENT[name]
    found = predict(one, RunClock(speedup))
    lives = play(one, speedup, np.random.default_rng(31))
    suspected = np.array([life.suspected_s for life in lives])
    suspected[np.isinf(suspected)] = np.nan
    agrees(law_of(found, "suspected"), suspected)
    assert law_of(found, "socket_closed") is law_of(found, "suspected")
    cleared = np.array(
        [max(s, x.last_life_s + one.liveness.resume_window) for s, x in zip(suspected, lives, strict=True)]
    )
    cleared[np.isnan(suspected)] = np.nan
    agrees(law_of(found, "store_cleared"), cleared)


def test_the_layer_that_wins_is_named() -> None:
    one, _ = SILENT["the idle limit races"]
    found = by_milestone(predict(one))["suspected"]
    lives = play(one, 1.0, np.random.default_rng(32))
    idle = sum(life.cause == "session_timeout" for life in lives)
    assert found.cause == "heartbeat"
    (share,) = (part for part in found.note.split(", ") if "session_timeout" in part)
    share_agrees(idle, N, float(share.split()[-1].rstrip("%")) / 100)
    assert by_milestone(predict(SILENT["TCP_USER_TIMEOUT wins"][0]))["suspected"].cause == "tcp_timeout"


def test_a_long_resume_window_delays_the_clean_up() -> None:
    one = scenario({"kind": "host_crash"}, liveness={"resume_window": "120s"})
    lives = play(one, 1.0, np.random.default_rng(33))
    draws = np.array([max(life.suspected_s, life.last_life_s + 120.0) for life in lives])
    assert np.all(draws > [life.suspected_s for life in lives])
    agrees(law_of(predict(one), "store_cleared"), draws)


def test_the_reference_policy_has_its_reference_values() -> None:
    law = law_of(predict(load_scenario("host_crash")), "suspected")
    assert (law.lo_s, law.hi_s, law.mean_s) == pytest.approx((70, 100, 85), abs=0.001)
    assert law.quantile(0.99) == pytest.approx(99.7, abs=0.001)


@pytest.mark.parametrize(
    ("nat", "suspected_s", "cleared_s", "cause"),
    [
        ({"idle_timeout": "20s"}, 10 + 70, 80, "heartbeat"),
        ({"idle_timeout": "30s"}, 70, 70, "heartbeat"),
        ({"idle_timeout": "20s", "expiry": "reset"}, 10, 20, "tcp_reset"),
    ],
)
def test_above_the_nat_timeout_detection_is_not_random(
    nat: dict[str, str], suspected_s: float, cleared_s: float, cause: str
) -> None:
    found = predict(scenario({"kind": "nat_timeout", "nat": nat}))
    law = law_of(found, "suspected")
    assert law.lo_s == law.hi_s == pytest.approx(suspected_s, abs=0.001)
    assert law_of(found, "store_cleared").mean_s == pytest.approx(cleared_s, abs=0.001)
    assert by_milestone(found)["suspected"].cause == cause


def test_below_the_nat_timeout_nothing_happens() -> None:
    found = predict(scenario({"kind": "nat_timeout", "nat": {"idle_timeout": "45s"}}))
    assert [one.law.mass for one in found if one.law] == [0, 0, 0, 0]
    assert all("prevented by traffic" in one.note and one.cause == "" for one in found)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"kind": "orderly_close"}, "close_frame"),
        ({"kind": "process_crash"}, "tcp_fin"),
        ({"kind": "process_crash", "by": "rst"}, "tcp_reset"),
    ],
)
def test_a_close_is_seen_after_half_a_round_trip(fault: dict[str, Any], cause: str) -> None:
    r = np.random.default_rng(34)
    trip = {"lognormal": {"median": "80ms", "sigma": 0.5}}
    found = predict(
        scenario(fault, network={"round_trip": trip}, sessions={"watchers_per_user": 3}), clock=RunClock(2.0)
    )
    # At speedup 2 a round trip lasts twice as long in scenario time; each way is half of one.
    ways = Distribution(lognormal=Lognormal(median=0.08, sigma=0.5))
    seen = ways.sample(r, 20_000)
    agrees(law_of(found, "suspected"), seen)
    agrees(law_of(found, "store_cleared"), seen + 10.0)
    told = np.max([ways.sample(r, 20_000) for _ in range(3)], axis=0)
    agrees(law_of(found, "peers_notified"), seen + 10.0 + told)
    assert {one.cause for one in found} == {cause}


def test_a_refresh_within_the_window_clears_nothing() -> None:
    found = predict(load_scenario("refresh"))
    assert law_of(found, "suspected").mass == 1
    assert law_of(found, "store_cleared").mass == law_of(found, "peers_notified").mass == 0


def test_a_slow_page_loses_its_session() -> None:
    one = scenario({"kind": "refresh"}, reconnect={"page_load": {"exponential": {"mean": "8s"}}})
    pages = np.random.default_rng(35).exponential(8.0, 20_000)
    draws = np.where(pages > 10.0, 0.0005 + 10.0, np.nan)
    agrees(law_of(predict(one), "store_cleared"), draws)


def locked(cleared: FloatArray, first: FloatArray, retry_s: float) -> FloatArray:
    """Try, be refused, wait, try again."""
    found = []
    for c, a in zip(cleared.tolist(), first.tolist(), strict=True):
        now = a
        while now < c:
            now += retry_s
        found.append(0.0 if now == a else now)
    return np.array(found)


@pytest.mark.parametrize(
    "first",
    [
        Distribution(constant=0.0),
        Distribution(constant=85.0),
        Distribution(uniform=Uniform(low=0.0, high=120.0)),
        Distribution(exponential=Exponential(mean=30.0)),
    ],
    ids=["at once", "at half", "uniform", "exponential"],
)
def test_the_user_is_locked_out_until_a_try_after_the_clean_up(first: Distribution) -> None:
    one = scenario(
        {"kind": "host_crash"},
        sessions={"second_login": "refuse"},
        reconnect={"relogin": {"after": first, "retry": "7s"}},
    )
    r = np.random.default_rng(36)
    cleared = np.array([life.suspected_s for life in play(one, 1.0, r)])
    agrees(law_of(predict(one), "locked_out"), locked(cleared, first.sample(r, N), 7.0))


def test_a_random_first_try_is_good_to_a_thirtysecond() -> None:
    """The quadrature over the first try, against many draws of it."""
    r = np.random.default_rng(37)
    first = Distribution(uniform=Uniform(low=0.0, high=20.0))
    draws = locked(r.uniform(5, 30, 40_000), first.sample(r, 40_000), 9.0)
    law = locked_out(Law.uniform(5, 30), first, 9.0)
    assert abs(law.mean_s - draws.mean()) < 0.1
    share_agrees(int(np.sum(draws == 0)), len(draws), float(law.cdf(0.0)))


def test_where_a_try_meets_the_clean_up_no_law_is_given() -> None:
    """The records go 10 s after a close, and the third try comes at 10 s: a matter of milliseconds."""
    keys: dict[str, Any] = {"sessions": {"second_login": "refuse"}}
    meets = scenario({"kind": "process_crash"}, reconnect={"relogin": {"retry": "5s"}}, **keys)
    found = by_milestone(predict(meets))["locked_out"]
    assert found.law is None and "lag" in found.note
    misses = scenario({"kind": "process_crash"}, reconnect={"relogin": {"retry": "4s"}}, **keys)
    assert law_of(predict(misses), "locked_out").mean_s == 12.0


def test_a_take_over_ends_the_old_session() -> None:
    one = scenario(
        {"kind": "host_crash"},
        sessions={"second_login": "take_over"},
        reconnect={"relogin": {"after": {"uniform": {"low": "50s", "high": "150s"}}, "share": "40%"}},
    )
    r = np.random.default_rng(38)
    silent = np.array([life.suspected_s for life in play(one, 1.0, r)])
    tries = np.where(r.random(N) < 0.4, r.uniform(50, 150, N), np.inf)
    found = predict(one)
    agrees(law_of(found, "suspected"), np.minimum(silent, tries))
    agrees(law_of(found, "store_cleared"), np.minimum(silent, tries))
    assert law_of(found, "locked_out").hi_s == 0
    assert by_milestone(found)["peers_notified"].law is None
    assert "by the user's new login" in by_milestone(found)["suspected"].note


def test_without_a_heartbeat_only_the_idle_limit_tells() -> None:
    one = scenario({"kind": "host_crash"}, liveness={"heartbeat_interval": None}, ramp="30s")
    r = np.random.default_rng(39)
    n = 20_000
    age = one.ramp - one.ramp * r.random(n) + r.uniform(40, 120, n)
    grid = r.uniform(0, 30, n)
    found_at = grid + 30 * np.ceil((300 - age - grid) / 30)
    found = predict(one)
    agrees(law_of(found, "suspected"), found_at)
    assert by_milestone(found)["suspected"].cause == "session_timeout"
    assert "silent client sends nothing else" in by_milestone(found)["suspected"].note


INEXACT: dict[str, tuple[Scenario, str, str]] = {
    "idle limit shorter than the faults' times": (
        scenario({"kind": "host_crash"}, liveness={"heartbeat_interval": None, "session_timeout": "60s"}),
        "suspected",
        "drops clients",
    ),
    "idle limit below the heartbeat": (
        scenario({"kind": "host_crash"}, liveness={"session_timeout": "20s"}),
        "suspected",
        "below heartbeat_interval",
    ),
    "NAT without traffic": (
        scenario(
            {"kind": "nat_timeout", "nat": {"idle_timeout": "9s"}}, liveness={"heartbeat_interval": None}
        ),
        "suspected",
        "no packet",
    ),
    "client's own idle limit": (
        scenario({"kind": "network_cut", "heal_after": "60s"}, reconnect={"idle_limit": "45s"}),
        "suspected",
        "competes",
    ),
    "healed within a long window": (
        scenario({"kind": "network_cut", "heal_after": "90s"}, liveness={"resume_window": "200s"}),
        "store_cleared",
        "may resume",
    ),
    "records that expire": (
        scenario({"kind": "host_crash"}, liveness={"session_ttl": "100s", "status_ttl": "100s"}),
        "store_cleared",
        "TTL",
    ),
    "timers that only answers wait for": (
        scenario(
            {"kind": "throttled_timers", "every": "60s", "heal_after": "70s"},
            detector={"kind": "client_beats"},
            liveness={"session_timeout": "70s"},
        ),
        "suspected",
        "competes with beats",
    ),
    "a fault of the user's own without a heartbeat": (
        scenario({"kind": "custom", "uses": "mine.py:Mine"}, liveness={"heartbeat_interval": None}),
        "suspected",
        "of the user's own",
    ),
    "a detector that the layers do not know": (
        scenario({"kind": "delayed", "by": "5s"}, detector={"kind": "probing"}),
        "suspected",
        "detector probing",
    ),
    "nobody watches": (
        scenario({"kind": "host_crash"}, sessions={"watchers_per_user": 0}),
        "peers_notified",
        "nobody watches",
    ),
    "a healed client logs in too": (
        scenario(
            {"kind": "frozen", "thaw_after": "80s"},
            sessions={"second_login": "refuse"},
            reconnect={"relogin": {"retry": "3s"}},
        ),
        "locked_out",
        "competes",
    ),
}


@pytest.mark.parametrize("name", INEXACT)
def test_where_theory_is_not_exact_it_says_so(name: str) -> None:
    one, milestone, why = INEXACT[name]
    found = by_milestone(predict(one))[milestone]
    assert found.law is None and found.cause == ""
    assert why in found.note
    row = laws_frame([found]).iloc[0]
    assert row[["lo_s", "hi_s", "mean_s", "p50_s", "p95_s", "p99_s", "detected_share"]].isna().all()
    assert curves_frame([found]).empty


def test_what_is_never_noticed_has_mass_zero() -> None:
    one = scenario({"kind": "host_crash"}, liveness={"heartbeat_interval": None, "session_timeout": None})
    assert law_of(predict(one), "suspected").mass == 0


def test_doubts_are_noted() -> None:
    narrow = scenario({"kind": "host_crash", "at": "50s"}, ramp="5s")
    assert "run may end first" in predict(narrow.model_copy(update={"duration": 120.0}))[0].note
    slow = scenario({"kind": "host_crash"}, network={"round_trip": {"exponential": {"mean": "2s"}}})
    assert "after the deadline" in predict(slow)[0].note


def test_a_speedup_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        predict(scenario({"kind": "host_crash"}), RunClock(0.0))


@pytest.mark.parametrize("name", built_in())
def test_the_tables_of_every_built_in_scenario(name: str) -> None:
    one = load_scenario(name)
    predictions = predict(one, one.clock)
    laws, curves = laws_frame(predictions), curves_frame(predictions)
    assert list(laws.columns) == [
        "fault",
        "milestone",
        "cause",
        "lo_s",
        "hi_s",
        "mean_s",
        "p50_s",
        "p95_s",
        "p99_s",
        "detected_share",
        "note",
        "shared",
    ]
    assert list(curves.columns) == ["fault", "milestone", "duration_s", "probability"]
    milestones = 5 if one.reconnect.relogin else 4
    refreshes = sum(fault.kind == "refresh" for fault in one.faults)
    lockless = refreshes if one.reconnect.relogin else 0
    assert len(laws) == len(one.faults) * milestones - lockless
    for key, curve in curves.groupby(["fault", "milestone"]):
        row = laws.set_index(["fault", "milestone"]).loc[[key]].iloc[0]
        assert curve["probability"].iloc[0] == 0
        assert curve["probability"].iloc[-1] == pytest.approx(row["detected_share"])
        assert curve["duration_s"].is_monotonic_increasing
        assert curve["probability"].is_monotonic_increasing
    exact = laws.dropna(subset=["p50_s", "p99_s"])
    assert (exact["lo_s"] <= exact["p50_s"]).all() and (exact["p99_s"] <= exact["hi_s"]).all()


def test_a_prediction_is_quick() -> None:
    """A worst case: random round trips, a race of all layers, healing, random first tries. CPU time."""
    one = scenario(
        {"kind": "network_cut", "name": "heals", "heal_after": {"lognormal": {"median": "70s", "sigma": 1}}},
        {"kind": "host_crash"},
        liveness=IDLE_RACES,
        network={"round_trip": {"lognormal": {"median": "90ms", "sigma": 0.5}}},
        sessions={"second_login": "refuse"},
        reconnect={"relogin": {"after": {"exponential": {"mean": "20s"}}, "retry": "1s"}},
    )
    took_s = []
    for _ in range(3):
        began_s = time.process_time()
        predict(one)
        took_s.append(time.process_time() - began_s)
    assert min(took_s) < 0.6, "0.3 s a fault"


def test_the_policy_is_the_only_number_that_matters_to_the_range() -> None:
    policy = LivenessPolicy(heartbeat_interval=12.0, heartbeat_timeout=3.0, max_failures=2)
    one = scenario({"kind": "host_crash"}).model_copy(update={"liveness": policy})
    law = law_of(predict(one), "suspected")
    assert policy.detection_range_s == pytest.approx((law.lo_s, law.hi_s), abs=0.001)


def test_a_gateway_that_counts_to_two_is_told_from_one_that_counts_to_three() -> None:
    """The comparison can fail: the law says k = 3, the played gateway gives up at 2."""
    told = scenario({"kind": "host_crash"})
    sloppy = scenario({"kind": "host_crash"}, liveness={"max_failures": 2})
    draws = np.array([life.suspected_s for life in play(sloppy, 1.0, np.random.default_rng(40))])
    with pytest.raises(AssertionError):
        agrees(law_of(predict(told), "suspected"), draws)


def test_a_ladder_that_shrank_with_the_speedup_would_be_seen() -> None:
    one, speedup = SILENT["a cut that heals, at speedup 3"]
    lives = play(one, speedup, np.random.default_rng(41))
    draws = np.array([life.suspected_s for life in lives])
    draws[np.isinf(draws)] = np.nan
    with pytest.raises(AssertionError):
        agrees(law_of(predict(one, SCENARIO_TIME), "suspected"), draws)
