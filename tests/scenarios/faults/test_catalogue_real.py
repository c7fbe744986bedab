"""Faults of the catalogue and of one's own with real sockets: one run for all of them, both engines agree."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness.run import run
from harness.runs.directory import RunDir, find_run
from reference_server.errors import Exit
from scenarios.load import parse_scenario

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(120)]

EXAMPLE = Path(__file__).parents[3] / "examples" / "half_answer.py"
# T = 0.6 s of real time, T_D in [14, 20) s of scenario time; a page's timers every 3 s of real time.
TEXT = f"""
name: strange
seed: 3
clients: 60
ramp: 10s
duration: 50s
speedup: 10
liveness: {{heartbeat_interval: 6s, heartbeat_timeout: 2s, max_failures: 3, resume_window: 30s}}
faults:
  - {{kind: noop, share: 15%, at: {{uniform: {{low: 3s, high: 9s}}}}}}
  - {{kind: throttled_timers, share: 15%, at: {{uniform: {{low: 3s, high: 9s}}}}, every: 30s}}
  - {{kind: delayed, share: 15%, at: {{uniform: {{low: 3s, high: 9s}}}}, by: 4s}}
  - {{kind: slow_reader, share: 15%, at: {{uniform: {{low: 3s, high: 9s}}}}}}
  - {{kind: packet_loss, share: 15%, at: {{uniform: {{low: 3s, high: 9s}}}}, rate: 90%}}
  - kind: custom
    name: half_answer
    uses: '{EXAMPLE}:HalfAnswer'
    share: 15%
    at: {{uniform: {{low: 3s, high: 9s}}}}
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    root = tmp_path_factory.mktemp("runs")
    outcome = run(parse_scenario(TEXT), root=root)
    assert outcome.exit_code in (Exit.GOOD, Exit.UNSOUND), outcome
    return find_run("latest", root)


def rows(directory: RunDir, engine: str, fault: str, milestone: str = "suspected") -> pd.DataFrame:
    table = pd.read_csv(directory.path / "detections.csv", keep_default_na=False, na_values=[""])
    rows = table[(table["engine"] == engine) & (table["fault"] == fault)]
    assert len(rows)
    return rows[rows["milestone"] == milestone]


@pytest.mark.parametrize("engine", ["real", "simulated"])
@pytest.mark.parametrize("fault", ["throttled_timers", "slow_reader", "half_answer"])
def test_only_the_missing_answer_tells(directory: RunDir, fault: str, engine: str) -> None:
    """Each [lo - ε, hi + ε] after it took effect, by the heartbeat: the kernel acknowledged all the while."""
    seen = rows(directory, engine, fault)
    slack = directory.read_json(directory.summary)["epsilon_s"] if engine == "real" else 0.02
    assert set(seen["cause"]) == {"heartbeat"}
    assert seen["duration_s"].between(14 - slack, 20 + slack).all(), seen["duration_s"].describe()


@pytest.mark.parametrize("engine", ["real", "simulated"])
@pytest.mark.parametrize("fault", ["noop", "delayed"])
def test_who_answers_in_time_is_never_suspected(directory: RunDir, fault: str, engine: str) -> None:
    assert set(rows(directory, engine, fault)["outcome"]) == {"censored"}


@pytest.mark.parametrize("engine", ["real", "simulated"])
def test_who_loses_packets_is_thrown_out_only_when_every_try_in_time_was_lost(
    directory: RunDir, engine: str
) -> None:
    seen = rows(directory, engine, "packet_loss").query("outcome == 'detected'")
    slack = directory.read_json(directory.summary)["epsilon_s"] if engine == "real" else 0.02
    assert len(seen) >= 5  # of 9; 0.9^4 a heartbeat, six of them
    assert set(seen["cause"]) == {"heartbeat"}
    assert seen["duration_s"].min() >= 14 - slack


@pytest.mark.parametrize("engine", ["real", "simulated"])
def test_a_hidden_page_that_was_thrown_out_comes_back(directory: RunDir, engine: str) -> None:
    cleared = rows(directory, engine, "throttled_timers", "store_cleared")
    assert set(cleared["outcome"]) == {"recovered"}


def test_the_kernel_tells_a_closed_window_from_half_a_frame(directory: RunDir) -> None:
    told = pd.read_csv(directory.path / "tcp_info.csv").query("engine == 'real'").set_index("fault")
    assert told.loc["slow_reader", "unacked_share"] == 1
    assert told.loc["half_answer", "unacked_share"] == 0
    assert told.loc["packet_loss", "unacked_share"] == 1


def test_each_says_how_it_was_made(directory: RunDir) -> None:
    said = {r["fault"]: r for r in directory.read_json(directory.provenance)["fidelity"]}
    assert said["half_answer"]["mechanism"] == "half a frame, then stops reading"
    assert "SO_RCVBUF" in said["slow_reader"]["mechanism"]
    assert all(r["cannot_show"] for r in said.values())
