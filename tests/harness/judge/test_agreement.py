from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.judge.agreement import compare, judge
from harness.judge.observed import Curve, Slack
from harness.statistics.order_statistics import Sample
from harness.theory.law import FloatArray
from reports.run_tables import SCHEMAS, RunTables, frame, load_run
from tests.reports.handmade_run import (
    TOLERANCES,
    Fault,
    HandmadeRun,
    curves_of,
    draw_detections,
    laws_of,
    slack_of,
)
from tests.reports.handmade_run import handmade_run as whole_run

handmade_run = partial(whole_run, for_report=False)

K3 = Fault(448, "heartbeat", 70.0, 100.0)


def few(count: int, lo_s: float = 70.0, hi_s: float = 100.0, mass: float = 1.0) -> Fault:
    return Fault(count, "heartbeat", lo_s, hi_s, mass)


def compared(path: Path, run: HandmadeRun, slack: Slack | None = None) -> pd.DataFrame:
    frames = {
        name: frame(name) if name in run.left_out else run.tables.get(name, frame(name)) for name in SCHEMAS
    }
    tables = RunTables(path, run.summary, run.provenance, frozenset(run.left_out), frames)
    return compare(tables, TOLERANCES, slack or slack_of(tables))


def pick(table: pd.DataFrame, figure: str, left: str = "real", right: str = "theory") -> pd.Series:
    rows = table[
        (table["milestone"] == "suspected")
        & (table["figure"] == figure)
        & (table["left"] == left)
        & (table["right"] == right)
    ]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_large_run_that_follows_the_law_passes(tmp_path: Path) -> None:
    table = compared(tmp_path, handmade_run({"host_crash": K3}))
    assert list(table.columns) == list(SCHEMAS["agreement"])
    assert set(table.loc[table["figure"] != "shape", "verdict"]) == {"pass"}
    assert set(table.loc[table["figure"] == "shape", "verdict"]) == {"unknown"}, "448 are too few for a shape"
    assert judge(table, sound=True).verdict == "pass"
    row = pick(table, "p50")
    assert row["tolerance_s"] == pytest.approx(0.03 * 85)
    assert row["difference_s"] == pytest.approx(row["left_s"] - 85)
    assert row["lo_s"] < row["difference_s"] < row["hi_s"]
    pairs = set(zip(table["left"], table["right"], strict=True))
    assert pairs == {("simulated", "theory"), ("real", "theory"), ("real", "simulated")}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 20, 448])
def test_a_gateway_with_two_failures_under_a_law_for_three_is_red_however_few_faults(
    tmp_path: Path, seed: int, count: int
) -> None:
    run = handmade_run(
        {"host_crash": few(count)}, gateway_faults={"host_crash": few(count, 40, 70)}, seed=seed
    )
    table = compared(tmp_path, run)
    assert judge(table, sound=True).verdict == "fail"
    assert pick(table, "range")["verdict"] == "fail"
    assert pick(table, "range", "simulated")["verdict"] == "pass"
    if count >= 20:
        for figure in TOLERANCES:
            assert pick(table, figure)["verdict"] == "fail", figure


def test_a_gateway_that_never_detects_is_red(tmp_path: Path) -> None:
    run = handmade_run({"host_crash": few(30)})
    run.tables["detections"].loc[lambda d: d["engine"] == "real", "outcome"] = "censored"
    run.tables["detections"].loc[lambda d: d["engine"] == "real", "duration_s"] = 140.0
    table = compared(tmp_path, run)
    assert pick(table, "range")["verdict"] == "fail"
    assert "not detected" in pick(table, "range")["reason"]
    assert pick(table, "share")["verdict"] == "fail"
    assert pick(table, "p50")["verdict"] == "fail"


