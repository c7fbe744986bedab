"""The notebooks run, in time, without a warning, to the numbers that theory says; they import and never define."""

from __future__ import annotations

import ast
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.manager import AsyncKernelManager

from harness.theory.literature.other_detectors import send_fails
from harness.theory.tcp import tcp_give_up_s
from notebooks.render import HERE, NOTEBOOKS, a_kernel, execute, warnings_of
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution, Exponential, Lognormal
from scenarios.network import Network, Outages
from tests.harness.theory.quadrature import false_suspicions_per_client_day

MOST_BYTES = 1_000_000  # of all notebooks with their outputs
OURS = {"harness", "reports", "scenarios", "reference_server"}

# What a notebook is about, as one more cell would read it from the variables that it leaves behind.
HEADLINES = {
    "01-read-one-run.ipynb": """{
        "real": dict(seen.dropna()), "simulated": dict(crash[["p50_s", "max_s"]]), "days": days_needed,
        "sound": run.sound, "verdicts": sorted(set(comparisons["verdict"]))}""",
    "02-tune-a-policy.ipynb": """{
        "policy": {k: v for k, v in policy.model_dump(mode="json").items() if v is not None},
        "latest_s": figures["detect_max_s"], "rate": figures["false_per_client_day"],
        "frames_per_s": figures["frames_per_s"], "interval_s": policy.heartbeat_interval,
        "patience_s": figures["patience_s"], "feasible": [chosen.feasible, tight.feasible],
        "confirmed": test.confirmed, "idle_s": conditions.nat.idle_timeout}""",
    "03-why-a-send-only-heartbeat-misses-a-cut.ipynb": """{
        "ranges": {k: [law.lo_s, law.hi_s] for k, law in laws.items()}, "by_claim": by_claim,
        "layer": dict(by_layer["cause"].map(str)), "median_s": dict(by_layer["median_s"]),
        "frozen": {k: dict(v) for k, v in outcomes.items()}}""",
    "04-plan-capacity.ipynb": """{
        "frames_per_s": dict(plan["frames/s"]), "mbit_per_s": dict(plan["Mbit/s"]),
        "beat_bytes": beat_bytes, "unit": dict(unit["value"]), "half": dict(unit["±"]),
        "nodes": dict(plan["nodes"]), "cores": dict(plan["cores"]),
        "back_s": list(storm["everyone back after (s)"])}""",
    "05-bring-your-own-data.ipynb": """{
        "all": rows[0][3:], "naive": rows[3][3:], "exit": [int(verdict.exit_code), int(control.exit_code)],
        "incidents": len(incidents), "kept": int((outcome == "detected").sum())}""",
    "06-internet-scale.ipynb": """{
        "plan": plan_rows(planned), "users": users, "off": dict(checked["off by, %"]),
        "fan_out": fan_out.reset_index().to_numpy().tolist(), "said": checked["predicted"].tolist(),
        "carried": {k: [list(map(float, pair)) for pair in v] for k, v in carried.items()}}""",
}


def cells_of(name: str) -> list[Any]:
    notebook = nbformat.read(HERE / name, as_version=4)  # type: ignore[no-untyped-call]
    return list(notebook.cells)


def source_of(name: str) -> ast.Module:
    code = [cell.source for cell in cells_of(name) if cell.cell_type == "code"]
    shell = TransformerManager()  # type: ignore[no-untyped-call]
    return ast.parse("\n".join(shell.transform_cell(source) for source in code))


def output_text(name: str) -> str:
    return json.dumps([cell.get("outputs", []) for cell in cells_of(name)], ensure_ascii=False)


def headline(name: str, kernel: AsyncKernelManager) -> Any:
    """Execute a notebook, without error or warning; return the numbers of its headline."""
    asked = f"import json; print(json.dumps({HEADLINES[name]}, default=lambda x: x.item()))"
    notebook = execute(name, then=asked, kernel=kernel)
    assert warnings_of(notebook) == []
    return json.loads(notebook.cells[-1].outputs[0].text)


def test_there_are_six_and_each_has_a_headline() -> None:
    assert set(NOTEBOOKS) == HEADLINES.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_import_and_never_define(name: str) -> None:
    forbidden = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    tree = source_of(name)
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, forbidden)] == []
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} & OURS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_whole_and_tell_nothing_of_a_machine(name: str) -> None:
    cells = cells_of(name)
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.metadata == {} for cell in cells)
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    tables = [output.get("data", {}).get("text/html", "") for output in outputs]
    assert not [table for table in tables if "...</t" in table], "a cell is cut"
    text = output_text(name)
    places = (HERE.parent, Path.home(), Path(sys.prefix), Path(tempfile.gettempdir()), Path("/home"))
    assert [str(place) for place in places if f"{place}{os.sep}" in text] == []
    assert len(socket.gethostname()) < 4 or socket.gethostname() not in text


def test_all_notebooks_together_are_light() -> None:
    assert sum((HERE / name).stat().st_size for name in NOTEBOOKS) < MOST_BYTES


def one_run_is_read_right(found: Any) -> None:
    """T = 30, k = 3, τ = 10: [70, 100), median 85 s within the 3 % that the engines may differ by."""
    for engine in ("real", "simulated"):
        assert found[engine]["p50_s"] == pytest.approx(85.0, rel=0.03)
        assert 70.0 < found[engine]["max_s"] < 101.0
    assert found["sound"] and "fail" not in found["verdicts"]
    assert found["days"] == pytest.approx(30 * 3.6889, rel=1e-4)  # Garwood, no event


