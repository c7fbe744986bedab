"""The verdict for programs."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from reports.run_tables import RunTables, load_run
from reports.verdict import as_junit, as_markdown, as_verdict
from tests.reports.handmade_run import Fault, build, handmade_run

CRASHES = {
    "host_crash": Fault(448, "heartbeat", 70.0, 100.0),
    "refresh": Fault(19, "close_frame", 0.0005, 0.0005),
}
WRONG = {**CRASHES, "host_crash": Fault(448, "heartbeat", 40.0, 70.0)}


@pytest.fixture(scope="module")
def disagreeing(tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    path = tmp_path_factory.mktemp("run")
    handmade_run(CRASHES, gateway_faults=WRONG).write(path)
    build(path)
    return load_run(path)


def test_engines_that_disagree_are_failures_that_say_where(disagreeing: RunTables) -> None:
    suite = ElementTree.fromstring(as_junit(disagreeing))
    failed = {
        case.attrib["name"]: case[0].attrib["message"] for case in suite if case.find("failure") is not None
    }
    assert set(failed) == {"host_crash: real and theory", "host_crash: real and simulated"}
    assert "suspected p50" in failed["host_crash: real and theory"]
    assert suite.attrib["failures"] == "2"


def test_a_case_a_threshold_and_one_of_soundness(disagreeing: RunTables) -> None:
    suite = ElementTree.fromstring(as_junit(disagreeing))
    groups = [case.attrib["classname"].rpartition(".")[2] for case in suite]
    assert groups.count("thresholds") == len(as_verdict(disagreeing)["thresholds"]) == 2
    assert groups.count("soundness") == 1
    unsound = replace(
        disagreeing, summary={**disagreeing.summary, "sound": False, "unsound_reasons": ["a loop lagged"]}
    )
    suite = ElementTree.fromstring(as_junit(unsound))
    assert [error.attrib["message"] for error in suite.iter("error")] == ["a loop lagged"]


def test_a_summary_for_a_page_of_a_job(disagreeing: RunTables) -> None:
    told = as_markdown(
        replace(disagreeing, summary={**disagreeing.summary, "verdict": "fail", "headline": "No"})
    )
    assert told.startswith("### ❌ flatline demo: No\n")
    assert "| ❌ | host_crash: real and theory |" in " ".join(told.split("  "))
    assert ".p99 < 101s |" in told, "a sign that Markdown takes for none is not escaped"
    assert "suspected p50" in told and "report.html" in told