def test_faults_that_came_too_late_to_be_watched_are_no_evidence(tmp_path: Path) -> None:
    run = handmade_run({"host_crash": few(30)})
    real = run.tables["detections"]["engine"] == "real"
    run.tables["detections"].loc[real, "outcome"] = "censored"
    run.tables["detections"].loc[real, "duration_s"] = (
        180.0 - run.tables["detections"].loc[real, "injected_at_s"]
    )
    table = compared(tmp_path, run)
    real_rows = table[table["left"] == "real"]
    assert set(real_rows["verdict"]) == {"unknown"}
    assert "could be watched" in pick(table, "p50")["reason"]
    assert judge(table, sound=True).verdict == "pass"  # the simulation's comparisons are left


def test_who_is_left_out_is_decided_by_the_plan_not_by_the_outcome(tmp_path: Path) -> None:
    """Of faults that struck late only the quickly detected are seen detected: taking those would flatter."""
    run = handmade_run({"host_crash": K3})
    d = run.tables["detections"]
    late = d["injected_at_s"] > 140.0
    unseen = late & (d["injected_at_s"] + d["duration_s"] > 240.0) & (d["outcome"] == "detected")
    assert unseen.any()
    d.loc[unseen, "duration_s"] = 240.0 - d.loc[unseen, "injected_at_s"]
    d.loc[unseen, "outcome"] = "censored"
    table = compared(tmp_path, run)
    left_out = int((late & (d["engine"] == "real") & (d["milestone"] == "suspected")).sum())
    row = pick(table, "p50")
    assert 0 < row["n"] <= 448 - left_out + 5
    assert "left out" in row["reason"]
    assert not (table["verdict"] == "fail").any()


@pytest.mark.parametrize(
    ("count", "verdict", "why"),
    [(5, "unknown", "p50 needs 6"), (20, "unknown", "too few faults"), (448, "pass", "within")],
)
def test_a_sample_too_small_to_notice_proves_nothing(
    tmp_path: Path, count: int, verdict: str, why: str
) -> None:
    law, drawn = {"host_crash": few(count)}, few(count, 84, 86)
    run = handmade_run(law, gateway_faults={"host_crash": drawn if count == 5 else few(count)})
    row = pick(compared(tmp_path, run), "p50")
    if count == 20 and abs(row["difference_s"]) > row["tolerance_s"]:
        why = "chance may do that"
    assert row["verdict"] == verdict
    assert why in row["reason"]


def test_aliasing_inside_the_range_is_red_by_its_percentiles(tmp_path: Path) -> None:
    """Faults on a fixed schedule all meet the same phase: every detection is in range, the law is not met."""
    run = handmade_run({"host_crash": K3}, gateway_faults={"host_crash": few(448, 71, 79)})
    table = compared(tmp_path, run)
    assert pick(table, "range")["verdict"] == "pass"
    for figure in TOLERANCES:
        assert pick(table, figure)["verdict"] == "fail", figure
    assert pick(table, "p50", "real", "simulated")["verdict"] == "fail"


def test_without_curves_intervals_alone_decide(tmp_path: Path) -> None:
    run = handmade_run({"host_crash": K3}, gateway_faults={"host_crash": few(448, 71, 79)})
    run.left_out = {"law_curves"}
    table = compared(tmp_path, run)
    assert pick(table, "p50")["verdict"] == "fail"
    assert pick(table, "p99")["verdict"] == "unknown", "448 are too few for so wide an interval of p99"


@pytest.mark.parametrize(
    ("values", "q", "slack_s", "chance"),
    [
        ([75.0, 75.0, 75.0], 0.5, 0.0, 2 * (3 * (1 / 6) ** 2 - 2 * (1 / 6) ** 3)),
        ([95.0, 95.0, 95.0], 0.5, 0.0, 2 * (3 * (1 / 6) ** 2 - 2 * (1 / 6) ** 3)),
        ([74.0, 74.0, 74.0], 0.5, 1.0, 2 * (3 * (1 / 6) ** 2 - 2 * (1 / 6) ** 3)),
        ([85.0, 85.0, 85.0], 0.5, 0.0, 1.0),
        ([60.0] * 20, 0.99, 0.0, 0.0),
        ([math.inf] * 4, 0.5, 0.0, 0.0),
        ([80.0] * 20, 0.99, 0.0, 2 * (1 / 3) ** 20),
    ],
)
def test_chance_of_a_percentile_under_its_law(
    values: list[float], q: float, slack_s: float, chance: float
) -> None:
    """Uniform on [70, 100): P(median of 3 ≤ 75) = 3p² − 2p³, p = 1/6; all of 20 are below 80 with (1/3)²⁰."""
    law = Curve(np.array([70.0, 100.0]), np.array([0.0, 1.0]))
    assert law.chance(Sample.of(values), q, slack_s) == pytest.approx(chance, rel=1e-9)


