"""The first minute: a first file from four answers, the examples, Locust's options, a demo without privileges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.first_file import first_scenario
from harness.policy.lint import lint
from reference_server.errors import Exit
from reports.run_tables import load_run
from scenarios.load import load_scenario, parse_scenario
from scenarios.target_files import load_target

cli = CliRunner()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "times",
    [
        (),
        ("--interval", "45s", "--timeout", "20s", "--failures", "1"),
        ("--interval", "5s", "--timeout", "15s"),
    ],
)
def test_a_first_scenario_is_good_and_lasts_long_enough(times: tuple[str, ...]) -> None:
    done = cli.invoke(app, ["init", *times])
    assert done.exit_code == 0, done.output
    scenario = load_scenario("flatline.yaml")
    assert not [one for one in lint(scenario).findings if one.severity.value == "error"]
    bounds = scenario.liveness.detection_range_s
    assert bounds is not None
    latest_s = max(float(fault.at.quantile(1.0)) for fault in scenario.faults) + bounds[1]
    assert latest_s < scenario.duration
    assert cli.invoke(app, ["init"]).exit_code == Exit.BAD_INPUT, "nothing is overwritten"


def test_a_first_scenario_has_no_fault_that_this_machine_refuses() -> None:
    kinds = {
        silence: [
            fault.label
            for fault in parse_scenario(first_scenario("30s", "10s", 3, silence=silence), "x", "first").faults
        ]
        for silence in (True, False)
    }
    assert kinds == {True: ["host_crash", "frozen", "orderly_close"], False: ["frozen", "orderly_close"]}


def test_a_first_target_is_one() -> None:
    done = cli.invoke(app, ["init", "--server", "ws://127.0.0.1:8000/ws?user={client}", "--failures", "1"])
    assert done.exit_code == 0, done.output
    assert load_target("target.yaml").heartbeat.misses == 1
    assert cli.invoke(app, ["init", "--server", "nowhere", "--output", "x.yaml"]).exit_code == Exit.BAD_INPUT


def test_the_examples_are_copied_once_with_what_their_notebooks_read() -> None:
    done = cli.invoke(app, ["examples", "here"])
    assert done.exit_code == 0, done.output
    assert (
        load_scenario("here/examples/half_answer.yaml").clients,
        done.output.count("flatline notebooks here"),
    ) == (100, 1)
    assert len(list(Path("here/notebooks").glob("*.ipynb"))) == 6
    assert load_run(Path("here/reports/sample")).sound
    assert cli.invoke(app, ["examples", "here"]).exit_code == Exit.BAD_INPUT


def test_notebooks_open_with_this_python_as_their_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"jupyterlab": object(), "ipykernel": object()}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = cli.invoke(app, ["notebooks", "here"])
    assert done.exit_code == Exit.MACHINE_CANNOT
    assert f"{sys.executable} -m pip install jupyterlab ipykernel" in done.output
    assert not Path("here").exists()
    ran: list[list[str]] = []
    monkeypatch.setattr("importlib.util.find_spec", there.get)
    monkeypatch.setattr("os.execv", lambda python, argv: ran.append([python, *argv]))
    assert cli.invoke(app, ["notebooks", "here", "--no-browser"]).exit_code == 0
    assert cli.invoke(app, ["notebooks", "here"]).exit_code == 0, "a folder that is there is opened again"
    opened = [sys.executable, sys.executable, "-m", "jupyterlab", "here/notebooks"]
    assert ran == [[*opened, "--no-browser"], opened]
    assert cli.invoke(app, ["notebooks", "--port", "8899"]).exit_code == 0, (
        "no folder, but options of Jupyter"
    )
    assert ran[-1][-3:] == ["flatline-examples/notebooks", "--port", "8899"]
    assert Path("here/notebooks/02-tune-a-policy.ipynb").is_file()


def test_locust_sends_no_clients_to_where_nobody_listens() -> None:
    nowhere = ("--http-url", "http://127.0.0.1:9", "--ws-url", "ws://127.0.0.1:9/ws")
    argv = [sys.executable, "-m", "harness", "locust", "--headless", "-u", "5", "-t", "5s", *nowhere]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.BAD_INPUT
    assert "nobody listens at http://127.0.0.1:9" in done.stderr and "flatline serve" in done.stderr
    assert not Path("runs").exists()


def test_locust_says_our_options_and_where_the_file_is() -> None:
    def said(*arguments: str) -> str:
        argv = [sys.executable, "-m", "harness", "locust", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert Path(said("--path").strip()).is_file()
    helped = said("-u", "20", "--help")
    assert "--run-dir" in helped and "--help-all" in helped
