"""Adaptive detectors driven by the simulated gateway: φ-accrual against its law, a probing heartbeat behind a NAT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.real.engine import CannotRun, check_machine
from harness.theory.literature.phi_accrual_laws import AkkaPhi, CassandraPhi, phi_accrual
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.harness.simulated.support import K, Log, fault, run, scenario
from tests.harness.theory.montecarlo import agrees

FAST = {"heartbeat_interval": 1.0, "heartbeat_timeout": 1.0}
HALF_S = 0.0005


def crashed(detector: dict[str, Any], clients: int = 300) -> list[float]:
    """Detection latencies of host crashes at random phases, long after the windows have forgotten their start."""
    what = scenario(clients=clients, duration=90.0, liveness=FAST, detector=detector)
    rng = np.random.default_rng(2)
    faults = [fault("host_crash", n, float(rng.uniform(60.0, 65.0))) for n in range(clients)]
    log = run(what, *faults)
    assert {e.cause for e in log.of(K.SUSPECTED)} == {"heartbeat"}
    return log.since_fault_s(K.SUSPECTED)


def test_akkas_phi_suspects_by_its_law() -> None:
    found = crashed({"kind": "phi_akka", "samples": 20})
    # The age of the last beat counts from its arrival at the gateway, half a round trip after it was sent.
    agrees(phi_accrual(AkkaPhi(), 1.0), np.array(found))


def test_cassandras_phi_suspects_by_its_law() -> None:
    found = crashed({"kind": "phi_cassandra", "samples": 20})
    agrees(phi_accrual(CassandraPhi(), 1.0), np.array(found))


def test_negative_control_another_threshold_is_seen() -> None:
    found = crashed({"kind": "phi_cassandra", "samples": 20, "threshold": 6.0}, clients=100)
    assert max(found) < CassandraPhi().silence_s - 1.0


@pytest.mark.parametrize("kind", ["phi_akka", "phi_cassandra"])
def test_phi_throws_nobody_healthy_out_whose_jitter_it_has_learnt(kind: str) -> None:
    what = scenario(
        clients=100,
        duration=300.0,
        liveness=FAST,
        detector={"kind": kind},
        network={"round_trip": {"lognormal": {"median": 0.1, "sigma": 0.8}}},
    )
    log = run(what)
    assert not log.of(K.SUSPECTED) and len(log.of(K.CONNECTED)) == 100


def test_phi_is_made_patient_by_a_network_with_pauses() -> None:
    """Akka's σ grows with what it has seen: the same death takes longer to be suspected."""

    def latency_s(median_s: float) -> float:
        what = scenario(
            clients=50,
            duration=120.0,
            liveness=FAST,
            detector={"kind": "phi_akka"},
            network={"round_trip": {"lognormal": {"median": median_s, "sigma": 1.0}}},
        )
        log = run(what, *[fault("host_crash", n, 100.0) for n in range(50)])
        return float(np.mean(log.since_fault_s(K.SUSPECTED)))

    assert latency_s(0.2) > latency_s(0.001) + 1.0


def probed(nat_s: float | None, hours: float = 5.0) -> Log:
    network = {} if nat_s is None else {"nat": {"idle_timeout": nat_s}}
    what = scenario(
        clients=10,
        duration=hours * 3600.0,
        network=network,
        detector={"kind": "probing"},
        liveness={"session_timeout": None},
        reconnect={"idle_limit": 700.0},
    )
    # Planned beyond the end: it only has client 0 traced.
    return run(what, fault("orderly_close", 0, hours * 3600.0 + 60.0, traced=True))


def test_a_probing_heartbeat_finds_what_the_nat_allows() -> None:
    """Behind 400 s: 270, 330, 390 hold, 450 does not; after three lost connections it stays at 370 s."""
    log = probed(400.0)
    for client in range(1, 10):
        lost = log.of(K.SUSPECTED, client)
        assert len(lost) == 3 and {e.cause for e in lost} == {"heartbeat"}
        # 9 beats on the way up, 3 connections at 450 s with 700 s to notice, well before the third hour.
        assert max(e.time_s for e in lost) < 3 * 3600.0
    sent = [e.time_s for e in log.of(K.HEARTBEAT_SENT, 0)]
    gaps = np.diff([time_s for time_s in sent if time_s > 3.5 * 3600.0])
    assert len(gaps) > 8 and gaps == pytest.approx([370.0] * len(gaps), abs=0.01)


def test_without_a_nat_it_settles_below_its_maximum_and_loses_nobody() -> None:
    log = probed(None)
    assert not log.of(K.SUSPECTED)
    sent = [e.time_s for e in log.of(K.HEARTBEAT_SENT, 0)]
    assert np.diff(sent)[-5:] == pytest.approx([570.0] * 5, abs=0.01)


def test_negative_control_a_fixed_heartbeat_above_the_nats_timeout_goes_on_losing() -> None:
    what = scenario(
        clients=5,
        duration=5 * 3600.0,
        network={"nat": {"idle_timeout": 400.0}},
        liveness={"heartbeat_interval": 450.0, "heartbeat_timeout": 10.0, "session_timeout": None},
        reconnect={"idle_limit": 700.0},
    )
    log = run(what)
    assert len([e for e in log.of(K.SUSPECTED) if e.time_s > 3 * 3600.0]) > 10


def test_a_nat_that_resets_tells_the_probing_heartbeat_as_well() -> None:
    what = scenario(
        clients=3,
        duration=5 * 3600.0,
        detector={"kind": "probing"},
        network={"nat": {"idle_timeout": 400.0, "expiry": "reset"}},
        liveness={"session_timeout": None},
        reconnect={"idle_limit": 700.0},
    )
    log = run(what)
    assert {e.cause for e in log.of(K.SUSPECTED)} == {"tcp_reset"}
    assert len(log.of(K.SUSPECTED)) == 9


@pytest.mark.parametrize(
    ("change", "key"),
    [({"store": {"expiry_lag": 1.0}}, "store"), ({"network": {"give_up_lag": 1.0}}, "network.give_up_lag")],
)
def test_what_only_the_simulation_does_the_real_engine_refuses(change: dict[str, Any], key: str) -> None:
    what = Scenario.model_validate(
        {
            "name": "only",
            "duration": 300.0,
            "faults": [{"kind": "host_crash", "share": "10%", "at": 5.0}],
            **change,
        }
    )
    with pytest.raises(CannotRun, match=key):
        check_machine(make_plan(what), what)
