"""The fast fleet on its own: what it must never do, what follows exactly, what it refuses.

Its law is compared with the SimPy engine's and with theory in `test_fleet_agreement.py`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.simulated.fleet import FleetError, FleetResult, Outcome, fleet_sweep, run_fleet
from harness.simulated.fleet.result import CAUSES
from harness.theory.costs import bytes_per_beat
from harness.theory.false_suspicions import false_suspicions_by_outages
from harness.theory.literature.datagram_loss import beats_to_suspicion_iid
from harness.theory.literature.other_detectors import false_suspicion_per_outage_exponential
from reference_server.events import Cause
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.client_rules import Reconnect
from scenarios.distributions import Distribution, Exponential, Lognormal, Uniform
from scenarios.faults import Fault
from scenarios.faults.frozen import Frozen
from scenarios.faults.host_crash import HostCrash
from scenarios.faults.nat_timeout import NatTimeout
from scenarios.faults.network_cut import NetworkCut
from scenarios.faults.orderly_close import OrderlyClose
from scenarios.network import Nat, Network, Outages
from tests.harness.theory.quadrature import false_suspicions_per_client_day

POLICY = LivenessPolicy(heartbeat_interval=30.0, heartbeat_timeout=10.0, max_failures=3)
TRIP_S = 0.1
QUICK = Network(round_trip=Distribution(constant=TRIP_S))
AT = Distribution(uniform=Uniform(low=30.0, high=60.0))
DAY_S = 86400.0


def run(
    policy: LivenessPolicy = POLICY,
    network: Network = QUICK,
    *,
    clients: int = 2000,
    duration_s: float = 300.0,
    **more: Any,
) -> FleetResult:
    return run_fleet(
        policy, network, clients=clients, duration_s=duration_s, rng=np.random.default_rng(11), **more
    )


def with_outages(every_s: float, mean_s: float) -> Network:
    law = Distribution(exponential=Exponential(mean=mean_s))
    return Network(
        round_trip=Distribution(lognormal=Lognormal(median=0.05, sigma=0.5)),
        outages=Outages(every=every_s, length=law),
    )


def silent_for(heal_after: Distribution | None) -> NetworkCut:
    return NetworkCut(kind="network_cut", share=1.0, at=AT, heal_after=heal_after)


def same(a: FleetResult, b: FleetResult) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(FleetResult)]
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


# -- silent deaths -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        HostCrash(kind="host_crash", share=1.0, at=AT),
        Frozen(kind="frozen", share=1.0, at=AT),
        silent_for(None),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_silent_death_is_seen_within_the_policys_range(fault: Fault) -> None:
    """A ping in flight at the fault takes half a round trip off the lower end."""
    result = run(fault=fault)
    low, high = 70.0 - TRIP_S / 2, 100.0 - TRIP_S / 2
    assert len(result.detection_s) == 2000
    assert result.detection_s.min() >= low
    assert result.detection_s.max() < high
    assert set(result.cause) == {CAUSES.index(Cause.HEARTBEAT)}
    assert stats.kstest(result.detection_s, "uniform", (low, high - low)).pvalue > 1e-3


def test_a_first_ping_that_is_due_an_interval_after_the_connect() -> None:
    """All clients connect at once and stay in step: silent from 45 s on, they miss the pings of 60, 90 and 120 s."""
    fault = HostCrash(kind="host_crash", share=1.0, at=Distribution(constant=45.0))
    result = run(POLICY.model_copy(update={"first_ping": "interval"}), fault=fault, ramp_s=0.0)
    assert result.detection_s == pytest.approx(np.full(2000, 15.0 + 70.0), abs=4 * TRIP_S)


def test_what_the_run_does_not_last_for_is_censored() -> None:
    result = run(fault=HostCrash(kind="host_crash", share=1.0, at=AT), duration_s=120.0)
    censored = result.duration_s[result.outcome == Outcome.CENSORED]
    assert len(result.detection_s) + len(censored) == 2000
    assert 0 < len(result.detection_s) < 2000
    assert np.all((censored > 60.0) & (censored <= 90.0))
    assert result.detection_s.max() <= 90.0


def test_a_fault_after_the_end_never_took_effect() -> None:
    result = run(fault=HostCrash(kind="host_crash", share=1.0, at=AT), duration_s=20.0)
    assert np.all(result.outcome == Outcome.NOT_APPLICABLE)
    assert np.all(np.isnan(result.duration_s))


def test_beats_below_the_nats_timeout_prevent_the_failure() -> None:
    nat = Nat(idle_timeout=31.0)
    result = run(fault=NatTimeout(kind="nat_timeout", share=1.0, at=AT, nat=nat))
    assert np.all(result.outcome == Outcome.NOT_APPLICABLE)


@pytest.mark.parametrize(
    ("expiry", "latency_s", "cause"),
    [("drop", 10.0 + 70.0 - TRIP_S / 2, Cause.HEARTBEAT), ("reset", 10.0 + TRIP_S / 2, Cause.TCP_RESET)],
)
def test_a_forgotten_mapping_is_not_a_matter_of_chance(expiry: Any, latency_s: float, cause: Cause) -> None:
    nat = Nat(idle_timeout=20.0, expiry=expiry)
    result = run(fault=NatTimeout(kind="nat_timeout", share=1.0, at=AT, nat=nat))
    assert set(result.cause) == {CAUSES.index(cause)}
    assert result.detection_s == pytest.approx(np.full(2000, latency_s))


def test_the_idle_limit_wins_where_it_is_shorter() -> None:
    policy = POLICY.model_copy(update={"session_timeout": 45.0, "sweep_interval": 1.0})
    result = run(policy, fault=HostCrash(kind="host_crash", share=1.0, at=AT))
    assert set(result.cause) == {CAUSES.index(Cause.SESSION_TIMEOUT)}
    assert result.detection_s.min() >= 15.0
    assert result.detection_s.max() <= 46.0 + TRIP_S


def test_tcp_gives_up_on_a_cut_but_not_on_a_frozen_client() -> None:
    policy = POLICY.model_copy(update={"tcp_user_timeout": 20.0})
    cut = run(policy, fault=silent_for(None))
    frozen = run(policy, fault=Frozen(kind="frozen", share=1.0, at=AT))
    assert set(cut.cause) == {CAUSES.index(Cause.TCP_TIMEOUT)}
    fires_s = 20.0 + Network().rto_ladder[1]
    assert np.all((cut.detection_s > fires_s - 0.1) & (cut.detection_s < fires_s + 30.0))
    assert set(frozen.cause) == {CAUSES.index(Cause.HEARTBEAT)}


# -- healthy clients -----------------------------------------------------------------------------


def test_nobody_is_suspected_who_answers_in_time() -> None:
    trips = Distribution(uniform=Uniform(low=0.0, high=9.99))
    result = run(network=Network(round_trip=trips), duration_s=DAY_S)
    assert result.false_suspicions == 0
    assert result.frames == 2 * result.beats
    assert result.beats == pytest.approx(2000 * DAY_S / 30, rel=0.001)
    assert result.wire_bytes == result.beats * bytes_per_beat(20, 15)


def test_records_are_refreshed_when_half_of_their_time_is_gone() -> None:
    """Status records live 2 h: 24 times a day, two operations each."""
    result = run(duration_s=DAY_S + 60.0)
    assert result.redis_operations == 2000 * 24 * 2


def test_outages_that_nobody_survives_and_that_everybody_does() -> None:
    """Shorter than (k−1)R + τ minus TCP's overshoot: never. Much longer: at the first ping."""
    short = Outages(every=300.0, length=Distribution(constant=5.0))
    calm = run(network=QUICK.model_copy(update={"outages": short}), duration_s=7200.0)
    assert calm.false_suspicions == 0
    long = Outages(every=300.0, length=Distribution(constant=500.0))
    lost = run(network=QUICK.model_copy(update={"outages": long}), duration_s=7200.0)
    assert lost.false_suspicions == np.sum(lost.healthy_s < 7200.0) > 1900
    assert np.bincount(lost.false_client).max() == 1  # nobody tells them, and they wait for ever


