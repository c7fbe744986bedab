from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.first_file import first_target
from harness.judge.threshold_metrics import METRICS
from harness.judge.thresholds import (
    NOT_ASKED,
    ThresholdError,
    check_thresholds,
    default_thresholds,
    evaluate,
    parse_threshold,
    with_what_is_seen,
)
from harness.measure.connections import losses
from reports.run_tables import SCHEMAS, RunTables, frame
from scenarios.load import load_scenario, parse_scenario

FAULTS = ("host_crash", "frozen")
NAN = float("nan")


def detected(
    seconds: list[float],
    *,
    engine: str = "real",
    fault: str = "host_crash",
    milestone: str = "suspected",
    outcome: str = "detected",
) -> list[tuple[Any, ...]]:
    return [
        (engine, f"{fault}-{i}", fault, "s", "n", milestone, "", outcome, 100.0, s, 1.0, s)
        for i, s in enumerate(seconds)
    ]


def even(n: int, low: float = 70.0, high: float = 100.0) -> list[float]:
    return [low + (high - low) * (i + 0.5) / n for i in range(n)]


def tables(
    *rows: list[tuple[Any, ...]],
    engines: tuple[str, ...] = ("real", "simulated"),
    epsilon_s: float = 0.0,
    **changes: pd.DataFrame,
) -> RunTables:
    given = {name: frame(name) for name in SCHEMAS} | {
        "detections": frame("detections", [row for part in rows for row in part]),
        "false_suspicions": frame("false_suspicions", [("real", 10, 2.0, 0, 0.0, 0.0, 1.844)]),
        "agreement": agreement(),
    }
    facts = {"engines": list(engines), "epsilon_s": epsilon_s}
    return RunTables(Path(), facts, {}, frozenset(), given | changes)


def agreement(*rows: tuple[str, str, str, float, float, str]) -> pd.DataFrame:
    """Rows of (fault, figure, left, left_s, theory_s, verdict)."""
    columns = ["fault", "milestone", "figure", "left", "right", "left_s", "right_s", "verdict"]
    return pd.DataFrame(
        [(f, "suspected", figure, left, "theory", a, b, verdict) for f, figure, left, a, b, verdict in rows],
        columns=columns,
    )


def verdict(expression: str, of: RunTables, unsound: bool = False) -> tuple[str, float, str]:
    (row,) = evaluate([parse_threshold(expression, FAULTS)], of, unsound=unsound).to_numpy().tolist()
    assert row[0] == expression
    return row[2], row[1], row[3]


THOUSAND = tables(detected(even(1000)), detected(even(20, 5, 6), fault="frozen"))
CUT = tables(detected(even(60)), detected([200.0] * 40, outcome="censored"))
HEALED = tables(detected(even(60)), detected([20.0] * 40, outcome="recovered"))
GHOSTS = frame(
    "ghosts",
    [("real", "f0", "host_crash", "detected", 86.0), ("real", "f1", "host_crash", "censored", 200.0)],
)
LIVE = frame(
    "population",
    [("real", 50.0, 4, 4, 4.0, 0, 0), ("real", 60.0, 3, 4, 4.0, 3, 1), ("simulated", 60.0, 4, 4, 4.0, 9, 0)],
)
AGREE = agreement(
    ("host_crash", "p50", "real", 86.7, 85.0, "pass"),
    ("frozen", "p50", "real", 84.0, 85.0, "pass"),
    ("host_crash", "p50", "simulated", 85.1, 85.0, "pass"),
    ("host_crash", "p99", "real", 99.0, 99.7, "unknown"),
    ("orderly_close", "p50", "real", 0.004, 0.0005, "pass"),
)
AGREEING = tables(agreement=AGREE, epsilon_s=0.02)


