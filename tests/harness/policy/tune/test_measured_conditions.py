"""Networks from measurements: a CSV that was drawn from a known one, a simulated run, and files that are no use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.policy.tune.explain import explain
from harness.policy.tune.measured_conditions import NetworkDataError, network_from_csv, network_from_run
from harness.policy.tune.recommend import recommend
from harness.policy.tune.requirements import parse_requirements
from harness.run import run
from harness.runs.directory import find_run
from scenarios.load import parse_scenario


def write(path: Path, **columns: object) -> Path:
    file = path / "office.csv"
    pd.DataFrame({name: pd.Series(values) for name, values in columns.items()}).to_csv(file, index=False)
    return file


def trips(n: int = 600) -> list[float]:
    return list(np.random.default_rng(1).lognormal(np.log(0.04), 0.5, n))


def test_a_network_is_found_again(tmp_path: Path) -> None:
    r = np.random.default_rng(7)
    lengths = r.exponential(12.0, 300)
    file = write(
        tmp_path,
        round_trip_s=trips(),
        outage_s=lengths,
        observed_s=[300 * 3600 + lengths.sum()],
        idle_s=[60, 120, 200, 240, 300, 250],
        survived=[1, 1, 1, 0, 0, 0],
        expiry=[None, None, None, "reset", "reset", "reset"],
    )
    found = network_from_csv(file)
    assert found.name == "office"
    trip, outages = found.network.round_trip, found.network.outages
    assert trip.lognormal is not None
    assert np.log(trip.lognormal.median / 0.04) == pytest.approx(0, abs=4 * 0.5 / 600**0.5)
    assert outages is not None
    assert outages.every == pytest.approx(3600)
    assert outages.length.exponential is not None
    assert outages.length.exponential.mean == pytest.approx(12, abs=4 * 12 / 300**0.5)
    assert found.nat is not None
    assert (found.nat.idle_timeout, found.nat.expiry) == (200, "reset")
    assert len(found.fits) == 2
    told = explain(recommend(found, parse_requirements(detect_p99="4m")))
    assert all(fit.sentence in told for fit in found.fits)
    assert "idle timer between 200s and 4m: reset" in told


def test_an_outage_that_goes_on_is_cut_short(tmp_path: Path) -> None:
    lengths = np.random.default_rng(8).exponential(20.0, 400)
    file = write(
        tmp_path,
        round_trip_s=trips(),
        outage_s=np.minimum(lengths, 10),
        outage_ongoing=(lengths >= 10).astype(int),
        observed_s=[1e6],
    )
    outages = network_from_csv(file).network.outages
    assert outages is not None
    ended = int((lengths < 10).sum())
    assert outages.length.mean_s == pytest.approx(20, abs=4 * 20 / ended**0.5)


def test_round_trips_alone_are_enough_and_the_rest_is_told(tmp_path: Path) -> None:
    found = network_from_csv(write(tmp_path, round_trip_s=trips()))
    assert found.network.outages is None
    assert found.nat is None
    assert any("no outages were looked for" in note for note in found.notes)
    watched = network_from_csv(write(tmp_path, round_trip_s=trips(), observed_s=[86400.0] * 10))
    # Nothing in ten days: 3.69/10 a day at most (95 %, two-sided).
    assert any("fewer than 0.369 a client-day" in note for note in watched.notes)


def test_nothing_longer_tried_is_taken_as_the_timer(tmp_path: Path) -> None:
    found = network_from_csv(write(tmp_path, round_trip_s=trips(), idle_s=[30, 90], survived=[1, 1]))
    assert found.nat is not None
    assert found.nat.idle_timeout == 90
    assert any("may be longer" in note for note in found.notes)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rtt": [1]}, "unknown column rtt; allowed: round_trip_s"),
        ({"round_trip_s": [0.1, "x", 0.1]}, "csv:3: round_trip_s is x"),
        ({"round_trip_s": [0.1, -1]}, "csv:3: round_trip_s is -1.0"),
        ({"round_trip_s": [0.1]}, "1 measurements"),
        ({"outage_s": [1.0] * 9, "round_trip_s": [0.1] * 9}, "add observed_s"),
        ({"outage_s": [5, 6, 7, 8, 9.0], "round_trip_s": [0.1] * 5, "observed_s": [20]}, "whole time"),
        ({"round_trip_s": [0.1] * 9, "idle_s": [30.0]}, "needs survived"),
        ({"round_trip_s": [0.1] * 9, "idle_s": [30.0], "survived": [0]}, "shorter idle_s"),
        (
            {"round_trip_s": [0.1], "idle_s": [3.0], "survived": [0], "expiry": ["bang"]},
            "allowed: drop or reset",
        ),
        ({"round_trip_s": [0.1] * 9, "outage_ongoing": [1]}, "without outage_s"),
    ],
)
def test_files_that_are_no_use(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(NetworkDataError, match=message):
        network_from_csv(write(tmp_path, **columns))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NetworkDataError, match="cannot be read"):
        network_from_csv(tmp_path / "none.csv")


RUN = """
name: watched
seed: 3
clients: 240
ramp: 30s
duration: 10m
liveness: {heartbeat_interval: 20s, heartbeat_timeout: 15s, max_failures: 3, resume_window: 4s}
network:
  round_trip: {lognormal: {median: 80ms, sigma: 0.4}}
  outages: {every: 10m, length: {exponential: {mean: 6s}}}
faults:
  - {kind: host_crash, share: 2%, at: {uniform: {low: 8m, high: 9m}}}
  - {kind: frozen, share: 2%, at: {uniform: {low: 8m, high: 9m}}}
  - {kind: nat_timeout, share: 2%, at: {uniform: {low: 1m, high: 2m}}, nat: {idle_timeout: 14s}}
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run(parse_scenario(RUN), engines=("theory", "simulated"), root=root)
    return root


def test_a_run_tells_its_network(watched: Path) -> None:
    found = network_from_run(find_run("latest", watched))
    trip, outages = found.network.round_trip, found.network.outages
    by_name = {fit.what: fit for fit in found.fits}
    n = by_name["round trip"].n
    assert n > 50  # three traced clients, a beat every 20 s
    assert np.log(float(trip.quantile(0.5)) / 0.08) == pytest.approx(0, abs=4 * 0.4 / n**0.5)
    assert outages is not None
    m = by_name["outage"].n
    assert outages.every == pytest.approx(600, abs=4 * 600 / m**0.5)
    assert outages.length.mean_s == pytest.approx(6, abs=4 * 6 / m**0.5)
    # The latency of a loss tells the idle timer up to a one-way delay.
    assert found.nat is not None
    assert found.nat.idle_timeout == pytest.approx(14, abs=0.3)
    assert found.nat.expiry == "drop"