def test_clients_with_patience_come_back() -> None:
    law = Outages(every=600.0, length=Distribution(constant=200.0))
    network = QUICK.model_copy(update={"outages": law})
    result = run(network=network, duration_s=7200.0, reconnect=Reconnect(idle_limit=150.0))
    assert np.bincount(result.false_client).max() > 1
    assert result.healthy_client_s < 2000 * 7200.0


def test_late_answers_are_losses_where_one_miss_is_enough() -> None:
    """k = 1: every late answer is a suspicion, so E[N] = 1/p heartbeats (theory of i.i.d. loss)."""
    policy = LivenessPolicy(heartbeat_interval=5.0, heartbeat_timeout=2.0, max_failures=1)
    trips = Distribution(uniform=Uniform(low=0.0, high=2.04))
    late = 0.04 / 2.04
    result = run(policy, Network(round_trip=trips), duration_s=3600.0)
    assert beats_to_suspicion_iid(late, 1) == pytest.approx(1 / late)
    # The last ping of each client may still be waiting at the end: of 1.4 million.
    assert stats.binomtest(result.false_suspicions, result.beats, late).pvalue > 1e-3


def test_the_reference_value_of_an_outage_without_overshoot() -> None:
    """(T, k, τ, m) = (25, 1, 20, 10): 0.049691, with a retransmission every 5 ms in place of TCP's ladder."""
    policy = LivenessPolicy(heartbeat_interval=25.0, heartbeat_timeout=20.0, max_failures=1)
    network = Network(round_trip=Distribution(constant=1e-6), rto_ladder=tuple(np.arange(0.005, 60.0, 0.005)))
    fault = silent_for(Distribution(exponential=Exponential(mean=10.0)))
    result = run(policy, network, clients=100_000, fault=fault)
    expected = false_suspicion_per_outage_exponential(25.0, 20.0, 1, 10.0)
    assert expected == pytest.approx(0.049691, abs=1e-6)
    assert stats.binomtest(len(result.detection_s), 100_000, expected).pvalue > 1e-3


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_rare_outages_give_the_renewal_rate_of_theory(failures: int) -> None:
    """Outages far apart meet a quiet client each time, which is what theory's rate assumes."""
    policy = POLICY.model_copy(update={"max_failures": failures})
    network = with_outages(every_s=6 * 3600.0, mean_s=40.0)
    result = run(policy, network, clients=4000, duration_s=DAY_S, reconnect=Reconnect(idle_limit=400.0))
    # A client is connected between outages, and through those that it survives: theory's time is all time.
    expected = false_suspicions_per_client_day(policy, network) * 4000
    low, high = stats.poisson.interval(0.999, expected)
    assert low <= result.false_suspicions <= high