def test_a_jump_of_a_law_belongs_to_its_time() -> None:
    law = Curve(np.array([80.0, 80.0]), np.array([0.0, 1.0]))
    assert (law.at(79.9), law.at(80.0), law.at(80.0, before=True), law.at(80.1, before=True)) == (0, 1, 0, 1)


def test_runs_that_agree_hardly_ever_turn_red() -> None:
    """The rule promises at most one in a hundred; 30 runs of fixed seeds with four faults each."""
    faults = {f"fault_{n}": few(n) for n in (12, 40, 90, 160)}
    nothing = {name: pd.DataFrame() for name in SCHEMAS}
    red = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        seen = pd.concat([draw_detections(e, faults, 0.2, rng) for e in ("simulated", "real")])
        tables = RunTables(
            Path(),
            {"engines": ["theory", "simulated", "real"], "epsilon_s": 0.2, "round_trip_s": 0.002},
            {},
            frozenset(),
            {**nothing, "detections": seen, "laws": laws_of(faults), "law_curves": curves_of(faults)},
        )
        red += judge(compare(tables, TOLERANCES, slack_of(tables)), sound=True).verdict == "fail"
    assert red <= 1


def test_epsilon_widens_the_range_of_the_real_engine_alone(tmp_path: Path) -> None:
    """The handmade gateway is up to 0.1 s late."""
    run = handmade_run({"nat_timeout": few(19, 80, 80)})
    assert pick(compared(tmp_path, run, Slack(0.1, 0.0)), "range")["verdict"] == "pass"
    red = compared(tmp_path, run, Slack(0.05, 0.0))
    assert pick(red, "range")["verdict"] == "fail"
    assert pick(red, "range", "simulated")["verdict"] == "pass"


def test_an_unknown_epsilon_leaves_the_range_undecided(tmp_path: Path) -> None:
    run = handmade_run({"host_crash": K3})
    run.summary["epsilon_s"] = None
    assert pick(compared(tmp_path, run), "range")["verdict"] == "unknown"


@pytest.mark.parametrize(("count", "verdict"), [(60, "unknown"), (3000, "pass")])
def test_a_law_that_leaves_it_to_chance_who_is_detected(tmp_path: Path, count: int, verdict: str) -> None:
    """Percentiles are of all faults: a law that detects 70 % has a p50 and no p95."""
    table = compared(tmp_path, handmade_run({"network_cut": few(count, mass=0.7)}))
    assert pick(table, "share")["verdict"] == verdict
    assert pick(table, "p50")["right_s"] == pytest.approx(70 + 30 * 0.5 / 0.7)
    assert pick(table, "p50")["n"] == count
    assert pick(table, "p50")["verdict"] == verdict
    assert set(table["figure"]) == {"p50", "range", "share", "shape"}
    assert not (table["verdict"] == "fail").any()


@pytest.mark.parametrize(("real", "verdict"), [(few(900), "pass"), (few(900, 60, 90), "fail")])
def test_where_theory_has_no_law_the_engines_are_held_against_each_other(
    tmp_path: Path, real: Fault, verdict: str
) -> None:
    run = handmade_run({"tangled": few(900)}, gateway_faults={"tangled": real})
    laws = run.tables["laws"]
    laws.loc[:, laws.columns[laws.dtypes == "float64"]] = math.nan
    table = compared(tmp_path, run)
    assert set(zip(table["left"], table["right"], strict=True)) == {("real", "simulated")}
    assert set(table["figure"]) == {"p50", "p95", "p99", "share", "shape"}
    assert pick(table, "share", "real", "simulated")["verdict"] == "pass"
    assert pick(table, "p50", "real", "simulated")["verdict"] == verdict
    shape = pick(table, "shape", "real", "simulated")
    assert shape["verdict"] == ("fail" if verdict == "fail" else "unknown")


