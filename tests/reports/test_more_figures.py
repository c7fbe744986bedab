"""Figures of comparisons, tuning, capacity, claims and storms."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from reports.figures.before_after import before_after
from reports.figures.capacity import capacity
from reports.figures.claims import claims
from reports.figures.data import NothingToDraw
from reports.figures.heat_map import heat_map
from reports.figures.pareto import pareto
from reports.figures.storm import storm
from reports.style import save

pytestmark = pytest.mark.pictures

RUNS = ("before", "after")


def survival() -> pd.DataFrame:
    rows = []
    for run, later in zip(RUNS, (0.0, 30.0), strict=True):
        for fault, lo in (("host_crash", 70.0), ("refresh", 0.0)):
            for n, t in enumerate(np.linspace(lo, lo + 30, 31)):
                left = 1 - n / 30
                at = 0.0 if n == 0 else t + later
                rows.append(
                    (
                        "real",
                        fault,
                        "suspected",
                        at,
                        left,
                        max(0.0, left - 0.05),
                        min(1.0, left + 0.05),
                        448,
                        run,
                    )
                )
    columns = ["engine", "fault", "milestone", "duration_s", "survival", "lo", "hi", "at_risk", "run"]
    return pd.DataFrame(rows, columns=columns)


def changes(verdict: str = "fail", difference_s: float = 30.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "candidate": ["after"],
            "fault": ["host_crash"],
            "milestone": ["suspected"],
            "p50_before_s": [85.0],
            "p50_after_s": [85.0 + difference_s],
            "p50_difference_s": [difference_s],
            "p50_lo_s": [difference_s - 1],
            "p50_hi_s": [difference_s + 1],
            "verdict": [verdict],
            "reason": ["faster: p50 moved" if difference_s < -3 else ""],
        }
    )


def policies() -> pd.DataFrame:
    grid = [(t, k) for t in (5.0, 10.0, 20.0, 30.0, 60.0) for k in (1, 2, 3, 4)]
    table = pd.DataFrame(grid, columns=["interval_s", "max_failures"])
    patience = (table["max_failures"] - 1) * table["interval_s"] + 5
    return table.assign(
        timeout_s=5.0,
        detect_p99_s=patience + 0.99 * table["interval_s"],
        false_per_client_day=20 * np.exp(-patience / 6),
        frames_per_s=2000 / table["interval_s"],
        feasible=table["max_failures"] > 2,
        pareto=table["max_failures"] != 4,
        recommended=(table["interval_s"] == 20) & (table["max_failures"] == 3),
    )


def steps() -> pd.DataFrame:
    clients = np.array([10_000, 40_000, 70_000, 80_000])
    return pd.DataFrame(
        {
            "clients": clients,
            "lateness_p99_s": [0.001, 0.004, 0.03, 0.22],
            "cpu_percent": clients / 900,
            "rss_bytes": 9e7 + clients * 12 * 1024.0,
            "holds": [True, True, True, False],
        }
    )


def nodes() -> pd.DataFrame:
    return pd.DataFrame({"nodes": [1, 2, 4], "clients": [70_000, 133_000, 236_000]})


def law() -> pd.DataFrame:
    n = np.linspace(0, 8, 33)
    clients = 70_000 * n / (1 + 0.04 * (n - 1) + 0.004 * n * (n - 1))
    return pd.DataFrame({"nodes": n, "clients": clients, "lo": clients * 0.9, "hi": clients * 1.1})


def claimed(**changed: Any) -> pd.DataFrame:
    row = {
        "case": "network cut",
        "preset": "as meant",
        "claim_lo_s": 30.0,
        "claim_hi_s": 90.0,
        "engine": "real",
        "n": 60,
        "lo_s": 70.0,
        "p50_s": 85.0,
        "hi_s": 100.0,
        "detected": 1.0,
        "verdict": "fail",
    }
    never = {
        "case": "frozen",
        "preset": "as written",
        "lo_s": np.nan,
        "p50_s": np.nan,
        "hi_s": np.nan,
        "detected": 0.0,
    }
    return pd.DataFrame([{**row, **changed}, {**row, "engine": "simulated"}, {**row, **never}])


def coming(engine: str = "real") -> pd.DataFrame:
    times = np.arange(0.0, 300.0, 2.0)
    in_ramp, cut, back = times < 60, (times >= 100) & (times < 112), (times >= 130) & (times < 140)
    return pd.DataFrame(
        {
            "engine": engine,
            "time_s": times,
            "width_s": 2.0,
            "disconnected": np.where(cut, 80, 0),
            "connected": np.where(in_ramp, 20, np.where(back, 96, 0)),
            "resumed": np.where(back, 96, 0),
            "session_unknown": np.where(back, 9, 0),
            "logged_in": np.where(in_ramp, 20, 0),
            "login_refused": 0,
        }
    )


WINDOW = [{"fault": "network_cut", "start_s": 100.0, "end_s": 101.0}]
DRAW: dict[str, Callable[[], Figure]] = {
    "before_after": lambda: before_after(
        survival(), changes(), labels=RUNS, faults=["host_crash", "refresh"]
    ),
    "heat_map": lambda: heat_map(policies()),
    "pareto": lambda: pareto(policies(), latency_limit_s=60, mistake_limit=0.03),
    "capacity": lambda: capacity(
        steps(), knee_clients=70_000, lateness_limit_s=0.1, scaling=nodes(), law=law()
    ),
    "claims": lambda: claims(claimed()),
    "storm": lambda: storm(pd.concat([coming(), coming("simulated")]), WINDOW, caption="seed 7."),
}
NOTHING: dict[str, Callable[[], Figure]] = {
    "before_after": lambda: before_after(survival().iloc[:0], changes(), labels=RUNS, faults=["host_crash"]),
    "heat_map": lambda: heat_map(policies().iloc[:0]),
    "pareto": lambda: pareto(policies().iloc[:0]),
    "capacity": lambda: capacity(steps().iloc[:0]),
    "claims": lambda: claims(claimed().iloc[:0]),
    "storm": lambda: storm(coming().iloc[:0]),
}


def written(figure: Figure) -> str:
    texts = [found for found in figure.findobj(Text) if isinstance(found, Text)]
    return "\n".join(text.get_text().replace("\u00a0", " ") for text in texts if text.get_visible())


@pytest.mark.parametrize("name", DRAW)
def test_each_figure_is_readable_at_slide_size_and_nothing_is_cut_off(name: str) -> None:
    figure = DRAW[name]()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert width == 12.8
    sizes = [
        float(text.get_fontsize())
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_visible() and text.get_text()
    ]
    assert min(sizes) >= 11
    box = figure.get_tightbbox()
    assert -0.02 <= box.x0 < box.x1 <= width + 0.02
    assert -0.02 <= box.y0 < box.y1 <= height + 0.02


@pytest.mark.parametrize("name", DRAW)
def test_it_looks_the_same_each_time(name: str, tmp_path: Path) -> None:
    """The picture, not the SVG's text: the layout's solver may differ in the sixth digit of a point."""
    _, first = save(DRAW[name](), tmp_path / "1", name)
    _, second = save(DRAW[name](), tmp_path / "2", name)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", NOTHING)
def test_a_figure_without_data_says_so_in_a_sentence(name: str) -> None:
    with pytest.raises(NothingToDraw, match=r"^No .*\.$"):
        NOTHING[name]()


@pytest.mark.parametrize(
    ("verdict", "difference_s", "text"),
    [
        ("fail", 30.0, "p50 +30.00 s (+29.00 to +31.00): slower"),
        ("pass", -3.0, "p50 −3.00 s (−4.00 to −2.00): no slower"),
        ("pass", -9.0, "p50 −9.00 s (−10.00 to −8.00): faster"),
        ("unknown", 0.5, "p50 +0.500 s (−0.500 to +1.50): undecided"),
        ("fail", np.inf, "p50 85.00 → never: slower"),
    ],
)
def test_before_and_after_says_what_became_of_the_median(
    verdict: str, difference_s: float, text: str
) -> None:
    found = written(
        before_after(survival(), changes(verdict, difference_s), labels=RUNS, faults=["host_crash"])
    )
    assert text in found
    assert "host_crash  (n = 448)" in found
    assert "before (baseline)" in found


@pytest.mark.parametrize(("runs", "drawn"), [(["before", "after"], True), (["before"], False)])
def test_before_and_after_draws_theory_where_every_run_has_a_law(runs: list[str], drawn: bool) -> None:
    law = pd.DataFrame({"fault": "host_crash", "milestone": "suspected", "duration_s": [70.0, 100.0]})
    laws = pd.concat([law.assign(run=run, probability=[0.0, 1.0]) for run in runs])
    figure = before_after(survival(), changes(), labels=RUNS, faults=["host_crash"], law_curves=laws)
    black = [line for line in figure.axes[0].lines if line.get_color() == "#000000"]
    assert (len(black), "theory of each" in written(figure)) == ((2, True) if drawn else (0, False))


def test_before_and_after_refuses_more_runs_than_it_has_colours() -> None:
    with pytest.raises(ValueError, match="allowed in one figure: 6"):
        before_after(survival(), changes(), labels=list("abcdefg"), faults=["host_crash"])


def test_the_heat_map_writes_every_number_and_frames_what_fits() -> None:
    figure = heat_map(policies())
    latency, *_ = figure.get_axes()
    numbers = [text.get_text() for text in latency.texts]
    assert len(numbers) == len(policies())
    assert numbers[0] == "9.9"  # T = 5, k = 1: 5 + 0.99 × 5 s, two digits
    framed = [patch for patch in latency.patches if not patch.get_fill()]
    assert len(framed) == policies()["feasible"].sum() + 1  # and the recommended one


def test_a_heat_map_of_many_intervals_keeps_the_recommended_one() -> None:
    many = pd.DataFrame({"interval_s": np.arange(1.0, 101.0), "max_failures": 3})
    many = many.assign(
        detect_p99_s=many["interval_s"] * 3,
        false_per_client_day=0.0,
        feasible=True,
        frames_per_s=2000 / many["interval_s"],
        recommended=many["interval_s"] == 33.0,
    )
    axes = heat_map(many).get_axes()[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) <= 13
    assert "33" in shown


def test_a_heat_map_of_two_policies_in_one_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="two policies"):
        heat_map(pd.concat([policies(), policies()]))


def test_a_bound_beyond_every_policy_is_on_the_axes_and_the_box_hides_no_front() -> None:
    table = policies()
    figure = pareto(table, latency_limit_s=9000, mistake_limit=1e-5)
    (axes,) = figure.get_axes()
    assert axes.get_xlim()[1] > 9000
    assert axes.get_ylim()[0] < 1e-5
    figure.canvas.draw()
    (box,) = (text.get_window_extent() for text in axes.texts if "recommended" in text.get_text())
    front = table.loc[table["pareto"], ["detect_p99_s", "false_per_client_day"]].clip(lower=1e-6).to_numpy()
    assert not any(box.contains(*axes.transData.transform(point)) for point in front)


def test_the_pareto_line_never_rises() -> None:
    (axes,) = pareto(policies()).get_axes()
    line = np.asarray(axes.lines[0].get_ydata(), dtype=float)
    assert (np.diff(line) <= 0).all()
    assert "recommended: T = 20 s, k = 3, τ = 5 s" in written(pareto(policies()))


def test_capacity_says_the_knee_and_what_a_client_takes() -> None:
    text = written(DRAW["capacity"]())
    assert "knee: 70,000 clients" in text
    assert "12.0 KiB a client" in text
    assert "threshold: 100 ms" in text


def test_capacity_draws_what_was_measured_and_nothing_else() -> None:
    text = written(capacity(steps().assign(rss_bytes=np.nan)))
    assert "Processor of the gateways (%)" in text
    assert "Memory" not in text
    assert "by number of nodes" not in text
    assert "knee" not in text


def test_claims_are_judged_beside_what_was_seen() -> None:
    text = written(claims(claimed()))
    assert "85.00 s: does not hold" in text
    assert "never: does not hold" in text
    assert "60" in text
    partly = written(claims(claimed(detected=0.93, verdict="pass")))
    assert "85.00 s, 93 % detected: holds" in partly
    back = written(claims(claimed(recovered=20, detected=0.0, p50_s=np.nan, verdict="pass")))
    assert "resumed: holds" in back


def test_the_numbers_on_the_axis_of_two_hours_do_not_run_into_each_other() -> None:
    figure = claims(claimed(claim_hi_s=7200.0))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert len(boxes) >= 8
    assert all(right.x0 - left.x1 > 4 for left, right in pairwise(boxes))


def test_a_storm_says_how_many_come_back_at_once() -> None:
    text = written(storm(coming(), WINDOW))
    assert "48 a second come back" in text  # 96 in spans of 2 s; the ramp's own arrivals are none
    assert "login refused" not in text, "what did not happen has no legend"
