"""Scenario files: what is written is what is run, and every problem is told at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_server.durations import format_duration, parse_duration
from scenarios.distributions import Distribution
from scenarios.faults import FAULTS
from scenarios.faults.host_crash import HostCrash
from scenarios.load import ScenarioError, built_in, dump_scenario, load_scenario, parse_scenario
from scenarios.schema import Scenario

WANTED = {
    "healthy",
    "orderly_close",
    "refresh",
    "process_crash",
    "host_crash",
    "nat_timeout",
    "frozen",
    "network_cut",
    "mixed",
    "demo",
}


def test_the_promised_scenarios_ship() -> None:
    assert set(built_in()) >= WANTED


@pytest.mark.parametrize("name", sorted(built_in()))
def test_a_built_in_scenario_survives_being_written_out(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.description
    assert parse_scenario(dump_scenario(scenario)) == scenario


@pytest.mark.parametrize("name", sorted(built_in()))
def test_a_built_in_scenario_does_not_alias_with_its_heartbeat(name: str) -> None:
    """Faults at one fixed phase of the heartbeat would measure the schedule, not the policy."""
    scenario = load_scenario(name)
    assert scenario.liveness.heartbeat_interval is not None
    for fault in scenario.faults:
        low, high = fault.at.quantile(np.array([0.0, 1.0]))
        assert high - low >= scenario.liveness.heartbeat_interval


FOUR_PROBLEMS = """\
name: broken
duration: -5m
clientz: 3
liveness:
  heartbeat_timeout: 40s
  retry_interval: 50s
faults:
  - {kind: meteor, share: 10%, at: 5s}
"""


def test_all_problems_come_in_one_error_with_line_key_value_and_what_is_allowed() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(FOUR_PROBLEMS, source="broken.yaml")
    assert [(p.line, p.key) for p in caught.value.problems] == [
        (2, "duration"),
        (3, "clientz"),
        (6, "liveness.retry_interval"),
        (8, "faults[0]"),
    ]
    text = str(caught.value)
    assert "broken.yaml: 4 problems" in text
    assert "broken.yaml:2  duration: got -300; input should be greater than 0" in text
    assert "did you mean clients?" in text
    assert "heartbeat_timeout (40s) is above heartbeat_interval (30s)" in text
    assert f"unknown fault 'meteor'; allowed: {', '.join(FAULTS)}" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("duration: 30", "not a duration; allowed: a number and a unit"),
        ("duration: [1", "not YAML"),
        ("- a\n- b", "a scenario is a mapping"),
        ("", "a scenario is a mapping"),
        ("name: x", "duration: is missing"),
        (
            "duration: 5s\nname: x\nfaults: [{kind: host_crash, share: 70%, at: 1s}, "
            "{kind: frozen, share: 40%, at: 1s}]",
            "shares add up to 110%",
        ),
        (
            "duration: 5s\nname: x\nfaults: [{kind: frozen, share: 1%, at: 1s}, {kind: frozen, share: 1%, at: 1s}]",
            "frozen stands twice",
        ),
        (
            "duration: 5s\nname: x\nfaults: [{kind: frozen, share: 1%, at: {uniform: {low: 9s, high: 1s}}}]",
            "low 9s is not below high 1s",
        ),
        ("duration: 5s\nname: x\nfaults: [{kind: frozen, share: 1%, at: {gamma: {low: 9s}}}]", "unknown key"),
        ("duration: 5s\nname: x\nnetwork: {outages: {every: 1h, length: {}}}", "exactly one law wanted"),
        ("duration: 5s\nname: Bad Name", "name"),
        ("duration: 5s\nname: x\nduration: 6s", "<text>:3  duration: stands twice"),
        ("duration: 5s\nname: x\nspeedup: 0.5", "got 0.5"),
    ],
)
def test_a_bad_file_is_told_why(text: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text)
    assert says in str(caught.value)


def test_a_missing_file_names_what_there_is() -> None:
    with pytest.raises(ScenarioError, match=r"no built-in scenario; allowed: .*host_crash"):
        load_scenario("no-such-thing")


def test_a_file_that_is_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="Is a directory"):
        load_scenario(str(tmp_path))


def test_overrides_replace_keys() -> None:
    assert load_scenario("demo", clients=20).clients == 20


@given(st.text(max_size=200))
def test_any_text_gives_a_scenario_or_a_scenario_error(text: str) -> None:
    try:
        assert isinstance(parse_scenario(text), Scenario)
    except ScenarioError as error:
        assert error.problems


@given(st.floats(0.001, 1e7).map(lambda s: round(s, 3)))
def test_durations_survive_being_written(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-11)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("5m", 300), ("24h", 86400), ("1d", 86400), ("1.5h", 5400)],
)
def test_durations(written: str, seconds: float) -> None:
    assert parse_duration(written) == seconds


LAWS = [
    Distribution.model_validate({"uniform": {"low": "1s", "high": "5s"}}),
    Distribution.model_validate({"exponential": {"mean": "45s"}}),
    Distribution.model_validate({"lognormal": {"median": "50ms", "sigma": 0.5}}),
    Distribution.model_validate({"normal": {"mean": "50s", "sd": "1s"}}),
    Distribution.model_validate({"constant": "3s"}),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: next(iter(law.model_dump(exclude_none=True))))
def test_a_law_samples_what_it_says(law: Distribution) -> None:
    drawn = law.sample(np.random.default_rng(1), 20_000)
    assert drawn.shape == (20_000,)
    assert (drawn >= 0).all()
    # The mean of 20,000 draws is within 5 standard errors of the law's.
    assert drawn.mean() == pytest.approx(law.mean_s, abs=5 * drawn.std() / np.sqrt(20_000) + 1e-12)
    q = np.array([0.1, 0.5, 0.9])
    assert law.cdf(law.quantile(q)) == pytest.approx(q if law.constant is None else np.ones(3))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: next(iter(law.model_dump(exclude_none=True))))
def test_a_scaled_law_takes_that_much_longer(law: Distribution) -> None:
    q = np.array([0.1, 0.5, 0.9])
    assert law.scaled(3.0).quantile(q) == pytest.approx(3 * law.quantile(q))


def test_the_schema_is_json_schema_with_units() -> None:
    schema = Scenario.model_json_schema()
    assert schema["properties"]["duration"]["type"] == "string"
    assert HostCrash.model_fields["share"].description


@pytest.mark.parametrize(
    ("file", "name"),
    [("01_Idle.yaml", "scenario_01_idle"), ("Wi Fi.yaml", "wi_fi"), ("demo-2.yaml", "demo-2")],
)
def test_a_file_without_a_name_gets_its_own_in_letters_that_a_name_may_have(
    tmp_path: Path, file: str, name: str
) -> None:
    (tmp_path / file).write_text("duration: 60s\n")
    assert load_scenario(str(tmp_path / file)).name == name


def test_a_target_file_is_told_what_it_is() -> None:
    with pytest.raises(ScenarioError, match="this is a target file, not a scenario"):
        parse_scenario("target: mine\nconnect: {}\nheartbeat: {}\nwitnesses: {}\n")
