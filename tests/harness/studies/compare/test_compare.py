from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.studies.compare.compare import CannotCompare, Comparison, compare
from harness.studies.compare.page import markdown, save_comparison
from reference_server.errors import Exit
from reports.run_tables import TablesError, frame
from tests.harness.studies.compare.runs import SCENARIO, rows, uniform, write

BASE = rows(uniform(400, 70, 100, 1))


def changed(**liveness: Any) -> dict[str, Any]:
    other = copy.deepcopy(SCENARIO)
    other["liveness"] |= liveness
    return other


def pair(tmp_path: Path, after: pd.DataFrame, **more: Any) -> Comparison:
    return compare([write(tmp_path / "a", BASE), write(tmp_path / "b", after, **more)])


def test_the_same_plan_run_again_passes(tmp_path: Path) -> None:
    jitter = np.random.default_rng(3).uniform(0, 0.05, 400)
    again = BASE.assign(duration_s=BASE["duration_s"] + jitter)
    found = compare([write(tmp_path / "a", BASE, plan="one"), write(tmp_path / "b", again, plan="one")])
    assert found.curves["paired"].all()
    assert (found.verdict, found.exit_code(), found.exit_code(strict=True)) == ("pass", Exit.GOOD, Exit.GOOD)


def test_a_slower_gateway_is_a_regression(tmp_path: Path) -> None:
    found = pair(tmp_path, rows(uniform(400, 100, 130, 2)))
    assert (found.verdict, found.exit_code()) == ("fail", Exit.MISSED)
    (reason,) = found.rows("fail")
    assert "host_crash · suspected: slower: p50 moved by" in reason


def test_a_faster_gateway_is_none(tmp_path: Path) -> None:
    found = pair(tmp_path, rows(uniform(400, 40, 70, 2)))
    assert found.verdict == "pass"
    assert "faster" in found.curves["reason"].iloc[0]


def test_too_little_to_tell_is_unknown_and_strict_ci_fails_on_it(tmp_path: Path) -> None:
    before = write(tmp_path / "a", rows(uniform(20, 70, 100, 1)))
    after = write(tmp_path / "b", rows(uniform(20, 70, 100, 2)))
    found = compare([before, after])
    assert found.verdict == "unknown"
    assert (found.exit_code(), found.exit_code(strict=True)) == (Exit.GOOD, Exit.MISSED)
    assert "could not rule one out" in found.headline


def test_a_handful_of_faults_is_listed_and_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    few = rows([1.0, 2.0, 3.0], fault="process_crash")
    found = compare([write(tmp_path / name, BASE, few, plan="one") for name in ("a", "b")])
    assert found.verdict == "pass"
    assert "(1 more have too few faults to say; 1 nothing to compare)" in found.headline
    too_few, nothing = found.rows("unknown")
    assert "too few faults" in too_few and "0 against 0" in nothing


def test_more_false_suspicions_are_a_regression(tmp_path: Path) -> None:
    before = write(tmp_path / "a", BASE, plan="one", suspicions=(2, 10.0))
    after = write(tmp_path / "b", BASE, plan="one", suspicions=(40, 10.0))
    found = compare([before, after])
    assert found.verdict == "fail"
    (reason,) = found.rows("fail")
    assert reason.startswith("simulated · false suspicions: 0.200 → 4.00 per client-day")


def test_fewer_detections_are_a_regression_even_if_those_are_as_fast(tmp_path: Path) -> None:
    ends = ["detected"] * 240 + ["recovered"] * 160
    found = pair(tmp_path, rows(BASE["duration_s"].tolist(), outcomes=ends))
    assert "fewer: 100 % → 60 % detected" in "".join(found.rows("fail")).replace("\u00a0", " ")


def test_runs_of_different_scenarios_are_refused_with_what_differs(tmp_path: Path) -> None:
    other = changed(max_failures=4)
    other["faults"] = [*other["faults"], {"kind": "frozen", "share": "5%"}]
    runs = [write(tmp_path / "a", BASE), write(tmp_path / "b", BASE, scenario=other)]
    with pytest.raises(CannotCompare) as refused:
        compare(runs)
    assert "--ignore-scenario-difference" in str(refused.value)
    assert "liveness.max_failures: 3 → 4" in str(refused.value)
    assert "faults[frozen].share: – → 5%" in str(refused.value)
    assert "host_crash" not in str(refused.value), "what is the same is not listed"
    found = compare(runs, allow_different=True)
    assert "differs in the scenario: liveness.max_failures: 3 → 4" in markdown(found)


