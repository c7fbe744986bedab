"""The catalogue: complete, described, and loadable by a command line that knows nothing of gevent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli.main import app
from reference_server.events import EventKind
from scenarios.faults import FAULTS, INCIDENTS, ClientFault, catalogue
from scenarios.schema import Scenario
from tests.harness.simulated.support import fault, run, scenario

KINDS = list(catalogue())
FOLDER = Path(__file__).parents[3] / "scenarios" / "faults"


def test_every_file_is_found() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert set(FAULTS) == files - {"__init__", "base", "incidents", "registry"}
    assert len(INCIDENTS) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_says_what_it_is(kind: str) -> None:
    """A drawing with three columns, the peer's view, and for a real one what its mechanism leaves out."""
    one = catalogue()[kind]
    assert one.kind == kind
    assert sum(line.count("|") >= 2 for line in one.drawing().splitlines()) >= 2
    assert "Meaning: " in one.drawing()
    assert one.summary
    assert one.on_the_wire
    assert bool(one.mechanism and one.cannot_show) == one.is_real()


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_a_scenario(kind: str) -> None:
    one = catalogue()[kind]
    block = "faults" if issubclass(one, ClientFault) else "incidents"
    example = yaml.safe_load(f"[{one.example}]")
    given = {"name": "t", "duration": "300s", "gateway": {"nodes": 2}, block: example}
    parsed = Scenario.model_validate(given)
    assert [item.kind for item in (*parsed.faults, *parsed.incidents)] == [kind]
    keys = {**FAULTS, **INCIDENTS}[kind]
    assert isinstance((*parsed.faults, *parsed.incidents)[0], keys)


def test_listing_them_needs_no_gevent_and_no_model() -> None:
    code = "import sys, scenarios.faults\nassert not {'gevent', 'locust', 'simpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_list_names_all_and_one_shows_its_keys() -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["faults"])
    assert listed.exit_code == 0
    assert {line.split()[0] for line in listed.output.splitlines()} >= set(KINDS)
    shown = runner.invoke(app, ["faults", "network_cut"])
    assert "heal_after" in shown.output
    assert "| " in shown.output
    assert runner.invoke(app, ["faults", "netwrok_cut"]).exit_code == 2


def test_nothing_comes_of_the_baseline() -> None:
    log = run(scenario(), fault("noop"))
    assert log.one(EventKind.FAULT_INJECTED).time_s == 100.0
    assert not log.of(EventKind.SUSPECTED)


def test_a_nat_says_when_it_was_to_expire() -> None:
    """As a real run does: not when it was armed, but when its timer ran out."""
    log = run(scenario(), fault("nat_timeout", idle_timeout_s=20.0, expiry="drop"))
    hit = log.one(EventKind.FAULT_INJECTED)
    assert hit.time_s > 120.0
    assert hit.detail["scheduled_s"] == hit.time_s
