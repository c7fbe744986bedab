"""The command line: what it prints, and the exit code. Nothing here starts a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from harness.cli.main import app
from harness.runs.directory import find_run
from reference_server.errors import Exit

cli = CliRunner()

CRASHES = """\
clients: 60
ramp: 10s
duration: 200s
faults: [{kind: host_crash, share: 60%, at: {uniform: {low: 40s, high: 80s}}}]
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "no-such"], "no built-in scenario; allowed: balancer, capacity, demo"),
        (["run", "host_crsh"], "no built-in scenario; did you mean host_crash? Allowed: balancer"),
        (["report", "no-such"], "no run 'no-such'"),
        (["lint", "no-such"], "names that can be checked"),
        (["emit", "no-such"], "allowed: websockets"),
        (["emit", "websocket"], "did you mean websockets? Allowed: "),
        (["tune"], "one of --network (office-wifi-60s-lb"),
        (["tune", "--behind", "alb", "--no-check"], "did you mean aws-alb? Allowed: "),
        (["run", "healthy", "--policy", "no-such.yaml"], "no-such.yaml"),
        (["run", "healthy", "--junit", "no-such/j.xml"], "'--junit': there is no folder no-such"),
        (["tune", "--behind", "aws-alb", "--output", "no-such/p.yaml"], "there is no folder no-such"),
        (["tune", "--behind", "aws-alb", "--report", "/dev/null/x"], "/dev/null is no folder"),
        (["compare", "a", "b", "--output", "/dev/null"], "/dev/null is no folder"),
        (["emit", "websockets", "--output", "."], "'--output': . is a folder"),
        (["run", "frozen", "--target", "no-such"], "error: no-such: no target file"),
        (["tune", "--network", "no-such"], "office-wifi-60s-lb"),
        (["tune", "--network", "mobil"], "did you mean mobile? Allowed: "),
        (["tune", "--network", "data-centre", "--detect-p99", "soon"], "detect-p99"),
        (["run", "healthy", "--negative-control", "max_failures=0"], "liveness.max_failures"),
        (["run", "healthy", "--speedup", "0.5"], "healthy.yaml  speedup (replaced): got 0.5"),
        (["run", "healthy", "--live-page", "99999"], "allowed: 8090"),
        (["runs", "prune"], "say which runs may go"),
        (["compare", "no-such", "neither"], "no run 'no-such'"),
        (["runs", "prune", "--older-than", "soon"], "--older-than"),
        (["simulate", "healthy", "--replications", "2", "--warm-up", "soon"], "--warm-up"),
        (["simulate", "healthy", "--warm-up", "soon"], "--warm-up"),
        (["simulate", "healthy", "--warm-up", "20s"], "--replications"),
        (["presets", "no-such"], "'no-such'; allowed: a-before"),
        (["presets", "b-as-writen"], "did you mean b-as-written? Allowed: a-before"),
        (["run", "healthy", "--gateway-preset", "no-such"], "allowed: "),
        (["faults", "no-such"], "host_crash"),
        (["claims", "--faults", "no-such"], "no claim is about 'no-such'; allowed: "),
        (["claims", "--faults", "netwrk_cut"], "did you mean network_cut? Allowed: "),
        (["calibrate", "no-such"], "no run 'no-such'"),
        (["simulate", "healthy", "--calibration", "no-such.yaml"], "no-such.yaml"),
        (["serve", "--config", "no-such.yaml"], "no-such.yaml"),
        (["simulate", "healthy", "--runs", "/proc/none"], "/proc/none"),
        (["run", "."], "."),
    ],
)
def test_bad_input_is_told_and_exits_with_2(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli.invoke(app, arguments)
    assert result.exit_code == Exit.BAD_INPUT, result.output
    assert says in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_undecided_is_not_a_pass_unless_it_is_allowed(tmp_path: Path) -> None:
    rare = "clients: 20\nramp: 10s\nduration: 200s\nthresholds: ['detection_latency{fault=host_crash}.p99 < 200s']\n"
    crashes = "faults: [{kind: host_crash, share: 60%, at: {uniform: {low: 40s, high: 80s}}}]\n"
    arguments = ["simulate", write(tmp_path, rare + crashes), "--runs", str(tmp_path / "runs")]
    assert cli.invoke(app, arguments).exit_code == Exit.UNDECIDED
    junit = tmp_path / "flatline.xml"
    again = [
        "report",
        "latest",
        "--runs",
        str(tmp_path / "runs"),
        "--allow-undecided",
        "--interactive",
        "--junit",
        str(junit),
        "--json",
    ]
    result = cli.invoke(app, again)
    assert result.exit_code == Exit.GOOD
    said = json.loads(result.stdout)
    assert (said["verdict"], said["exit_code"], said["sound"]) == ("unknown", 0, None)
    written = {row["expression"]: row["verdict"] for row in said["thresholds"]}
    assert written["detection_latency{fault=host_crash}.p99 < 200s"] == "unknown"
    suite = ElementTree.parse(junit).getroot()
    assert int(suite.attrib["tests"]) == len(suite) > len(written)
    assert (
        int(suite.attrib["errors"]) == len(suite.findall("testcase/error")) == 1
    )  # what is undecided is no pass
    assert int(suite.attrib["failures"]) == 0
    page = find_run("latest", tmp_path / "runs").path / "report.html"
    assert page.read_text().count("view.setPointerCapture") == 1, "its figures zoom"


def test_wrong_keys_and_wrong_thresholds_are_told_in_one_go(tmp_path: Path) -> None:
    wrong = CRASHES.replace("clients:", "clinets:") + "speedup: 0\nthresholds: [latency.p99 < 3s]\n"
    result = cli.invoke(app, ["simulate", write(tmp_path, wrong), "--runs", str(tmp_path / "runs")])
    assert result.exit_code == Exit.BAD_INPUT
    for word in (
        "3 problems",
        "clinets: unknown key",
        "speedup: got 0",
        "thresholds[0]: ",
        "metric 'latency'",
    ):
        assert word in result.output


def test_a_misspelt_fault_is_told_once_not_again_by_a_threshold_that_spells_it_right(tmp_path: Path) -> None:
    wrong = CRASHES.replace("kind: host_crash", "kind: host_crsh")
    wrong += "thresholds: ['detection_latency{fault=host_crash}.max < 101s', 'false_suspicion.count == 0']\n"
    result = cli.invoke(app, ["simulate", write(tmp_path, wrong), "--runs", str(tmp_path / "runs")])
    assert result.exit_code == Exit.BAD_INPUT
    assert "2 problems" in result.output
    assert "unknown fault 'host_crsh'; did you mean host_crash? Allowed: custom" in result.output
    assert "unknown metric 'false_suspicion'; did you mean false_suspicions? Allowed: " in result.output


def test_a_threshold_that_cannot_be_checked_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    name = write(tmp_path, CRASHES + "thresholds: [latency.p99 < 3s]\n")
    result = cli.invoke(app, ["simulate", name, "--runs", str(tmp_path / "runs")])
    assert result.exit_code == Exit.BAD_INPUT
    assert "thresholds[0]" in result.output
    assert "unknown metric 'latency'" in result.output
    assert not (tmp_path / "runs").exists()


def test_simulate_and_report_again(tmp_path: Path) -> None:
    name = write(tmp_path, CRASHES + "thresholds: ['detection_latency{fault=host_crash}.max < 101s']\n")
    root = str(tmp_path / "runs")
    first = cli.invoke(app, ["simulate", name, "--runs", root])
    assert first.exit_code == Exit.GOOD, first.output
    run = find_run("latest", Path(root))
    numbers = run.table("qos").read_text()
    again = cli.invoke(app, ["report", "latest", "--runs", root])
    assert again.exit_code == Exit.GOOD, again.output
    assert run.table("qos").read_text() == numbers
    listed = cli.invoke(app, ["runs", "--runs", root])
    assert run.path.name in listed.output.replace("\n", "")


def test_replications_give_intervals_over_runs(tmp_path: Path) -> None:
    name, root = write(tmp_path, CRASHES), tmp_path / "runs"
    arguments = ["simulate", name, "--runs", str(root), "--replications", "3", "--warm-up", "20s"]
    result = cli.invoke(app, arguments)
    assert result.exit_code == Exit.GOOD, result.output
    table = pd.read_csv(find_run("latest", root).table("replications"))
    assert "host_crash.suspected.mean_s" in result.output
    assert len(pd.read_csv(find_run("latest", root).table("replication_runs"))) == 3
    assert len(table)
    too_long = cli.invoke(app, [*arguments[:-1], "900s"])
    assert too_long.exit_code == Exit.BAD_INPUT
    assert "below the duration" in too_long.output


def test_a_missed_threshold_exits_with_99(tmp_path: Path) -> None:
    name = write(tmp_path, CRASHES + "thresholds: ['detection_latency{fault=host_crash}.max < 60s']\n")
    result = cli.invoke(app, ["simulate", name, "--runs", str(tmp_path / "runs")])
    assert result.exit_code == Exit.MISSED, result.output


def test_compare_finds_a_slower_policy(tmp_path: Path) -> None:
    """Negative control of the comparison: k = 4 after k = 3 is a regression, the same again is none."""
    root = tmp_path / "runs"
    for name, failures in (("before", 3), ("same", 3), ("after", 4)):
        scenario = yaml.safe_load(CRASHES) | {"liveness": {"max_failures": failures}}
        scenario |= {"clients": 300, "duration": "260s"}
        file = write(tmp_path, yaml.safe_dump(scenario))
        assert cli.invoke(app, ["simulate", file, "--runs", str(root)]).exit_code == Exit.GOOD
        find_run("latest", root).path.rename(root / name)
    arguments = ["compare", "--runs", str(root), "before"]
    assert cli.invoke(app, [*arguments, "same"]).exit_code == Exit.GOOD
    worse = cli.invoke(app, [*arguments, "after", "--output", str(tmp_path / "c")])
    assert worse.exit_code == Exit.MISSED, worse.output
    assert "liveness.max_failures" in worse.output
    assert (tmp_path / "c" / "comparison.md").exists()


def test_the_schema_is_json() -> None:
    result = cli.invoke(app, ["schema"])
    assert json.loads(result.output)["title"] == "Scenario"


@pytest.mark.parametrize("command", ["scenarios", "doctor", "profiles"])
def test_lists_are_printed(command: str) -> None:
    result = cli.invoke(app, [command])
    assert result.exit_code == Exit.GOOD
    assert len(result.output.splitlines()) > 5


def test_lint_tells_an_error_by_its_exit_code(tmp_path: Path) -> None:
    """A heartbeat of 60 s behind a load balancer that forgets after 60 s loses its connections."""
    slow = write(tmp_path, CRASHES + "liveness: {heartbeat_interval: 60s}\n")
    bad = cli.invoke(app, ["lint", slow, "--behind", "aws-alb"])
    assert bad.exit_code == Exit.MISSED, bad.output
    assert "error" in bad.output
    assert "fix:" in bad.output
    assert cli.invoke(app, ["lint", "demo", "--behind", "aws-alb"]).exit_code == Exit.GOOD


def test_emit_prints_a_program_and_what_it_cannot_say() -> None:
    result = cli.invoke(app, ["emit", "websockets"])
    assert result.exit_code == Exit.GOOD
    compile(result.stdout, "emitted", "exec")
    assert "a silent peer is noticed 72 to 102 s after its death" in result.stderr
    assert "the policy itself says 70 to 100 s" in result.stderr, "close_timeout comes on top"
    assert "take 2 s from heartbeat_timeout" in result.stderr
    assert "the policy itself" not in cli.invoke(app, ["emit", "uvicorn"]).stderr


CALLBACK = """
import signal, time, weakref
import harness.__main__ as program, harness.cli.main as cli
class Module: pass
def command():
    module = Module()
    lock = weakref.ref(module, lambda _: signal.raise_signal(signal.SIGINT))
    del module
    time.sleep(60)
cli.main = command
program.main()
"""


def test_an_interrupt_that_a_callback_of_import_swallows_still_ends_the_command() -> None:
    ended = subprocess.run([sys.executable, "-c", CALLBACK], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr) == (Exit.INTERRUPTED, "")


def test_a_torn_plan_is_one_sentence(tmp_path: Path) -> None:
    arguments = ["simulate", "healthy", "--clients", "4", "--runs", str(tmp_path), "--allow-undecided"]
    assert cli.invoke(app, arguments).exit_code == Exit.GOOD
    plan = tmp_path / "latest" / "plan.json"
    plan.write_bytes(plan.read_bytes()[:-20])
    done = cli.invoke(app, ["report", str(tmp_path / "latest")])
    assert done.exit_code == Exit.BAD_INPUT
    assert "plan.json: not a plan: " in done.output
