from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import figures
from reports.figures.data import peaks, thinned
from reports.run_tables import RunTables, load_run
from reports.style import save
from tests.reports.handmade_run import handmade_run, judged

pytestmark = pytest.mark.pictures

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    return load_run(handmade_run().write(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    return load_run(tmp_path_factory.mktemp("empty"))


def agreement_of(tables: RunTables) -> pd.DataFrame:
    return judged(tables)[0].table("agreement")


DRAW: dict[str, Callable[[RunTables], Figure]] = {
    "detection_curves": lambda t: figures.detection_curves(
        t.table("law_curves"), t.table("survival"), caption="c"
    ),
    "latency_by_layer": lambda t: figures.latency_by_layer(t.table("detections"), t.table("laws")),
    "layers": lambda t: figures.layers(t.table("detections")),
    "timeline": lambda t: figures.timeline(t.table("timelines"), "host_crash"),
    "live_sessions": lambda t: figures.live_sessions(t.table("population"), t.records("fault_windows")),
    "lateness": lambda t: figures.lateness(t.table("lag"), t.table("lateness"), pace=5.0),
    "competing": lambda t: figures.competing(t.table("incidence")),
    "agreement_chart": lambda t: figures.agreement_chart(agreement_of(t)),
}


@pytest.fixture(scope="module", params=DRAW)
def laid_out(request: pytest.FixtureRequest, run: RunTables) -> Figure:
    figure = DRAW[request.param](run)
    figure.draw_without_rendering()
    return figure


def test_each_figure_is_readable_at_slide_size(laid_out: Figure) -> None:
    figure = laid_out
    assert figure.get_size_inches()[0] == 12.8
    texts = [text for text in figure.findobj() if hasattr(text, "get_fontsize") and text.get_visible()]
    assert min(text.get_fontsize() for text in texts if getattr(text, "get_text", str)()) >= 11
    for axes in figure.get_axes():
        if axes.get_visible():
            assert axes.get_xlabel() or axes.get_shared_x_axes().joined(axes, figure.get_axes()[-1])


def test_nothing_of_a_figure_is_cut_off(laid_out: Figure) -> None:
    figure = laid_out
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert -0.02 <= box.x0 < box.x1 <= width + 0.02
    assert -0.02 <= box.y0 < box.y1 <= height + 0.02


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_without_data_says_so_in_a_sentence(name: str, nothing: RunTables) -> None:
    with pytest.raises(figures.NothingToDraw, match=r"^No .*\.$"):
        DRAW[name](nothing)


@pytest.mark.parametrize("name", ["layers", "detection_curves"])
def test_a_figure_is_saved_as_svg_and_png_the_same_each_time(
    name: str, run: RunTables, tmp_path: Path
) -> None:
    """Of several panels, too: there the layout's solver is off by another last bit each time."""
    saved = [save(DRAW[name](run), tmp_path / str(n), name) for n in range(5)]
    assert len({svg.read_bytes() for svg, _ in saved}) == 1
    assert len({png.read_bytes() for _, png in saved}) == 1
    assert saved[0][0].read_text().startswith("<?xml")
    assert saved[0][1].read_bytes().startswith(b"\x89PNG")


def test_a_server_that_tells_nothing_of_its_heartbeats_has_no_empty_panel_but_a_sentence(
    run: RunTables,
) -> None:
    figure = figures.lateness(run.table("lag"), run.table("lateness").iloc[:0])
    assert [bool(axes.get_lines()) for axes in figure.get_axes()] == [True]
    assert "Nobody logged how late heartbeats were sent." in [text.get_text() for text in figure.texts]


def test_what_does_not_count_for_epsilon_is_grey(run: RunTables) -> None:
    lag, late = run.table("lag"), run.table("lateness")
    panel = figures.lateness(lag, late, window_s=(70.0, 250.0)).axes[0]
    before, after = (
        patch.get_window_extent().transformed(panel.transData.inverted()) for patch in panel.patches
    )
    assert (before.x1, after.x0) == pytest.approx((70.0, 250.0))
    assert not figures.lateness(lag, late, window_s=(0.0, np.inf)).axes[0].patches


def storm_rows(back: int, each_s: int) -> pd.DataFrame:
    """A thousand clients; after the ramp so many lose their connection, spread over so many seconds."""
    rows = [("real", float(n), 1.0, 0, 20, 0, 0, 20, 0) for n in range(50)]
    rows += [("real", 50.0 + n, 1.0, back // each_s, 0, 0, 0, 0, 0) for n in range(each_s)]
    columns = [
        "engine",
        "time_s",
        "width_s",
        "disconnected",
        "connected",
        "resumed",
        "session_unknown",
        "logged_in",
        "login_refused",
    ]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("back", "each_s", "stormy"),
    [(0, 1, False), (190, 1, False), (200, 1, True), (200, 10, True), (400, 100, False)],
)
def test_a_storm_is_a_fifth_within_ten_seconds(back: int, each_s: int, stormy: bool) -> None:
    rows = storm_rows(back, each_s)
    assert figures.en_masse(rows) is stormy
    returns = rows.assign(resumed=rows["disconnected"], disconnected=0)
    assert figures.en_masse(returns) is stormy, "coming back counts as well"
    assert figures.en_masse(rows.iloc[:50]) is False, "a ramp is no storm"


@pytest.mark.parametrize(
    ("rows", "contested"),
    [
        ([("simulated", "heartbeat"), ("real", "heartbeat")], False),
        ([("simulated", "heartbeat"), ("real", "")], False),
        ([("simulated", "heartbeat"), ("real", "tcp_timeout")], True),
        ([("real", ""), ("real", "recovered")], True),
    ],
)
def test_layers_compete_where_one_engine_saw_two_or_two_engines_name_different_ones(
    rows: list[tuple[str, str]], contested: bool
) -> None:
    table = pd.DataFrame(rows, columns=["engine", "cause"]).assign(fault="frozen")
    assert figures.contested(table) == ["frozen"] * contested


def test_competing_layers_end_at_what_the_table_says(run: RunTables) -> None:
    table = run.table("incidence")
    assert figures.contested(table) == ["network_cut"]
    levels = last_levels(figures.competing(table).get_axes()[0])
    last = table[table["fault"] == "network_cut"].groupby(["engine", "cause"]).tail(1)
    assert {round(value, 9) for value in last["incidence"]} <= levels


def last_levels(axes: Axes) -> set[float]:
    return {round(float(np.asarray(line.get_ydata(), dtype=float).flat[-1]), 9) for line in axes.get_lines()}


def test_curves_show_what_the_tables_say(run: RunTables) -> None:
    figure = figures.detection_curves(
        run.table("law_curves"), run.table("survival"), faults=["host_crash", "network_cut"]
    )
    titles = [axes.get_title(loc="left") for axes in figure.get_axes() if axes.get_visible()]
    assert titles == ["host_crash", "network_cut"]
    cut = figure.get_axes()[1]
    qos = run.table("qos")
    for engine in ("simulated", "real"):
        row = qos[
            (qos["engine"] == engine) & (qos["fault"] == "network_cut") & (qos["milestone"] == "suspected")
        ]
        share = round(float((row["detected"] / row["n"]).iloc[0]), 9)
        assert share in last_levels(cut), engine
    assert 0.4 in last_levels(cut), "theory's mass"


def test_a_fault_that_is_never_detected_is_a_flat_line(run: RunTables) -> None:
    flat = pd.DataFrame(
        {
            "engine": "real",
            "fault": "nat",
            "milestone": "suspected",
            "duration_s": [0.0, 140.0],
            "survival": 1.0,
            "lo": 1.0,
            "hi": 1.0,
            "at_risk": 19.0,
        }
    )
    figure = figures.detection_curves(run.table("law_curves").iloc[:0], flat)
    notes = [text.get_text() for text in figure.get_axes()[0].texts]
    assert any("no detection" in note and "0% detected" in note for note in notes)


@pytest.mark.parametrize(
    ("times_s", "lost", "epsilon_s", "expected"),
    [
        (
            (0.004, 0.031),
            0,
            0.75,
            "x: suspected at one moment, so there is no curve to draw (real 0.0040 to 0.031",
        ),
        (
            (80.0, 80.08),
            0,
            0.0,
            "x: suspected at one moment, so there is no curve to draw (real 80.00 to 80.08",
        ),
        ((70.0, 100.0), 0, 0.75, ""),
        ((0.004, 0.031), 2, 0.75, "for 50 %, n = 4"),
        ((), 4, 0.75, "x: never suspected, so there is no curve to draw (real never, n = 4)"),
    ],
)
def test_a_curve_that_would_be_a_bare_step_is_a_sentence(
    times_s: tuple[float, ...], lost: int, epsilon_s: float, expected: str
) -> None:
    n = len(times_s) + lost
    left = [1 - k / n for k in range(len(times_s) + 1)]
    seen = pd.DataFrame(
        {"duration_s": [0.0, *times_s], "survival": left, "at_risk": [n, *range(n, n - len(times_s), -1)]}
    ).assign(engine="real", fault="x", milestone="suspected")
    law = seen.iloc[:0].assign(probability=0.0)
    said = figures.step_in_words(law, seen, "x", epsilon_s=epsilon_s).replace("\N{NO-BREAK SPACE}", " ")
    assert expected in said if expected else not said


def test_a_fault_that_one_layer_caught_whole_is_no_bar(run: RunTables) -> None:
    seen = run.table("detections")
    whole = seen[seen["fault"] == "host_crash"]
    with pytest.raises(figures.NothingToDraw, match=r"Of each fault one layer caught all.*host_crash"):
        figures.layers(whole)
    unnamed = whole.assign(cause=whole["cause"].where(whole["engine"] != "real", ""))
    with pytest.raises(
        figures.NothingToDraw, match=r"in every engine that names one \(heartbeat: host_crash\)"
    ):
        figures.layers(unnamed)
    figure = figures.layers(seen, caption="c")
    bars = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert bars
    assert not [bar for bar in bars if bar.startswith("host_crash ·")]


def test_theorys_plotting_positions_are_no_detections(run: RunTables) -> None:
    theory = run.table("detections").assign(engine="theory", cause="nobody")
    with pytest.raises(figures.NothingToDraw):
        figures.layers(theory)
    with pytest.raises(figures.NothingToDraw):
        figures.latency_by_layer(theory, run.table("laws"))


def test_a_timeline_ends_with_its_story(run: RunTables) -> None:
    """The suspicion at the end of the run, when everything is shut down, is another story."""
    rows = run.table("timelines")
    shutdown = rows[rows["kind"] == "suspected"].assign(time_s=5000.0)
    figure = figures.timeline(pd.concat([rows, shutdown]), "host_crash")
    assert figure.get_axes()[0].get_xlim()[1] < 200


def test_thinning_keeps_both_ends() -> None:
    table = pd.DataFrame({"x": range(10_000)})
    kept = thinned(table, 100)["x"]
    assert len(kept) == 100
    assert (kept.iloc[0], kept.iloc[-1]) == (0, 9999)


def test_peaks_lose_no_spike() -> None:
    times = np.arange(10_000.0)
    values = np.where(times == 4321, 9.0, 1.0)
    _, highest = peaks(times, values, 50)
    assert len(highest) <= 50
    assert highest.max() == 9.0


def test_no_global_figure_state() -> None:
    """pyplot keeps every figure alive until it is closed."""
    for path in (ROOT / "reports").rglob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not any(re.search("pyplot", name) for name in names), path