def of_law(seen_s: np.ndarray, end_s: float = 500.0, hi_s: float = 100.0, shared: str = "") -> pd.DataFrame:
    """Compare durations, of which those that end after ``end_s`` are censored, with U(0, hi)."""
    faults = {"cut": Fault(len(seen_s), "heartbeat", 0.0, hi_s)}
    rows = draw_detections("simulated", faults, 0.0, np.random.default_rng(0))
    rows = rows[rows["milestone"] == "suspected"].assign(injected_at_s=0.0, duration_s=seen_s)
    late = rows["duration_s"] > end_s
    rows.loc[late, "outcome"] = "censored"
    rows.loc[late, "duration_s"] = end_s
    tables = {name: pd.DataFrame() for name in SCHEMAS}
    tables |= {"detections": rows, "laws": laws_of(faults), "law_curves": curves_of(faults)}
    tables["laws"]["shared"] = shared
    facts = {"engines": ["theory", "simulated"], "epsilon_s": 0.0, "round_trip_s": 0.0}
    one = RunTables(Path(), facts, {}, frozenset(), tables)
    return compare(one, TOLERANCES, slack_of(one))


def test_a_law_cut_where_watching_ends_is_tested_as_a_cut_law() -> None:
    """U(0, 100) cut at 51 s, n = 200: every other sample has its median beyond 51 s, which is no fault of it."""
    rng = np.random.default_rng(3)
    tables = [of_law(rng.uniform(0, 100, 200), end_s=51.0) for _ in range(100)]
    assert {"p50", "share", "shape"} <= set(tables[0]["figure"])
    assert sum((table["verdict"] == "fail").any() for table in tables) <= 3
    slower = of_law(rng.uniform(0, 200, 200), end_s=51.0)
    assert (slower["verdict"] == "fail").any()


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (lambda u: u, "pass"),
        (lambda u: np.round(u * 8) / 8, "fail"),  # bunched at every eighth of the interval
        (lambda u: np.clip(u + 0.08 * np.sin(2 * np.pi * u), 0, 1), "fail"),
        (
            lambda u: np.clip(u * 1.12 - 0.06, 0, 1),
            "fail",
        ),  # the ends too often: every percentile is in tolerance
    ],
    ids=["as the law", "bunched", "waves", "ends"],
)
def test_the_shape_is_seen_inside_the_right_range(
    seen: Callable[[FloatArray], FloatArray], verdict: str
) -> None:
    u = (np.arange(4000) + 0.5) / 4000
    table = of_law(100 * seen(u))
    assert pick(table, "shape", "simulated")["verdict"] == verdict
    assert pick(table, "range", "simulated")["verdict"] == "pass"


def test_faults_that_share_a_phase_are_no_independent_draws() -> None:
    table = of_law(np.full(300, 20.0), shared="they share one sweep")
    assert pick(table, "range", "simulated")["verdict"] == "pass"
    for figure in ("p50", "p95", "p99", "shape"):
        row = pick(table, figure, "simulated")
        assert row["verdict"] == "unknown" and "share one sweep" in row["reason"]
    assert (of_law(np.full(300, 20.0))["verdict"] == "fail").any()
    assert (
        pick(of_law(np.full(300, 120.0), shared="they share one sweep"), "range", "simulated")["verdict"]
        == "fail"
    )