def test_the_answers_to_a_retransmission_take_one_round_trip_with_it() -> None:
    """The patience of 107 s leaves 0.2 s after TCP's try at 106.8 s: five pings are answered then, none overtakes."""
    policy = LivenessPolicy(
        heartbeat_interval=130.0, heartbeat_timeout=7.0, max_failures=5, retry_interval=25.0
    )
    trips = Distribution(lognormal=Lognormal(median=0.08, sigma=0.7))
    away = Distribution(exponential=Exponential(mean=12.0))
    network = Network(round_trip=trips, outages=Outages(every=1200.0, length=away))
    expected = float(false_suspicions_by_outages(130.0, 107.0, network))
    result = run(policy, network, clients=14_000, duration_s=DAY_S)
    days = result.healthy_client_s / DAY_S
    low, high = stats.poisson.interval(0.9999, expected * days)
    assert expected * days > 100
    assert low <= result.false_suspicions <= high


def test_a_nat_that_beats_keep_open_is_shut_by_a_long_cut() -> None:
    """The mapping goes while nothing passes, so a cut that TCP survives is not survived."""
    cut = silent_for(Distribution(constant=50.0))
    behind = QUICK.model_copy(update={"nat": Nat(idle_timeout=40.0)})
    assert np.all(run(fault=cut).outcome == Outcome.RECOVERED)
    assert np.all(run(network=behind, fault=cut).outcome == Outcome.DETECTED)


