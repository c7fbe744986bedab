"""A fault of one's own: loaded from a file beside the scenario, refused with a reason where it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.run import check_faults
from harness.simulated import simulate
from reference_server.events import EventKind
from scenarios.faults import CustomFaultError
from scenarios.load import dump_scenario, load_scenario, parse_scenario
from scenarios.plan import Plan, make_plan

ROOT = Path(__file__).parents[3]
HALVES = """
from dataclasses import dataclass
from scenarios.faults import ClientFault

class NoModel(ClientFault):
    mechanism, cannot_show = "a wink", "everything else"
    def real(self, client, fault): ...

class NoReal(ClientFault):
    def simulated(self, client, fault): client.took_effect(fault); client.freeze()

class Neither(ClientFault): ...

class Silent(ClientFault):
    def real(self, client, fault): ...

@dataclass(frozen=True)
class WantsMore(ClientFault):
    size: int
    mechanism, cannot_show = "a wink", "everything else"
    def real(self, client, fault): ...
    def simulated(self, client, fault): ...

something = 3
"""


def plan_of(folder: Path, uses: str) -> Plan:
    (folder / "mine.py").write_text(HALVES)
    file = folder / "mine.yaml"
    file.write_text(
        f"clients: 10\nduration: 60s\nfaults:\n  - {{kind: custom, uses: '{uses}', share: 50%, at: 5s}}\n"
    )
    return make_plan(load_scenario(str(file)))


REFUSED = {
    "a half is missing for the simulation": ("mine.py:NoModel", "no method `simulated`"),
    "a half is missing for a real run": ("mine.py:NoReal", "no method `real`"),
    "both are missing": ("mine.py:Neither", "neither `real` nor `simulated`"),
    "no such class": ("mine.py:Lost", "no such class"),
    "no fault": ("mine.py:something", "no scenarios.faults.ClientFault"),
    "no such file": ("other.py:Lost", "does not load"),
    "no such module": ("no.such.module:Lost", "does not load"),
    "a real half that does not say how": ("mine.py:Silent", "`mechanism`"),
    "its parameters do not fit": ("mine.py:WantsMore", "cannot be made with params {}"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_it_is_refused_before_anything_starts(why: str, tmp_path: Path) -> None:
    uses, message = REFUSED[why]
    plan = plan_of(tmp_path, uses)
    with pytest.raises(CustomFaultError, match=message):
        check_faults(plan, ("theory", "simulated", "real"))


def test_a_missing_half_matters_only_to_its_engine(tmp_path: Path) -> None:
    check_faults(plan_of(tmp_path, "mine.py:NoReal"), ("theory", "simulated"))
    check_faults(plan_of(tmp_path, "mine.py:NoModel"), ("theory", "real"))


def test_the_command_says_why_and_exits_with_2(tmp_path: Path) -> None:
    plan_of(tmp_path, "mine.py:NoReal")
    done = CliRunner().invoke(app, ["run", str(tmp_path / "mine.yaml"), "--runs", str(tmp_path)])
    assert done.exit_code == 2
    assert not list(tmp_path.glob("*-mine*")), "no run directory"


def test_a_run_directory_finds_the_file_from_anywhere(tmp_path: Path) -> None:
    loaded = load_scenario(str(ROOT / "examples" / "half_answer.yaml"))
    again = parse_scenario(dump_scenario(loaded))
    assert again == loaded
    fault = make_plan(again).faults[0]
    assert fault.behaviour.kind == "half_answer"
    assert vars(fault.behaviour) == {"bytes": 9}


def test_the_example_is_caught_in_the_model_as_a_frozen_client_is() -> None:
    loaded = load_scenario(str(ROOT / "examples" / "half_answer.yaml"))
    events = simulate(loaded, make_plan(loaded))
    hit = {e.session_id: e.time_s for e in events if e.kind is EventKind.FAULT_INJECTED}
    seen = {e.session_id: e.time_s for e in events if e.kind is EventKind.SUSPECTED}
    assert len(hit) == 50
    assert hit.keys() == seen.keys()
    assert all(70 - 0.01 <= seen[s] - t < 100 for s, t in hit.items())