@pytest.mark.parametrize(
    ("expression", "of", "expected"),
    [
        # Percentiles: the whole interval must be on one side.
        ("detection_latency{fault=host_crash}.p99 < 100s", THOUSAND, "pass"),
        ("detection_latency{fault=host_crash}.p99 < 99s", THOUSAND, "fail"),
        ("detection_latency{fault=host_crash}.p99 < 99.7s", THOUSAND, "unknown"),
        ("detection_latency{fault=host_crash}.p50 <= 1.5m", THOUSAND, "pass"),
        ("detection_latency{fault=host_crash}.p50 > 60s", THOUSAND, "pass"),
        # Too few for p99: a good value proves nothing, a bad one is bad all the same.
        ("detection_latency{fault=frozen}.p99 < 100s", THOUSAND, "unknown"),
        ("detection_latency{fault=frozen}.p99 < 4s", THOUSAND, "fail"),
        ("detection_latency{fault=host_crash}.mean < 86s", THOUSAND, "pass"),
        ("detection_latency{fault=host_crash}.max < 100s", THOUSAND, "pass"),
        # Without a fault all are taken in.
        ("detection_latency.p50 < 86s", THOUSAND, "pass"),
        # Nothing was measured.
        ("detection_latency{milestone=store_cleared}.p50 < 86s", THOUSAND, "unknown"),
        ("detection_latency{engine=simulated}.p50 < 86s", THOUSAND, "unknown"),
        # What is censored is not fast.
        ("detection_latency.p50 < 150s", CUT, "pass"),
        ("detection_latency.p99 < 150s", CUT, "fail"),
        ("detection_latency.p95 < 1000s", CUT, "unknown"),
        ("detection_latency.max < 300s", CUT, "unknown"),
        ("detection_latency.max < 150s", CUT, "fail"),
        ("detection_latency.mean < 300s", CUT, "unknown"),
        ("detection_latency.mean < 90s", CUT, "fail"),
        ("censored.count == 0", CUT, "fail"),
        ("censored.count == 40", CUT, "pass"),
        ("detected.share > 50%", CUT, "unknown"),
        ("detected.share > 45%", CUT, "pass"),
        ("censored.share != 0%", CUT, "pass"),
        # Nine of ten are never reached when four recover, and that is certain.
        ("detection_latency.p90 < 1000s", HEALED, "fail"),
        ("recovered.share{fault=host_crash} > 0.25", HEALED, "pass"),
        ("recovered{fault=host_crash}.share > 0.25", HEALED, "pass"),
        ("not_applicable.count == 0", HEALED, "pass"),
        # Two client-days without one: the count is a fact, the rate an estimate with an upper bound.
        ("false_suspicions.count == 0", THOUSAND, "pass"),
        ("false_suspicions.rate < 2/client-day", THOUSAND, "pass"),
        ("false_suspicions.rate < 1/client-day", THOUSAND, "unknown"),
        ("false_suspicions.rate < 14 per user-week", THOUSAND, "pass"),
        ("false_suspicions{engine=simulated}.count == 0", THOUSAND, "unknown"),
        ("ghosts.at_end == 0", tables(ghosts=GHOSTS), "fail"),
        ("ghosts.at_end == 0", tables(ghosts=GHOSTS[:1]), "pass"),
        ("ghosts.max <= 3", tables(population=LIVE), "pass"),
        ("ghosts{engine=simulated}.max <= 3", tables(population=LIVE), "fail"),
        ("ghost_seconds.max < 100s", tables(ghosts=GHOSTS[:1]), "pass"),
        ("ghost_seconds.mean < 100s", tables(ghosts=GHOSTS[:1]), "unknown"),  # one is no sample
        ("locked_out.p50 < 90s", tables(detected(even(100, 80, 85), milestone="locked_out")), "pass"),
        ("agreement.real_vs_theory{fault=host_crash}.p50 < 3%", AGREEING, "pass"),
        ("agreement.real_vs_theory.p50 < 0.03", AGREEING, "pass"),
        ("agreement.real_vs_theory.p50 < 1.5%", AGREEING, "fail"),
        ("agreement.simulated_vs_theory.p50 < 1%", AGREEING, "pass"),
        ("agreement.real_vs_theory.p99 < 3%", AGREEING, "unknown"),
        ("agreement.real_vs_simulated.p50 < 3%", AGREEING, "unknown"),
    ],
)
def test_verdicts(expression: str, of: RunTables, expected: str) -> None:
    found, _, reason = verdict(expression, of)
    assert found == expected, reason
    assert reason


