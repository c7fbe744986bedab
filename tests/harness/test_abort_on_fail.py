"""A threshold that has failed ends the run: how it is written, and that whoever looks is told once it is so."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness import abort_on_fail
from harness.abort_on_fail import EarlyEnd, ThresholdFailed, failed_so_far
from harness.run import run
from harness.runs.directory import RunDir
from scenarios.load import ScenarioError, load_scenario, parse_scenario

SLOW, KEPT = "detection_latency{fault=frozen}.max < 1s", "false_suspicions.count == 0"


def test_both_forms_say_the_same_and_survive_being_written_out() -> None:
    written = f"{{threshold: '{SLOW}', abort_on_fail: true}}, {{threshold: '{KEPT}'}}"
    one = parse_scenario(f"name: a\nduration: 9m\nthresholds: [{written}]")
    assert (one.thresholds, one.abort_on_fail) == ((SLOW, KEPT), (SLOW,))
    again = parse_scenario(
        f"name: a\nduration: 9m\nthresholds: ['{SLOW}', '{KEPT}']\nabort_on_fail: ['{SLOW}']"
    )
    assert again == one
    with pytest.raises(ScenarioError, match="none of the thresholds"):
        parse_scenario(f"name: a\nduration: 9m\nabort_on_fail: ['{KEPT}']")
    for wrong in ("abort_on_fial: true", "abort_on_fail: 'true'"):
        with pytest.raises(ScenarioError, match=r"allowed: an expression, or \{threshold: EXPRESSION, abort"):
            parse_scenario(f"name: a\nduration: 9m\nthresholds: [{{threshold: '{KEPT}', {wrong}}}]")


def test_whoever_looks_is_told_what_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abort_on_fail, "_EVERY_S", 0.0)
    scenario = load_scenario("frozen", clients=40, thresholds=[SLOW, KEPT], abort_on_fail=[SLOW, KEPT])
    directory = RunDir(run(scenario, engines=("theory", "simulated"), root=tmp_path).report.parent)
    (failed,) = failed_so_far(directory)
    assert failed.startswith(SLOW)
    early = EarlyEnd(directory, scenario)
    with pytest.raises(ThresholdFailed, match="max < 1s"):  # by a process of its own
        while True:
            early.look()
            time.sleep(0.01)
    EarlyEnd(directory, scenario.model_copy(update={"abort_on_fail": ()})).look()