def test_another_policy_alone_is_what_is_to_be_compared(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a", BASE), write(tmp_path / "b", BASE, scenario=changed(max_failures=4))]
    assert [str(d) for d in compare(runs).differences] == ["liveness.max_failures: 3 → 4"]


def test_no_false_suspicion_in_either_run_shows_nothing(tmp_path: Path) -> None:
    found = compare([write(tmp_path / n, BASE, plan="one", suspicions=(0, 10.0)) for n in ("a", "b")])
    assert found.verdict == "pass"
    (said,) = found.rows("unknown")
    assert "0 against 0: no healthy client" in said


def test_a_gateway_with_a_policy_of_its_own_is_compared_and_named(tmp_path: Path) -> None:
    own = {**SCENARIO["liveness"], "max_failures": 4}
    after = write(tmp_path / "b", rows(uniform(400, 100, 130, 2)), gateway=own)
    found = compare([write(tmp_path / "a", BASE), after])
    assert [str(d) for d in found.differences] == ["the gateway's own max_failures: 3 → 4"]
    assert found.verdict == "fail"


def test_another_seed_name_or_threshold_is_the_same_experiment(tmp_path: Path) -> None:
    other = {**SCENARIO, "name": "again", "seed": 9, "thresholds": []}
    runs = [write(tmp_path / "a", BASE), write(tmp_path / "b", BASE, scenario=other)]
    differing = {d.key for d in compare(runs).differences}
    assert differing == {"name", "seed", "thresholds", "thresholds[0]"}


@pytest.mark.parametrize(
    ("sentence", "names", "error"),
    [
        ("one run", ["a"], "needs two runs"),
        ("the same twice", ["a", "a"], "twice"),
        ("nothing measured", ["a", "empty"], "nothing was measured"),
        ("nothing in common", ["a", "other"], "no engine and fault in common"),
    ],
)
def test_what_cannot_be_compared_says_why(
    sentence: str, names: list[str], error: str, tmp_path: Path
) -> None:
    write(tmp_path / "a", BASE)
    write(tmp_path / "empty")
    write(tmp_path / "other", rows([1.0] * 9, engine="real"))
    with pytest.raises(CannotCompare, match=error):
        compare([tmp_path / name for name in names])


def test_an_interrupted_run_is_compared_only_when_that_is_wanted(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a", BASE), write(tmp_path / "b", BASE, status="partial")]
    with pytest.raises(CannotCompare, match="b: was interrupted"):
        compare(runs)
    assert compare(runs, allow_partial=True).exit_code() == 0


def test_a_run_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(TablesError, match="no such run"):
        compare([write(tmp_path / "a", BASE), tmp_path / "nowhere"])


def test_an_unsound_real_run_proves_nothing(tmp_path: Path) -> None:
    after = rows(uniform(400, 100, 130, 2), engine="real")
    runs = [
        write(tmp_path / "a", rows(BASE["duration_s"].tolist(), engine="real")),
        write(tmp_path / "b", after, sound=False, unsound_reasons=["ε is 2 s"]),
    ]
    found = compare(runs)
    assert (found.verdict, found.exit_code()) == ("unknown", Exit.UNSOUND)
    assert "unsound: b: ε is 2 s" in markdown(found)


def test_real_times_within_epsilon_are_the_same(tmp_path: Path) -> None:
    """A close frame seen after 1 ms and after 300 ms: with ε = 0.2 s in each run nobody can tell."""
    runs = [
        write(tmp_path / name, rows([took] * 40, engine="real"), epsilon_s=epsilon_s)
        for name, took, epsilon_s in (("a", 0.001, 0.2), ("b", 0.3, 0.2), ("c", 0.3, 0.05))
    ]
    assert compare([runs[0], runs[1]]).verdict == "pass"
    runs[0] = write(tmp_path / "d", rows([0.001] * 40, engine="real"), epsilon_s=0.05)
    assert compare([runs[0], runs[2]]).verdict == "fail"


def test_runs_of_one_law_seldom_regress_against_each_other(tmp_path: Path) -> None:
    """Six faults and their shares: uncorrected, a false alarm would come every fourth comparison."""
    alarms = uncorrected = 0
    for n in range(8):
        runs = []
        for half in (0, 1):
            parts = [
                rows(uniform(40, 70, 100, 1000 * n + 100 * half + f), fault=f"fault_{f}") for f in range(6)
            ]
            runs.append(write(tmp_path / f"{n}-{half}", *parts))
        found = compare(runs)
        alarms += found.verdict == "fail"
        uncorrected += bool((found.curves["p_value"] < 0.05).any())
    assert uncorrected >= 1, "the control: there is something to correct"
    assert alarms <= 2  # binomial(8, 0.05): more than 2 has a chance of 1 in 170 (the seeds are fixed)


def test_text_and_tables_say_the_same(tmp_path: Path) -> None:
    found = pair(tmp_path, rows(uniform(400, 100, 130, 2)))
    row = found.curves.iloc[0]
    shown = f"{row['p50_before_s']:.2f}\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}{row['p50_after_s']:.1f}"
    text = markdown(found)
    assert f"| {shown} |" in text
    assert text.startswith("# Comparison: ✗ fail\n\n**Regression")
    assert "Holm" in text
    assert "log-rank" in text
    assert f"seed {found.seed}" in text


def test_three_runs_are_each_held_against_the_first(tmp_path: Path) -> None:
    parts = [BASE, rows(uniform(400, 70, 100, 2)), rows(uniform(400, 100, 130, 3))]
    found = compare([write(tmp_path / n, part) for n, part in zip("abc", parts, strict=True)])
    verdicts = found.curves.set_index("candidate")["verdict"].to_dict()
    assert verdicts["c"] == "fail"
    assert verdicts["b"] != "fail"
    assert found.rows("fail")[0].startswith("c: ")
    assert "| run | engine | fault |" in markdown(found)


def test_it_is_saved_as_files(tmp_path: Path) -> None:
    found = pair(tmp_path, rows(uniform(400, 100, 130, 2)))
    (tmp_path / "out" / "figures").mkdir(parents=True)
    (tmp_path / "out" / "figures" / "before_after_9.png").touch()
    written = save_comparison(found, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").rglob("*.*")}
    assert names == {path.name for path in written}, "and what was there before is gone"
    assert names == {
        *("comparison.html", "comparison.md", "curves.csv", "rates.csv", "shares.csv", "costs.csv"),
        *("before_after_1.svg", "before_after_1.png"),
    }
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "data:image/svg+xml;base64," in page
    assert "No runs side by side: nothing was sampled" in page
    again = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert again["p50_difference_s"].iloc[0] == pytest.approx(found.curves["p50_difference_s"].iloc[0])


@pytest.mark.parametrize(
    ("before", "after", "labels"),
    [
        ({}, {}, ("a", "b")),
        ({}, {"heartbeat_interval": "10s", "max_failures": 2}, ("T = 30 s, k = 3", "T = 10 s, k = 2")),
        ({"retry_interval": "1.5s"}, {}, ("R = 1.5 s", "R = T")),
        (
            {"session_timeout": "5m"},
            {"session_timeout": None},
            ("session timeout = 5 min", "session timeout = none"),
        ),
    ],
)
def test_runs_are_called_by_what_differs(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], labels: tuple[str, ...]
) -> None:
    found = compare(
        [write(tmp_path / name, BASE, scenario=changed(**own)) for name, own in (("a", before), ("b", after))]
    )
    assert tuple(label.replace("\N{NO-BREAK SPACE}", " ") for label in found.labels) == labels


def test_what_a_gateway_ran_itself_and_other_settings_are_in_the_label(tmp_path: Path) -> None:
    other = {**SCENARIO, "clients": 300}
    runs = [
        write(tmp_path / "a", BASE),
        write(tmp_path / "b", BASE, scenario=other, gateway={"max_failures": 4}),
    ]
    assert compare(runs, allow_different=True).labels == ("k = 3, clients = 400", "k = 4, clients = 300")
    again = [write(tmp_path / "c", BASE), write(tmp_path / "d", BASE, scenario={**SCENARIO, "seed": 2})]
    assert compare(again).labels == ("seed = 1", "seed = 2")


def test_labels_of_ones_own_are_one_a_run(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a", BASE), write(tmp_path / "b", BASE)]
    found = compare(runs, labels=["today", "wanted"])
    assert found.curves["candidate"].unique().tolist() == ["wanted"]
    assert "wanted (run b) against the baseline today (run a)" in markdown(found)
    for wrong in (["today"], ["today", "today"], ["today", ""]):
        with pytest.raises(CannotCompare, match="--labels"):
            compare(runs, labels=wrong)


def test_costs_are_beside_each_other(tmp_path: Path) -> None:
    runs = []
    for name, clients, frames in (("a", 200, 20.0), ("b", 100, 30.0)):
        runs.append(write(tmp_path / name, BASE))
        costs = frame("cost", []).reindex(range(1))
        costs.assign(engine="simulated", clients=clients, frames_per_s=frames).to_csv(
            runs[-1] / "cost.csv", index=False
        )
    found = compare(runs)
    rates = found.costs.set_index("figure").loc["frames_per_s"]
    assert (rates["before"], rates["after"], rates["change_share"]) == (100, 300, pytest.approx(2.0))
    assert "| frames a second per 1,000 connections | 100 | 300 | +200 | +200" in markdown(found)
    assert set(found.costs["figure"]) == {"clients", "frames_per_s"}, "and what nobody measured has no row"
    nearly = found.costs.assign(after=found.costs["before"] - 0.01, change=-0.01)
    text = markdown(replace(found, costs=nearly[nearly["figure"] == "clients"]))
    assert "| connections, mean | 200 | 200 | 0 |" in text, "no sign stands before what is rounded to 0"


def test_two_runs_of_the_same_name_keep_apart(tmp_path: Path) -> None:
    found = compare([write(tmp_path / "x" / "run", BASE), write(tmp_path / "y" / "run", BASE)])
    assert len(set(found.labels)) == 2