def test_the_value_is_the_measured_one() -> None:
    found = verdict("detection_latency{fault=host_crash}.p50 < 86s", THOUSAND)
    assert found[1] == even(1000)[499]
    # Ranks 469 and 532 of 1000.
    assert found[2] == f"84.98 s (95 %: {even(1000)[468]:.2f} s to {even(1000)[531]:.2f} s), n = 1000"


def test_an_unsound_run_decides_nothing_that_rests_on_it() -> None:
    of = tables(detected([300.0] * 10), detected([300.0] * 10, engine="simulated"), agreement=AGREE)
    assert verdict("detection_latency.p50 < 100s", of, unsound=True)[0] == "unknown"
    assert verdict("agreement.real_vs_theory.p50 < 1%", of, unsound=True)[0] == "unknown"
    assert verdict("detection_latency{engine=simulated}.p50 < 100s", of, unsound=True)[0] == "fail"
    assert verdict("agreement.simulated_vs_theory.p50 < 1%", of, unsound=True)[0] == "pass"


def test_the_engine_is_the_real_one_if_it_ran_and_else_the_simulation() -> None:
    rows = detected([300.0] * 10), detected([80.0] * 10, engine="simulated")
    assert verdict("detection_latency.p50 < 100s", tables(*rows))[0] == "fail"
    assert verdict("detection_latency.p50 < 100s", tables(*rows, engines=("simulated",)))[0] == "pass"
    absent = verdict("detection_latency{engine=real}.p50 < 100s", tables(*rows, engines=("simulated",)))
    assert (absent[0], absent[2]) == ("unknown", "real: did not run")


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("detection_latency.p99", "is not a threshold; an example:"),
        ("detection_latency.p99 < ", "is not a threshold"),
        ("detection_latency.p99 =< 3s", "is not a threshold"),
        ("latency.p99 < 3s", "unknown metric 'latency'; did you mean detection_latency? Allowed: det"),
        (
            "detection_latency.p0 < 3s",
            "has no 'p0'; allowed: p50, p95, p99, or any other percentile, mean, max",
        ),
        ("detection_latency.p100 < 3s", "has no 'p100'"),
        ("detection_latency.count < 3", "has no 'count'"),
        ("agreement.real_vs_theory.mean < 3%", "has no 'mean'; allowed: p50, p95, p99"),
        ("agreement.p50 < 3%", "agreement of ''; allowed: agreement.real_vs_theory"),
        ("ghosts.real_vs_theory.max < 3", "only agreement compares engines"),
        ("detection_latency{colour=red}.p50 < 3s", "unknown tag 'colour'; allowed: fault, engine, milestone"),
        (
            "detection_latency{fault=hostcrash}.p50 < 3s",
            "unknown fault 'hostcrash'; did you mean host_crash? Allowed: host_crash, frozen",
        ),
        ("detection_latency{milestone=seen}.p50 < 3s", "unknown milestone 'seen'; allowed: suspected"),
        ("detection_latency{engine=theory}.p50 < 3s", "unknown engine 'theory'; allowed: simulated, real"),
        ("detection_latency{fault=frozen,fault=frozen}.p50 < 3s", "tag twice: 'fault'"),
        ("locked_out{milestone=suspected}.p50 < 3s", "unknown tag 'milestone'; allowed: fault, engine"),
        ("detection_latency.p50 < 3", "is not a duration"),
        ("detection_latency.p50 < 3%", "is not a duration"),
        (
            "false_suspicions.rate < 3",
            "is not a rate of one client; allowed: a number, '/client-' or 'per user-'",
        ),
        ("false_suspicions.rate < 3/year", "is not a rate"),
        ("false_suspicions.count == 3s", "is not a number that fits"),
        ("recovered.share < nan", "is not a number that fits"),
    ],
)
def test_what_is_no_threshold_is_an_error_that_lists_what_is_allowed(expression: str, says: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        parse_threshold(expression, FAULTS)
    assert says in str(caught.value)


def test_white_space_does_not_matter() -> None:
    written = "  detection_latency { fault = host_crash , milestone=store_cleared } .p99.9<100s "
    found = parse_threshold(written, FAULTS)
    assert found.tags == (("fault", "host_crash"), ("milestone", "store_cleared"))
    assert (found.aggregate, found.operator, found.limit) == ("p99.9", "<", 100.0)


SCENARIO = """
name: two
duration: 60s
faults: [{kind: host_crash, share: 10%, at: 1s}]
thresholds: ["detection_latency{fault=frozen}.p99 < 100s", "typo.p99 < 3s", "censored.count == 0"]
"""


def test_a_scenarios_thresholds_are_checked_all_at_once_before_it_runs() -> None:
    with pytest.raises(ThresholdError) as caught:
        check_thresholds(parse_scenario(SCENARIO))
    assert len(caught.value.problems) == 2
    assert "unknown fault 'frozen'; allowed: host_crash" in caught.value.problems[0]


def test_the_demos_thresholds_can_be_checked() -> None:
    demo = load_scenario("demo")
    assert len(check_thresholds(demo)) == len(demo.thresholds) > 0


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_an_empty_run_is_unknown_or_a_count(name: str) -> None:
    metric = METRICS[name]
    pair = ".real_vs_theory" if name == "agreement" else ""
    limits = {"duration": "5s", "share": "5%", "count": "5", "rate": "5/client-day"}
    empty = tables(false_suspicions=frame("false_suspicions", []))
    for aggregate in metric.units:
        used = "p50" if aggregate == "p" else aggregate
        expression = f"{name}{pair}.{used} < {limits[metric.units[aggregate]]}"
        found, value, _ = verdict(expression, empty)
        assert (found, value != value) in {("unknown", True), ("pass", False)}, expression


def test_a_simulation_is_not_asked_what_only_machines_have() -> None:
    nothing = {name: pd.DataFrame() for name in SCHEMAS}
    thresholds = [parse_threshold("heartbeat_lateness.p99 < 150ms", FAULTS)]
    for engines, expected in (
        (["simulated"], NOT_ASKED),
        (["real"], "unknown"),
        (["simulated", "real"], "unknown"),
    ):
        run = RunTables(Path(), {"engines": engines}, {}, frozenset(), nothing)
        assert evaluate(thresholds, run)["verdict"].tolist() == [expected], engines


def test_lateness_and_handshakes_are_facts_of_the_run() -> None:
    """Two seconds, of 100 and 300 heartbeats: the pooled p99 lies between theirs, the maximum is the run's."""
    late = pd.DataFrame(
        {"engine": "real", "n": [100, 300], "p50_s": [0.01, 0.02], "p99_s": [0.1, 0.2], "max_s": [0.3, 0.4]}
    )
    took = pd.DataFrame({"engine": "real", "took_s": np.arange(1, 101) / 100})
    measured = tables(lateness=late, handshakes=took)

    def value(expression: str) -> float:
        return verdict(expression, measured)[1]

    assert value("heartbeat_lateness.max < 1s") == 0.4
    assert 0.1 < value("heartbeat_lateness.p99 < 1s") < 0.2
    assert value("handshake.p50 < 1s") == pytest.approx(0.51)
    assert value("handshake.max < 1s") == 1.0
    bound = parse_threshold("handshake.p99 < 500ms", ())
    assert (bound.allows(0.4), bound.allows(0.6), bound.allows(float("nan"))) == (True, False, False)


def connections(*rows: tuple[str, str, str, str, bool]) -> pd.DataFrame:
    """Rows of (client, author; empty: kept, incident, hampered_by, in_outage): half a day watched, 60 s offline."""
    return frame(
        "healthy_connections",
        [
            (
                "real",
                f"s{client}",
                client,
                "",
                0.0,
                43_200.0,
                "lost" if author else "censored",
                author,
                "heartbeat" if author else "",
                incident,
                hampered,
                outage,
                author == "gateway",
                60.0 if author else 0.0,
            )
            for client, author, incident, hampered, outage in rows
        ],
    )


def losing(*rows: tuple[str, str, str, str, bool]) -> RunTables:
    held = connections(*rows)
    return tables(healthy_connections=held, losses=losses("real", held), population=LIVE)


KEPT = [(f"{n}", "", "", "", False) for n in range(18)]
TWO_LOST = losing(*KEPT, ("18", "gateway", "", "", False), ("19", "middle", "", "", False))


@pytest.mark.parametrize(
    ("expression", "value", "expected"),
    [
        ("healthy.losses.count == 2", 2.0, "pass"),
        ("healthy.losses.middle.count == 1", 1.0, "pass"),
        ("healthy.losses{author=gateway}.count < 1", 1.0, "fail"),
        ("healthy.losses.drain.count == 0", 0.0, "pass"),
        ("healthy.losses.rate < 1/client-day", 0.2, "pass"),
        ("healthy.losses.rate < 0.1/client-day", 0.2, "unknown"),
        ("healthy.clients_lost.count <= 2", 2.0, "pass"),
        ("healthy.clients_lost.share < 50%", 0.1, "pass"),
        ("healthy.clients_lost.share < 5%", 0.1, "unknown"),
        ("healthy.sessions_lost.count == 1", 1.0, "pass"),
        ("healthy.offline.share < 1%", 120 / (20 * 43_200 + 120), "pass"),
        ("live.share > 80%", 0.875, "pass"),
        ("presence.gaps.count == 0", 0.0, "pass"),
        ("presence.gaps.share < 1%", 0.0, "pass"),
    ],
)
def test_losses_of_healthy_clients(expression: str, value: float, expected: str) -> None:
    found, measured, _ = verdict(expression, TWO_LOST)
    assert found == expected
    assert measured == pytest.approx(value)


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ([("19", "middle", "", "", False), ("18", "gateway", "", "", False)], "fail"),
        ([("19", "middle", "", "", False)], "pass"),  # one of twenty: 5 %
        ([("19", "middle", "storm", "", False), ("18", "gateway", "", "", True)], "pass"),
        ([("19", "drain", "", "", False), ("18", "take_over", "", "", False)], "pass"),
        ([("19", "gateway", "", "delayed", False), ("18", "gateway", "", "delayed", False)], "pass"),
    ],
)
def test_a_run_that_loses_healthy_clients_is_red_without_a_threshold(
    lost: list[tuple[str, str, str, str, bool]], expected: str
) -> None:
    run = losing(*KEPT, *lost, *[("20", "", "", "", False)][: 2 - len(lost)])
    row, _ = default_thresholds([], run).itertuples()
    assert row.verdict == expected
    assert default_thresholds([], run, unsound=True)["verdict"].tolist() == ["unknown", "unknown"]
    said = [
        parse_threshold(text, FAULTS) for text in ("healthy.losses.count < 99", "presence.gaps.count < 9")
    ]
    assert default_thresholds(said, run).empty