def test_what_the_watch_and_the_retries_cannot_tell_is_no_difference(tmp_path: Path) -> None:
    run = handmade_run({"nat_timeout": few(19, 80, 80)})
    d = run.tables["detections"]
    late = (d["milestone"] == "store_cleared") & (d["engine"] == "real")
    d.loc[late, "duration_s"] += 0.5
    ranges = {}
    for grain_s in (0.0, 0.5):
        run.summary["store_grain_s"] = grain_s
        table = compared(tmp_path, run)
        rows = table[(table["milestone"] == "store_cleared") & (table["figure"] == "range")]
        ranges[grain_s] = dict(zip(rows["left"], rows["verdict"], strict=True))
    assert ranges == {0.0: {"simulated": "pass", "real": "fail"}, 0.5: {"simulated": "pass", "real": "pass"}}


@pytest.mark.parametrize(
    ("engine", "milestone", "slack_s"),
    [
        ("real", "suspected", 0.2),  # one loop
        ("real", "store_cleared", 0.4 + 0.5),  # the gateway's twice, and the watch's grain
        ("real", "peers_notified", 0.6),  # the gateway's twice, the watching client's
        ("real", "locked_out", 0.4 + 5.0),  # the gateway's twice, and a missed try
        ("simulated", "store_cleared", 0.01),  # a model has no loops that lag
    ],
)
def test_each_loop_on_the_way_may_lag(engine: str, milestone: str, slack_s: float) -> None:
    assert Slack(0.2, 0.01, 0.5, 5.0).of_times(engine, milestone) == pytest.approx(slack_s)


def test_too_many_detected_is_red(tmp_path: Path) -> None:
    run = handmade_run({"cut": few(60, mass=0.4)}, gateway_faults={"cut": few(60)})
    assert pick(compared(tmp_path, run), "share")["verdict"] == "fail"


@pytest.mark.parametrize(("detected", "verdict"), [(0, "pass"), (1, "fail")])
def test_a_fault_that_the_policy_prevents(tmp_path: Path, detected: int, verdict: str) -> None:
    """NAT with T below its timeout: the law has no mass and no times; nothing may be detected."""
    run = handmade_run({"nat_timeout": few(19)})
    laws, d = run.tables["laws"], run.tables["detections"]
    laws.loc[:, ["lo_s", "hi_s", "mean_s", "p50_s", "p95_s", "p99_s"]] = math.nan
    laws["detected_share"] = 0.0
    prevented = ~d["fault_id"].isin([f"nat_timeout-{n:05d}" for n in range(detected)])
    d.loc[prevented, "outcome"] = "not_applicable"
    d.loc[prevented, "duration_s"] = math.nan
    table = compared(tmp_path, run)
    assert set(table["figure"]) == {"range", "share"}
    assert set(table.loc[table["left"] == "real", "verdict"]) == {verdict}


def test_one_engine_alone_is_compared_with_theory_only(tmp_path: Path) -> None:
    table = compared(tmp_path, handmade_run({"host_crash": K3}, engines=("theory", "simulated")))
    assert set(zip(table["left"], table["right"], strict=True)) == {("simulated", "theory")}
    assert judge(table, sound=None).verdict == "pass"


@pytest.mark.parametrize("engines", [("theory",), ("simulated", "real"), ()])
def test_nothing_to_compare_is_unknown(tmp_path: Path, engines: tuple[str, ...]) -> None:
    table = compared(tmp_path, handmade_run({"host_crash": few(9)}, engines=engines))
    assert table.empty
    assert judge(table, sound=True) == ("unknown", "no two engines saw the same fault", 0, 0, 0)


def test_an_unsound_run_proves_nothing_but_a_failure_stays_one(tmp_path: Path) -> None:
    good = compared(tmp_path, handmade_run({"host_crash": K3}))
    verdict = judge(good, sound=False)
    assert verdict.verdict == "unknown"
    assert "unsound" in verdict.reason
    bad = good.assign(verdict="fail")
    assert judge(bad, sound=False).verdict == "fail"


@pytest.mark.parametrize("tolerances", [{"p50": 0.03, "p95": 0.03}, {**TOLERANCES, "p99": -0.1}])
def test_every_percentile_needs_a_tolerance(tmp_path: Path, tolerances: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="p99"):
        compare(load_run(tmp_path), tolerances, Slack(0.2, 0.0))
