"""What cannot take effect before a run ends is told before it."""

from __future__ import annotations

from harness.run import too_late
from scenarios.load import parse_scenario
from scenarios.plan import make_plan

BASE = "name: s\nclients: 10\nramp: 5s\nduration: 60s\nliveness: {heartbeat_interval: 10s, heartbeat_timeout: 5s}\n"


def said(text: str) -> list[str]:
    return list(too_late(make_plan(parse_scenario(BASE + text))))


def test_a_fault_after_the_end() -> None:
    assert said("faults: [{kind: host_crash, share: 20%, at: 90s}]") == [
        "2 of 2 faults host_crash cannot take effect: the run ends at 65 s, and they are due from 95 s on"
    ]
    assert said("incidents: [{kind: store_flush, at: 90s}]")[0].startswith(
        "1 of 1 incidents store_flush cannot"
    )


def test_a_law_that_reaches_beyond_it_says_for_how_many() -> None:
    (sentence,) = said("faults: [{kind: host_crash, share: 100%, at: {uniform: {low: 0s, high: 120s}}}]")
    assert " of 10 faults host_crash cannot take effect" in sentence


def test_nothing_is_said_of_what_comes_in_time() -> None:
    assert said("faults: [{kind: host_crash, share: 20%, at: 10s}]") == []
