"""Calibration: a log made with known times gives them back, and what cannot be known is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.events.log import write_log
from harness.runs.directory import RunDir
from harness.studies.calibrate import CannotCalibrate, calibrate, calibrated
from reference_server.events import Event, EventKind, Source
from scenarios.load import ScenarioError, load_scenario

BASE, HANDSHAKE_S, HEARTBEAT_S = 0.02, 0.002, 0.0003
K = EventKind


def made(folder: Path, **how: Any) -> RunDir:
    """A minute of a gateway's log: a ramp of handshakes, then heartbeats at a rate that varies."""
    rng = np.random.default_rng(8)
    source = how.get("source", Source.GATEWAY)
    noise, stalled = how.get("noise", 0.002), how.get("stalled", 0)
    events: list[Event] = []

    def log(time_s: float, kind: EventKind, by: Source = source, **detail: Any) -> None:
        events.append(Event(time_s, by, kind, "s1", "c1", "node-1", "", detail))

    for second in range(60):
        handshakes = int(rng.poisson(40)) if second < 20 else 0
        heartbeats = int(rng.poisson(30 * (1 + second % 7)))
        busy = BASE + handshakes * HANDSHAKE_S + heartbeats * HEARTBEAT_S + rng.normal(0, noise)
        # A sample tells of the second that has passed.
        by = how.get("source", Source.HARNESS)
        log(second + 1, K.RESOURCES, by, role="gateway", pid=1, cpu_percent=100 * busy)
        for _ in range(handshakes):
            log(second + float(rng.uniform(0.01, 0.99)), K.CONNECTED)
        log(second + 0.98, K.HEARTBEAT_LATENESS, n=heartbeats, p50_s=0.0, p99_s=0.0, max_s=0.0)
        for half in (0.2, 0.7):
            lag_s = 0.2 if stalled > 0 else float(rng.lognormal(np.log(0.002), 0.5))
            stalled -= 1
            log(second + half, K.LOOP_LAG, role="gateway", pid=1, max_lag_s=lag_s)
        if how.get("traced", True):
            log(second + 0.3, K.HEARTBEAT_SENT)
            way_s = float(rng.lognormal(np.log(0.004), 0.3)) / 2
            log(second + 0.3 + way_s, K.HEARTBEAT_ANSWERED, how.get("source", Source.CLIENT))
    run = RunDir(folder)
    write_log(run.events, sorted(events, key=lambda event: event.time_s))
    return run


def test_known_times_are_found_within_their_errors(tmp_path: Path) -> None:
    found = calibrate(made(tmp_path))
    for service, truth_s in ((found.heartbeat, HEARTBEAT_S), (found.handshake, HANDSHAKE_S)):
        assert service.is_known
        assert abs(service.seconds - truth_s) < 4 * service.error < 0.2 * truth_s
    assert found.base == pytest.approx(BASE, abs=0.005)
    assert found.r_squared > 0.98
    assert found.lag is not None and found.lag.median_s == pytest.approx(0.002, rel=0.2)
    assert found.round_trip is not None
    assert found.round_trip.median_s == pytest.approx(0.004, rel=0.2)
    assert found.round_trip.sigma == pytest.approx(0.3, rel=0.4)
    assert found.round_trip.distance < 0.2 and not found.stalls


def test_a_noisy_machine_is_said_to_be_one_and_what_it_hides_is_left_out(tmp_path: Path) -> None:
    found = calibrate(made(tmp_path, noise=1.0))
    assert found.r_squared < 0.3
    assert not found.heartbeat.is_known
    assert "heartbeat_service" not in found.overrides().get("gateway", {})
    assert "left out" in found.to_yaml()


def test_long_lags_are_stalls(tmp_path: Path) -> None:
    found = calibrate(made(tmp_path, stalled=12))
    assert found.stalls == (0.2,) * 12
    stalls = found.overrides()["gateway"]["stalls"]
    assert stalls == {"every": "5s", "length": {"exponential": {"mean": "200ms"}}}


def test_a_scenario_takes_the_calibration_over_its_own_keys(tmp_path: Path) -> None:
    found = calibrate(made(tmp_path))
    path = tmp_path / "calibration.yaml"
    path.write_text(found.to_yaml())
    before = load_scenario("mixed", network={"round_trip": "50ms", "nat": {"idle_timeout": "100s"}})
    after = calibrated(before, path)
    assert after.gateway.heartbeat_service.mean_s == pytest.approx(found.heartbeat.seconds, rel=1e-3)
    assert after.network.round_trip.lognormal is not None
    assert after.network.nat == before.network.nat and after.faults == before.faults
    assert after.gateway.lease == before.gateway.lease and after.gateway.takes_time


def test_a_calibration_that_is_none_is_refused_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    path.write_text("gateway: {heartbeat_services: 1ms}\n")
    with pytest.raises(ScenarioError, match="heartbeat_services"):
        calibrated(load_scenario("mixed"), path)


def test_without_traced_heartbeats_and_suspicions_the_round_trip_stays_unknown(tmp_path: Path) -> None:
    found = calibrate(made(tmp_path, traced=False))
    assert found.round_trip is None and "network" not in found.overrides()


def test_a_simulation_calibrates_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotCalibrate, match="from a real run"):
        calibrate(made(tmp_path, source=Source.SIMULATION))
    with pytest.raises(CannotCalibrate):
        calibrate(RunDir(tmp_path / "nothing"))
