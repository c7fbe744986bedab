"""How long healthy connections last, against derivations by hand and connections played ping by ping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.theory.client_beat_laws import delayed_beats, lossy_beats, throttled_beats
from harness.theory.law import FloatArray, Law
from harness.theory.losses import idle_timer_prevented, lifetime, outage_losses_per_day
from harness.theory.record_laws import predict_presence
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.clock import SCENARIO_TIME
from scenarios.distributions import Distribution
from scenarios.network import Network, after_probe
from scenarios.schema import Scenario
from tests.harness.theory.montecarlo import agrees

TRIP = {"lognormal": {"median": "40ms", "sigma": 0.5}}


def scenario(
    interval: str | None, nat: dict[str, Any] | None = None, policy: dict[str, Any] | None = None, **keys: Any
) -> Scenario:
    liveness = {"heartbeat_interval": interval, "heartbeat_timeout": "10s", "session_timeout": None} | (
        policy or {}
    )
    network = {"round_trip": TRIP} | ({} if nat is None else {"nat": nat}) | keys.pop("network", {})
    return Scenario.model_validate(
        {"name": "held", "duration": "1200s", "liveness": liveness, "network": network, **keys}
    )


def test_ping_equal_to_the_idle_timer_survives_n_gaps_with_one_in_n_plus_one_factorial() -> None:
    """At the client's end each gap is 60 s + (rtt₂ − rtt₁)/2: it survives while its round trips keep falling."""
    law = lifetime(scenario("60s", {"idle_timeout": "60s", "expiry": "reset"})).law
    assert law is not None and law.mass == pytest.approx(1.0)
    for n in range(1, 5):
        survives = 1 - float(law.cdf(60.0 * (n + 1) + 0.5))
        assert survives == pytest.approx(1 / math.factorial(n + 1), abs=0.005)
    assert law.mean_s == pytest.approx(60 * (math.e - 1 + 0.5) + 0.045, abs=0.3)


def by_gaps(draws: int, interval_s: float, limit_s: float, gap: str, rng: np.random.Generator) -> FloatArray:
    """The packet after which a connection is forgotten, ping by ping."""
    found = np.full(draws, np.nan)
    for i in range(draws):
        trips = 0.04 * np.exp(0.5 * rng.standard_normal(40))
        first = rng.uniform(0, interval_s)
        if first > limit_s:
            found[i] = 0.0
            continue
        moved = {"half": np.diff(trips) / 2, "whole": np.diff(trips), "answer": -trips[:-1]}[gap]
        lethal = np.flatnonzero(interval_s + moved > limit_s)
        if len(lethal):
            found[i] = first + interval_s * lethal[0]
    return found


@pytest.mark.parametrize(
    ("nat", "interval", "gap"),
    [
        ({"at": "client"}, "60s", "half"),
        ({"at": "gateway", "counts": "to_gateway"}, "60s", "whole"),
        ({"at": "gateway"}, "60.04s", "answer"),
        ({"at": "client"}, "60.01s", "half"),
        ({"at": "client"}, "70s", "half"),
        ({"at": "gateway"}, "50s", "answer"),
    ],
)
def test_a_box_that_closes_ends_the_connection_after_its_first_long_gap(
    nat: dict[str, Any], interval: str, gap: str
) -> None:
    one = scenario(interval, {"idle_timeout": "60s", "expiry": "close"} | nat)
    life = lifetime(one)
    assert life.law is not None, life.note
    last_s = by_gaps(3000, one.liveness.interval_s, 60.0, gap, np.random.default_rng(4))
    last_s[last_s > 1200.0] = np.nan
    draws = last_s + 60.0
    if life.law.mass == 0:
        assert np.isnan(draws).all() and interval == "50s"
        return
    early = life.law.within(0.0, 1200.0)
    assert abs(early.mass - np.isfinite(draws).mean()) < 0.03
    at = np.nanquantile(draws, [0.1, 0.5, 0.9])
    assert early.cdf(at) == pytest.approx([(draws <= t).mean() for t in at], abs=0.035)


