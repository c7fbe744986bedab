"""Presets in whole real runs: a client that beats by itself, and a gateway that is not what the scenario says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness.real.engine import CannotRun, RealSetup
from harness.run import run
from harness.runs.directory import RunDir, find_run
from reference_server.errors import Exit
from reference_server.liveness.heartbeat_policy import TcpKeepalive
from scenarios.load import parse_scenario
from scenarios.schema import Scenario
from tests.support import require_silence

pytestmark = [pytest.mark.real, pytest.mark.root, pytest.mark.timeout(180)]

AT = "at: {uniform: {low: 35s, high: 65s}}"
FAULTS = f"faults: [{{kind: host_crash, share: 60%, {AT}}}, {{kind: process_crash, share: 20%, {AT}}}]\n"


def scenario(preset: str, duration_s: int) -> Scenario:
    """Thirty times as fast: a heartbeat every second of real time."""
    text = f"name: small\nseed: 4\nclients: 30\nramp: 30s\nspeedup: 30\nduration: {duration_s}s\n"
    return parse_scenario(text + f"preset: {preset}\n" + FAULTS)


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(find_run("latest", root).table(name), keep_default_na=False)


@pytest.fixture(autouse=True)
def _silence() -> None:
    require_silence()


def test_clients_that_beat_by_themselves_are_missed_within_the_law(tmp_path: Path) -> None:
    """(TO − T, TO + S] = (60, 100] s, by the idle limit; a killed one at once, by its FIN."""
    run(scenario("c-as-meant", 175), engines=("theory", "real"), root=tmp_path)
    directory: RunDir = find_run("latest", tmp_path)
    epsilon_s = directory.read_json(directory.summary)["epsilon_s"]
    seen = table(tmp_path, "detections").query("engine == 'real' and milestone == 'suspected'")
    silent, killed = (seen[seen["fault"] == kind] for kind in ("host_crash", "process_crash"))
    assert set(silent["cause"]) == {"session_timeout"} and set(killed["cause"]) == {"tcp_fin"}
    durations_s = pd.to_numeric(silent["duration_s"])
    assert durations_s.between(60 - epsilon_s, 100 + epsilon_s).all(), durations_s.describe()
    assert pd.to_numeric(killed["duration_s"]).between(0, epsilon_s).all()
    assert (table(tmp_path, "false_suspicions")["count"] == 0).all()


def test_kernel_probes_that_are_no_whole_seconds_are_refused_before_anything_starts(tmp_path: Path) -> None:
    told = scenario("c-as-meant", 175)
    probes = TcpKeepalive(idle=45.0, interval=30.0, count=2)  # 1.5 s at thirty times the speed
    policy = told.liveness.model_copy(update={"tcp_keepalive": probes})
    with pytest.raises(CannotRun, match="whole seconds"):
        run(told.model_copy(update={"liveness": policy}), root=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_gateway_as_written_turns_the_agreement_with_as_meant_red(tmp_path: Path) -> None:
    """Negative control: it counts send errors where the scenario says missing answers."""
    setup = RealSetup(gateway_preset="b-as-written")
    outcome = run(scenario("b-as-meant", 175), engines=("theory", "real"), root=tmp_path, setup=setup)
    agreement = table(tmp_path, "agreement").query("milestone == 'suspected'")
    failed = agreement[(agreement["verdict"] == "fail") & (agreement["fault"] == "host_crash")]
    assert "share" in set(failed["figure"])
    assert not len(agreement[(agreement["verdict"] == "fail") & (agreement["fault"] == "process_crash")])
    assert outcome.exit_code in (Exit.MISSED, Exit.UNSOUND), outcome
    told = find_run("latest", tmp_path)
    assert told.read_json(told.provenance)["negative_control"]["preset"] == "b-as-written"