def test_a_retransmission_after_an_outage_meets_the_rst_of_a_nat_that_has_forgotten() -> None:
    """τ = 40 s outlasts 25 s, a NAT of 60 s does not: TCP's try 13.4 s after a ping comes after 60.4 s of silence."""
    policy = LivenessPolicy(heartbeat_interval=47.0, heartbeat_timeout=40.0, max_failures=1)
    law = Outages(every=1800.0, length=Distribution(constant=25.0))
    behind = QUICK.model_copy(update={"outages": law, "nat": Nat(idle_timeout=60.0, expiry="reset")})
    result = run(policy, behind, duration_s=7200.0)
    assert result.false_suspicions < 0.01 * result.healthy_resets  # a second outage before TCP's next try
    # Lost where more than 6.7 s of an outage remain after the first ping within it: 18.3 s of 47 s of phases.
    rate = 18.3 / 47 / 1825
    low, high = stats.poisson.interval(0.999, result.healthy_client_s * rate)
    assert low <= result.healthy_resets + result.false_suspicions <= high


def test_a_box_next_to_the_gateway_sees_the_pings_of_an_outage() -> None:
    """T = 47 s is below its 60 s, so it forgets nobody; at the client's end it would see nothing for 60.4 s."""
    policy = LivenessPolicy(heartbeat_interval=47.0, heartbeat_timeout=40.0, max_failures=1)
    law = Outages(every=1800.0, length=Distribution(constant=12.0))
    lost = {}
    for at in ("client", "gateway"):
        nat = Nat.model_validate({"idle_timeout": 60.0, "expiry": "reset", "at": at})
        result = run(policy, QUICK.model_copy(update={"outages": law, "nat": nat}), duration_s=7200.0)
        lost[at] = result.healthy_resets + result.false_suspicions
    assert lost["client"] > 0 == lost["gateway"]


# -- results, seeds, refusals --------------------------------------------------------------------


def test_the_number_of_processes_changes_nothing() -> None:
    policies = [POLICY, POLICY.model_copy(update={"max_failures": 1})]
    one, two = (
        fleet_sweep(
            policies,
            with_outages(600.0, 20.0),
            clients=30_000,
            duration_s=600.0,
            seed=np.random.SeedSequence(5),
            n_jobs=jobs,
        )
        for jobs in (1, 2)
    )
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    assert one[0].clients == 30_000
    assert one[1].false_client.max() >= 25_000  # clients of the second part are numbered on


def test_the_same_seed_gives_the_same_and_another_seed_does_not() -> None:
    fault = HostCrash(kind="host_crash", share=1.0, at=AT)
    assert same(run(fault=fault), run(fault=fault))
    other = run_fleet(
        POLICY, QUICK, clients=2000, duration_s=300.0, rng=np.random.default_rng(12), fault=fault
    )
    assert not np.array_equal(other.detection_s, run(fault=fault).detection_s)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": LivenessPolicy(heartbeat_interval=None)}, "no heartbeat"),
        (
            {"policy": LivenessPolicy(heartbeat_interval=3.0, heartbeat_timeout=7.0)},
            "heartbeat_timeout above the heartbeat_interval",
        ),
        ({"network": QUICK.model_copy(update={"max_age": 60.0})}, "max_age"),
        (
            {"network": QUICK.model_copy(update={"nat": Nat(idle_timeout=60.0, expiry="close")})},
            "expiry close",
        ),
        (
            {"network": QUICK.model_copy(update={"nat": Nat(idle_timeout=20.0, at="gateway")})},
            "next to the gateway that pings",
        ),
        ({"clients": 0}, "clients 0"),
        ({"duration_s": 0.0}, "duration_s 0"),
        ({"fault": OrderlyClose(kind="orderly_close", share=1.0, at=AT)}, "orderly_close"),
        ({"fault": silent_for(None), "reconnect": Reconnect(idle_limit=60.0)}, "idle_limit 60s"),
        (
            {
                "fault": NatTimeout(kind="nat_timeout", share=1.0, at=AT, nat=Nat(idle_timeout=5.0)),
                "network": QUICK.model_copy(update={"nat": Nat(idle_timeout=5.0)}),
            },
            "two NATs",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_cannot_do_it_says(change: dict[str, Any], says: str) -> None:
    with pytest.raises(FleetError, match=says):
        run(**change)


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="no parts"):
        FleetResult.merged([])