@pytest.mark.parametrize(
    ("one", "author", "cause", "lo_s", "hi_s"),
    [
        (scenario(None, {"idle_timeout": "60s", "expiry": "close"}), "middle", "tcp_fin", 60.0, 60.0),
        (scenario("25s", network={"max_age": "90s"}), "middle", "tcp_fin", 90.0, 90.0),
        (scenario("60s", {"idle_timeout": "40s", "expiry": "close"}), "middle", "tcp_fin", 40.0, 80.0),
        (scenario("50s", {"idle_timeout": "40s"}), "gateway", "heartbeat", 150.0, 200.0),
        (scenario("60s", reconnect={"idle_limit": "45s"}), "client", "client_limit", 45.0, 90.0),
        (
            scenario(None, policy={"session_timeout": "60s", "sweep_interval": "10s"}),
            "gateway",
            "session_timeout",
            60.0,
            70.0,
        ),
        (
            scenario(
                "60s",
                {"idle_timeout": "40s", "counts": "data", "expiry": "close"},
                detector={"kind": "ping", "frame": "ping"},
            ),
            "middle",
            "tcp_fin",
            40.0,
            40.0,
        ),
    ],
)
def test_who_ends_a_healthy_connection_and_when(
    one: Scenario, author: str, cause: str, lo_s: float, hi_s: float
) -> None:
    life = lifetime(one)
    assert life.law is not None, life.note
    assert (life.author, life.cause) == (author, cause)
    assert (life.law.lo_s, life.law.hi_s) == pytest.approx((lo_s, hi_s), abs=0.2)


@pytest.mark.parametrize(
    "one",
    [
        scenario("25s"),
        scenario("25s", {"idle_timeout": "60s"}),
        scenario("60s", {"idle_timeout": "40s"}, traffic={"to_client": {"every": "10s"}}),
        scenario("25s", policy={"session_timeout": "30s"}),
        scenario("5s", detector={"kind": "phi_akka"}),
    ],
)
def test_who_is_never_lost(one: Scenario) -> None:
    life = lifetime(one)
    assert life.law is not None and life.law.mass == 0, life.note
    assert idle_timer_prevented(one, SCENARIO_TIME)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (scenario("60s", {"idle_timeout": "60s"}, network={"round_trip": "1ms"}), "very moment"),
        (scenario("25s", traffic={"service": "1ms"}), "traffic.service"),
        (scenario("25s", incidents=[{"kind": "reconnect_storm", "at": "30s"}]), "incidents"),
        (scenario("25s", detector={"kind": "probing"}, nat={"idle_timeout": "60s"}), "probing"),
    ],
)
def test_where_no_law_is_known_the_reason_is_said(one: Scenario, why: str) -> None:
    life = lifetime(one)
    assert life.law is None and why in life.note


def test_outages_cost_a_rate_or_nothing_is_known() -> None:
    network = {"outages": {"every": "900s", "length": {"exponential": {"mean": "30s"}}}}
    rate, _ = outage_losses_per_day(scenario("25s", network=network))
    assert rate is not None and rate > 0
    often = {"outages": {"every": "300s", "length": {"exponential": {"mean": "30s"}}}}
    assert "follow each other" in outage_losses_per_day(scenario("25s", network=often))[1]
    assert outage_losses_per_day(scenario("25s"))[0] == 0.0
    unknown, why = outage_losses_per_day(scenario("25s", network=network, reconnect={"idle_limit": "30s"}))
    assert unknown is None and "idle_limit" in why


@pytest.mark.parametrize(
    ("records", "ttl", "interval", "gone_s"),
    [
        ({"refreshed": "never"}, "120s", "30s", 120.0),
        ({"refreshed": "when_half_gone"}, "120s", "30s", None),
        ({"refreshed": "at_each_frame"}, "40s", "30s", None),
        ({"refreshed": "at_each_frame"}, "40s", None, 40.0),
        ({"refreshed": "never", "expire": False}, "120s", "30s", None),
    ],
)
def test_when_presence_lapses_though_the_client_lives(
    records: dict[str, Any], ttl: str, interval: str | None, gone_s: float | None
) -> None:
    law = predict_presence(scenario(interval, policy={"status_ttl": ttl}, records=records))
    assert law is not None
    assert law.mass == (0 if gone_s is None else 1)
    assert gone_s is None or law.lo_s == law.hi_s == gone_s