def the_tuned_policy_keeps_its_wants_by_theory_too(found: Any) -> None:
    assert found["feasible"] == [True, False] and found["confirmed"]
    assert found["latest_s"] == pytest.approx(found["interval_s"] + found["patience_s"])
    assert found["latest_s"] * 0.99 <= 60.0  # its p99, at the latest
    assert found["frames_per_s"] == pytest.approx(2000 / found["interval_s"])
    assert found["interval_s"] < found["idle_s"] == 240.0  # the longest idle time that was survived
    # The network that the measurement was drawn from, not the one that was fitted to it.
    drawn = Network(
        round_trip=Distribution(lognormal=Lognormal(median=0.06, sigma=0.6)),
        outages=Outages(every=800 * 3600 / 60, length=Distribution(exponential=Exponential(mean=6.0))),
    )
    rate = false_suspicions_per_client_day(LivenessPolicy.model_validate(found["policy"]), drawn)
    assert rate < 1 / 30
    assert found["rate"] * 2 <= 1 / 30  # with the headroom that it promises


def a_send_only_heartbeat_has_tcps_latency_not_its_own(found: Any) -> None:
    law = {"send_only_15": send_fails(30.0), "send_only_5": send_fails(30.0, tcp_give_up_s(5))}
    assert found["ranges"]["answers_checked"] == pytest.approx([70.0, 100.0])
    assert found["ranges"]["send_only_15"] == pytest.approx([924.6, 954.6])
    assert found["ranges"]["send_only_5"] == pytest.approx([12.6, 42.6])
    assert found["by_claim"] == pytest.approx(
        {"answers_checked": 2 / 3, "send_only_15": 0.0, "send_only_5": 1.0}
    )
    assert found["layer"] == {
        "answers_checked": "heartbeat",
        "send_only_15": "tcp_timeout",
        "send_only_5": "tcp_timeout",
    }
    for name, its_law in law.items():
        # The median of 336 uniform phases: within four of its standard errors, T / (2 √n).
        assert found["median_s"][name] == pytest.approx(its_law.mean_s, abs=4 * 30 / 2 / 336**0.5)
    assert found["frozen"] == {
        "answers_checked": {"detected": 120},
        "send_only_15": {"censored": 120},
        "send_only_5": {"censored": 120},
    }


def the_plan_is_two_frames_a_client_and_interval(found: Any) -> None:
    for users, frames_per_s in found["frames_per_s"].items():
        n = float(users.replace(",", ""))
        assert frames_per_s == pytest.approx(2 * n / 30.0)
        assert found["mbit_per_s"][users] == pytest.approx(n / 30 * found["beat_bytes"] * 8 / 1e6)
        assert found["nodes"][users] >= found["cores"][users]
    for cost in ("a heartbeat and its answer", "a login with its handshake", "memory of a client"):
        assert found["half"][cost] < 0.3 * found["unit"][cost]  # measured, not guessed
    assert found["back_s"] == sorted(found["back_s"], reverse=True)


def own_data_are_held_against_the_law_of_the_configuration(found: Any) -> None:
    """Socket.IO, 25 s / 20 s: U + 20 s with median 32.5 s, and a quarter of a second for the stamps."""
    assert found["all"][1] <= 32.5 + 0.25 and found["all"][2] >= 32.5
    assert found["naive"][0] < found["all"][0] - 1.0  # leaving out the censored flatters
    assert found["kept"] < found["incidents"]
    assert found["exit"] == [0, 99]


def the_page_says_what_the_model_says_and_what_it_was_off_by(found: Any) -> None:
    page = (HERE.parent / "docs" / "internet-scale.md").read_text("utf-8")
    assert "| | " + " | ".join(f"{n:,}" for n in found["users"]) + " |" in page
    for row in found["plan"]:
        assert "| " + " | ".join(row) + " |" in page
    told = {
        "announcements a second": (1, ",.0f"),
        "nodes that hear each": (2, ",.0f"),
        "Redis sends, Mbit/s": (4, ",.0f"),
        "commands a second": (7, ",.0f"),
        "memory, GiB": (9, ".1f"),
    }
    for what, (column, form) in told.items():
        row = " | ".join(format(size[column], form) for size in found["fan_out"])
        assert f"| {what} | {row} |" in page
    for (name, off), said in zip(found["off"].items(), found["said"], strict=True):
        assert f"| {name} | {said:.1f} ± " in page and f"| {off:+.1f} % |".replace("-", "−") in page
        # What the model was off by is carried on.
        assert all(half >= abs(off) / 100 * value * (1 - 1e-9) for value, half in found["carried"][name])


CHECKS = {
    "01-read-one-run.ipynb": one_run_is_read_right,
    "02-tune-a-policy.ipynb": the_tuned_policy_keeps_its_wants_by_theory_too,
    "03-why-a-send-only-heartbeat-misses-a-cut.ipynb": a_send_only_heartbeat_has_tcps_latency_not_its_own,
    "04-plan-capacity.ipynb": the_plan_is_two_frames_a_client_and_interval,
    "05-bring-your-own-data.ipynb": own_data_are_held_against_the_law_of_the_configuration,
    "06-internet-scale.ipynb": the_page_says_what_the_model_says_and_what_it_was_off_by,
}


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    """What all of them import, for 5 s of a core, is imported once."""
    with a_kernel() as manager:
        yield manager


@pytest.mark.real
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_runs_to_the_numbers_of_theory(name: str, kernel: AsyncKernelManager) -> None:
    CHECKS[name](headline(name, kernel))
