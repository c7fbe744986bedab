"""Policy files: written and read back, refused in sentences, and put into a scenario's place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.load import ScenarioError, load_scenario
from scenarios.policies import dump_policy, load_policy, scenario_under

POLICY = LivenessPolicy(heartbeat_interval=130.0, heartbeat_timeout=8.0, max_failures=5, retry_interval=25.0)


def written(folder: Path, text: str) -> Path:
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    text = dump_policy(POLICY, "why")
    assert text.startswith("# why\nheartbeat_interval: 130s\n")
    assert load_policy(written(tmp_path, text)) == POLICY
    assert load_policy(written(tmp_path, "heartbeat_interval: 40\n")).heartbeat_interval == 40.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "heartbeat_intervall: 30s",
            r"policy.yaml:1  heartbeat_intervall: unknown key; did you mean heartbeat_interval\?",
        ),
        ("- 30s", "a policy is a mapping"),
        ("max_failures: 0", "policy.yaml:1  max_failures: got 0"),
        ("max_failures: 1\nmax_failures: 2", "stands twice"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=says):
        load_policy(written(tmp_path, text))


def test_a_policy_is_no_scenario_and_is_told_how_to_run(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="flatline run host_crash --policy"):
        load_scenario(str(written(tmp_path, dump_policy(POLICY))))


def test_a_built_in_scenario_waits_for_a_slow_policy_and_drops_what_was_said_of_its_own(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, dump_policy(POLICY))
    scenario, notes = scenario_under("host_crash", file, clients=30)
    assert (scenario.liveness, scenario.clients) == (POLICY, 30)
    assert scenario.duration >= 130 + 238  # the last fault, and the longest detection
    assert scenario.thresholds == ("false_suspicions.count == 0",)
    assert len(notes) == 2
    mine = tmp_path / "mine.yaml"
    mine.write_text("duration: 9m\nthresholds: [detection_latency.p99 < 9s]\n", encoding="utf-8")
    scenario, notes = scenario_under(str(mine), file)
    assert (len(scenario.thresholds), scenario.duration, notes) == (1, 540.0, ())