# -- clients' own beats ------------------------------------------------------------------------------

BEATS = LivenessPolicy(
    heartbeat_interval=20.0, heartbeat_timeout=20.0, session_timeout=50.0, sweep_interval=25.0
)
LADDER = Network().rto_ladder


def played(frames: Any, draws: int = 4000) -> FloatArray:
    """Who is thrown out when, if frames arrive at these times after the fault; the last one before it at −U."""
    r = np.random.default_rng(11)
    found = np.full(draws, np.nan)
    assert BEATS.session_timeout is not None
    for i in range(draws):
        age_s, sweep_s = r.uniform(0, BEATS.interval_s), r.uniform(0, BEATS.sweep_interval)
        heard_s = -age_s
        for frame_s in frames(age_s, r):
            late_s = (heard_s + BEATS.session_timeout - sweep_s) / BEATS.sweep_interval
            out_s = sweep_s + BEATS.sweep_interval * math.ceil(late_s)
            if out_s < frame_s:
                found[i] = out_s
                break
            heard_s = max(heard_s, frame_s)
    return found


def close(law: Law, draws: FloatArray) -> None:
    """The CDF within the quadrature's error and Kolmogorov's 1 in 10,000 for 4,000 draws."""
    at_s = np.linspace(20.0, 350.0, 400)
    seen = np.array([(draws <= t).mean() for t in at_s])
    assert np.max(np.abs(seen - law.cdf(at_s))) < 0.036
    happened = draws[np.isfinite(draws)]
    assert law.lo_s <= happened.min() and happened.max() <= law.hi_s


def test_a_hidden_tab_is_thrown_out_between_two_runs_of_its_slow_timer() -> None:
    law = throttled_beats(BEATS, 60.0, 400.0)
    assert law is not None
    close(law, played(lambda _age, _r: (60.0 * n for n in range(1, 8))))


def test_beats_that_get_lost_come_with_tcps_next_try_and_those_behind_them() -> None:
    def frames(age_s: float, r: np.random.Generator) -> Any:
        at_s, repaired = BEATS.interval_s - age_s, False
        while at_s < 400.0:
            tries = (0.0, *(after_probe(LADDER) if repaired else LADDER))
            lost = int(r.geometric(0.33)) - 1
            yield at_s + (tries[lost] if lost < len(tries) else math.inf)
            repaired = lost == 1 and not repaired
            at_s += BEATS.interval_s * max(1, math.ceil(tries[min(lost, len(tries) - 1)] / BEATS.interval_s))

    phase = Law.uniform(0.0, BEATS.interval_s)
    close(lossy_beats(BEATS, 0.67, LADDER, 420.0).plus(phase.scaled(-1.0)), played(frames))


@pytest.mark.parametrize("late_s", [25.0, 45.0, 80.0])
def test_a_constant_lateness_makes_one_long_gap(late_s: float) -> None:
    since = delayed_beats(BEATS, Law.constant(late_s))
    assert since is not None
    draws = played(lambda age, _r: (20.0 * n - age + late_s for n in range(1, 20)))
    law = since.plus(Law.uniform(0.0, 20.0).scaled(-1.0))
    if not law.mass:
        assert np.isnan(draws).all()
        return
    agrees(law, draws)


def test_the_cases_of_practice_have_their_ranges() -> None:
    policy = BEATS.model_copy(
        update={"heartbeat_interval": 15.0, "session_timeout": 45.0, "sweep_interval": 1.0}
    )
    law = throttled_beats(policy, 60.0, 300.0)
    assert law is not None
    assert (law.lo_s, law.hi_s, law.mass) == pytest.approx((30.0, 46.0, 1.0), abs=0.01)
    patient = policy.model_copy(update={"heartbeat_interval": 30.0, "session_timeout": 90.0})
    in_time = throttled_beats(patient, 60.0, 300.0)
    assert in_time is not None and in_time.mass == 0
    assert delayed_beats(policy, Law.of(Distribution(constant=60.0))) is not None