@pytest.mark.parametrize(
    ("hidden_s", "expected"), [(43_200.0, "pass"), (43_201.0, "fail")]
)  # of 20 half days
def test_a_run_that_hides_clients_who_live_is_red_without_a_threshold(hidden_s: float, expected: str) -> None:
    kept = losing(*KEPT, ("18", "", "", "", False), ("19", "", "", "", False))
    gap = frame("presence_gaps", [("real", "s", "0", 1.0, 1.0, hidden_s, False)])
    held, lost = kept.table("healthy_connections"), kept.table("losses")
    run = tables(healthy_connections=held, losses=lost, population=LIVE, presence_gaps=gap)
    _, row = default_thresholds([], run).itertuples()
    assert (row.expression, row.verdict) == ("presence.gaps.share <= 5% (default)", expected)


def test_a_target_is_asked_only_what_a_witness_of_it_sees(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(first_target("ws://127.0.0.1:8000/ws?user={client}", "30s", "10s", 3))
    seen_by_nobody = ("false_suspicions.count == 0", "detection_latency{fault=host_crash}.p99 < 101s")
    scenario = load_scenario("host_crash", speedup=1.0, target=str(tmp_path / "mine.yaml"))
    assert set(seen_by_nobody) <= set(scenario.thresholds)
    with pytest.raises(ThresholdError, match="no witness of mine sees suspected"):
        check_thresholds(scenario)
    kept, left_out = with_what_is_seen(scenario)
    assert set(seen_by_nobody) <= set(left_out)
    assert len(check_thresholds(kept)) == len(scenario.thresholds) - len(left_out)
    assert with_what_is_seen(load_scenario("host_crash"))[1] == (), "our own gateway has them all"
