from __future__ import annotations

import html as markup
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from reports import numbers
from reports.page import Table
from reports.run_tables import SCHEMAS, load_run
from reports.sections.cost import cost_section
from reports.sections.sessions import sessions_section
from reports.verdict import as_junit
from tests.reports.handmade_run import DEMO, Built, Fault, HandmadeRun, build, handmade_run, judged
from tests.support import blank

pytestmark = pytest.mark.pictures

ONE = {"host_crash": Fault(30, "heartbeat", 70.0, 100.0)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """With every figure; that they can be rendered is tested where they are looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.style._render", blank)
        return build(handmade_run().write(tmp_path_factory.mktemp("run")))


def plain(text: str) -> str:
    """Both formats without their escapes."""
    return markup.unescape(re.sub(r"\\([\\|*_<`])", r"\1", text))


def html_rows(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.S)
    found = []
    for row in rows:
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.S)
        texts = [re.sub(r"<small>(.*?)</small>", r" (\1)", cell) for cell in cells]
        found.append([plain(text).strip() for text in texts])
    return found


def markdown_rows(page: str) -> list[list[str]]:
    return [
        [plain(cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.splitlines()
        if line.startswith("|")
    ]


def test_the_verdict_comes_first(whole: Built) -> None:
    assert whole.headline.status == "pass"
    assert whole.exit_code == 0
    page = whole.html.read_text()
    assert page.index("✓ pass") < page.index("How to read this") < page.index('id="overview"')


def test_the_page_needs_no_network(whole: Built) -> None:
    page = whole.html.read_text()
    for target in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert not re.match(r"(?:https?:)?//", target), target
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in page
        elif not target.startswith("data:"):
            assert (whole.html.parent / target).is_file(), target
    assert "@import" not in page
    assert "url(" not in page


def test_every_figure_is_in_the_page_and_beside_it(whole: Built) -> None:
    page = whole.html.read_text()
    saved = sorted(path.stem for path in (whole.html.parent / "figures").glob("*.svg"))
    assert saved == sorted(path.stem for path in (whole.html.parent / "figures").glob("*.png"))
    assert len(saved) == 7 + len(DEMO)  # a timeline for each fault
    assert "competing_layers" in saved, "some of network_cut recover"
    assert "storm" not in saved, "nobody came or went en masse"
    assert page.count("data:image/svg+xml;base64,") == len(saved)
    for name in saved:
        assert f"figures/{name}.png" in whole.markdown.read_text()


def test_html_and_markdown_say_the_same(whole: Built) -> None:
    shown = html_rows(whole.html.read_text())
    listed = [row for row in markdown_rows(whole.markdown.read_text()) if row in shown]
    tables = [row for row in markdown_rows(whole.markdown.read_text()) if not set("".join(row)) <= set("-: ")]
    headings_and_facts = (
        2 + whole.markdown.read_text().count("\n| --- ") + whole.markdown.read_text().count("\n| ---:")
    )
    assert len(tables) - len(listed) <= headings_and_facts
    assert len(listed) > 60


def test_the_pages_numbers_are_those_of_the_csv(whole: Built) -> None:
    qos = pd.read_csv(whole.html.parent / "qos.csv")
    for rows in (html_rows(whole.html.read_text()), markdown_rows(whole.markdown.read_text())):
        for row in qos[qos["milestone"].isin(["suspected", "store_cleared"])].to_dict("records"):
            expected = [row["fault"], row["engine"], numbers.count(row["n"])]
            mine = [r for r in rows if len(r) == 9 and r[:3] == expected]
            p50, lo = (numbers.seconds(row[name]) for name in ("p50_s", "p50_lo_s"))
            if row["p50_s"] != row["p50_s"]:
                p50 = "too few noticed" + (f" (at least {lo})" if lo != numbers.ABSENT else "")
            elif row["p50_lo_s"] == row["p50_lo_s"]:
                p50 += f" ({numbers.time_span(row['p50_lo_s'], row['p50_hi_s'], unit=False)})"
            assert any(r[5] == p50 and r[8] == numbers.seconds(row["max_s"]) for r in mine), row


def rows_of(result: Built) -> tuple[list[list[str]], list[list[str]]]:
    return html_rows(result.html.read_text()), markdown_rows(result.markdown.read_text())


def test_what_became_of_sessions_is_that_of_the_csv(whole: Built) -> None:
    table = pd.read_csv(whole.html.parent / "session_quality.csv", keep_default_na=False)
    groups = table.groupby(["figure", "fault"], sort=False)
    for rows in rows_of(whole):
        shown = [row[2:4] for row in rows if len(row) == 5]
        for _, group in groups:
            cells = []
            for row in group.to_dict("records"):
                of, cell = int(row["denominator"]), f"{numbers.ABSENT} (nothing to count)"
                if of:
                    share, lo, hi = (numbers.share(float(row[n])) for n in ("share", "lo", "hi"))
                    cell = f"{share} ({row['count']} of {of}; {lo} to {hi})"
                cells.append(cell)
            assert cells in shown, cells


def test_where_nothing_was_counted_and_nobody_saw_a_cost_there_is_no_row_of_dashes(tmp_path: Path) -> None:
    run = handmade_run(ONE)
    run.tables["session_quality"]["denominator"] = 0
    run.tables["cost"][["gateway_cpu_percent", "gateway_rss_bytes"]] = float("nan")
    tables = load_run(run.write(tmp_path))
    sessions = [block for block in sessions_section(tables, {}).blocks if isinstance(block, Table)]
    (cost,) = (block for block in cost_section(tables).blocks if isinstance(block, Table))
    assert not sessions
    assert cost.rows and all(any(cell.text != numbers.ABSENT for cell in row[1:]) for row in cost.rows)
    assert "CPU" not in cost.note


def test_the_cost_is_that_of_the_csv(whole: Built) -> None:
    table = pd.read_csv(whole.html.parent / "cost.csv").set_index("engine")
    formats: dict[str, Callable[[float], str]] = {
        "clients": numbers.count,
        "heartbeats_per_s": numbers.rate,
        "frames_per_s": numbers.rate,
        "bytes_per_s": numbers.rate,
        "redis_operations_per_s": numbers.rate,
        "gateway_cpu_percent": numbers.percent,
        "gateway_rss_bytes": numbers.size_bytes,
    }
    assert list(table.index) == ["theory", "simulated", "real"]
    for rows in rows_of(whole):
        shown = [row[1:] for row in rows if len(row) == 4]
        for name, text in formats.items():
            assert [text(value) for value in table[name]] in shown, name
    for page in (whole.html.read_text(), whole.markdown.read_text()):
        assert (
            "Cost (counted by the gateway): 612 connections take 40.2 frames and 2,955 bytes a second "
            "(theory: 40.8 and 2,999, and 0.180 Redis operations); a gateway process took 7.25\u00a0% of a core "
            "and at most 70\u00a0MiB."
        ) in plain(page)


def test_layers_and_omission_are_those_of_the_csv(whole: Built) -> None:
    last = pd.read_csv(whole.html.parent / "incidence.csv").groupby(["fault", "engine", "cause"]).tail(1)
    lag = pd.read_csv(whole.html.parent / "omission.csv")
    for rows in rows_of(whole):
        for row in last[last["cause"] != "recovered"].to_dict("records"):
            cell = numbers.share(row["incidence"])
            if row["lo"] == row["lo"]:
                cell += f" ({numbers.share(row['lo'])} to {numbers.share(row['hi'])})"
            head = [row["fault"], row["engine"], numbers.cause_name(row["cause"])]
            assert any(r[:3] == head and r[5] == cell for r in rows if len(r) == 7), row
    for row in lag[lag["engine"] == "real"].to_dict("records"):
        names = ("late_p50_s", "late_max_s", "p50_s", "p50_longest_s", "p99_s", "p99_longest_s")
        cells = [row["fault"], str(row["planned"]), str(row["injected"])]
        cells += [numbers.seconds(row[name]) for name in names]
        assert cells in html_rows(whole.html.read_text()), row
    page = plain(whole.html.read_text())
    assert (
        "Counted so, no p50 is more than 0.020\u00a0s longer, no p99 is more than 0.020\u00a0s longer."
        in page
    )


@pytest.fixture(scope="module")
def of_one_fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade_run(ONE).write(tmp_path_factory.mktemp("one"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.build.draw", lambda *_: {})


@pytest.mark.usefixtures("undrawn")  # figures are tested without tables as well
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_report_without_one_of_its_tables(of_one_fault: Path, tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(of_one_fault, tmp_path / "run"))
    (run / f"{name}.csv").unlink(missing_ok=True)
    assert "What it costs" in build(run).html.read_text()


def test_a_sample_too_small_says_so(whole: Built) -> None:
    page = whole.html.read_text()
    assert "no interval" in page
    assert "a p95 72, a p99 368" in page


def test_agreement_csv_keeps_full_precision(whole: Built) -> None:
    table = pd.read_csv(whole.html.parent / "agreement.csv")
    row = table[(table["figure"] == "p50") & (table["left"] == "real") & (table["right"] == "theory")].iloc[0]
    assert row["left_s"] - row["right_s"] == pytest.approx(row["difference_s"], abs=1e-12)


def test_what_a_reviewer_asks_is_answered(whole: Built) -> None:
    page = plain(whole.html.read_text())
    for answer in (
        "False suspicions: 0 in 0.260 healthy client-days; at most 14.2 a client-day",
        "Ghosts: at most",
        "one-way delay 0.200\u00a0ms",
        "a socket filter drops every inbound segment",
        "websockets",
        "No storm: never within ten seconds",
        "Coordinated omission: every fault’s time was fixed before the run",
        "Sessions in the store also count new ones of dead users",
        "versions: flatline",
    ):
        assert answer in page, answer


@pytest.mark.usefixtures("undrawn")
def test_a_moved_report_can_be_built_again(tmp_path: Path) -> None:
    first = build(handmade_run(ONE).write(tmp_path / "here"))
    once = first.html.read_text()
    moved = first.html.parent.rename(tmp_path / "there")
    second = build(moved)
    assert second.headline == first.headline
    assert second.html.parent == moved
    assert second.html.read_text() == once


def _gateway_with_two_failures(run: HandmadeRun) -> None:
    other = handmade_run(ONE, gateway_faults={"host_crash": Fault(30, "heartbeat", 40.0, 70.0)})
    run.tables.update(other.tables)
    run.summary["negative_control"] = {"max_failures": 2}


def _missed(run: HandmadeRun) -> None:
    run.tables["thresholds"]["verdict"] = ["fail", "pass"]


def _unsound(run: HandmadeRun) -> None:
    run.summary |= {"sound": False, "unsound_reasons": ["the generator's loop was 900 ms late"]}


def _partial(run: HandmadeRun) -> None:
    run.summary["status"] = "partial"


def _interrupted(run: HandmadeRun) -> None:
    _partial(run)
    run.provenance["status"] = "partial"


def _undecided(run: HandmadeRun) -> None:
    run.tables["thresholds"]["verdict"] = ["pass", "unknown"]


@pytest.mark.parametrize(
    ("bend", "verdict", "exit_code", "sentence"),
    [
        (_gateway_with_two_failures, "fail", 99, "negative control: the gateway ran another policy"),
        (_missed, "fail", 99, "missed: false_suspicions.count == 0"),
        (_unsound, "unknown", 3, "the generator's loop was 900 ms late"),
        (_interrupted, "partial", 97, "the run was interrupted"),
        (_partial, "partial", 97, "a log lacks the run's end"),
        (_undecided, "unknown", 97, "undecided: detection_latency{fault=host_crash}.p99 < 101s"),
    ],
)
def test_verdicts(
    tmp_path: Path, bend: Callable[[HandmadeRun], None], verdict: str, exit_code: int, sentence: str
) -> None:
    run = handmade_run(ONE)
    bend(run)
    _, _, found = judged(load_run(run.write(tmp_path)))
    assert (found.headline.status, found.exit_code) == (verdict, exit_code)
    assert any(sentence in reason for reason in found.headline.reasons)


@pytest.mark.usefixtures("undrawn")
def test_faults_of_an_unsound_run_do_not_pass(tmp_path: Path) -> None:
    run = handmade_run(ONE)
    _unsound(run)
    built = build(run.write(tmp_path))
    page = built.html.read_text()
    assert "? unsound run" in page[page.index('id="overview"') : page.index('id="thresholds"')]
    assert (built.agreement.passed, built.agreement.failed) == (0, 0)
    section = page[page.index('<section id="agreement"') :]
    section = section[: section.index("</section>")]
    assert "✓" not in section and "within its tolerance, but the run is unsound" in section
    junit = ElementTree.fromstring(as_junit(load_run(tmp_path)))
    agreement = [case for case in junit if case.attrib["classname"].endswith(".agreement")]
    assert agreement and all(case.find("skipped") is not None for case in agreement)


@pytest.mark.usefixtures("undrawn")
def test_a_red_report_says_what_is_wrong(tmp_path: Path) -> None:
    """Interrupted as well, by a command that knows its own exit code; and its texts are text."""
    run = handmade_run(ONE)
    _gateway_with_two_failures(run)
    run.summary["description"] = "<script>alert(1)</script> *a* | b"
    result = build(run.write(tmp_path), exit_code=130)
    page, listed = result.html.read_text(), result.markdown.read_text()
    for text in (plain(page), plain(listed)):
        assert "✗ fail" in text
        assert "negative control" in text
        assert "30 of 30 detections lie outside [70.00\u00a0s, 100.0\u00a0s]" in text
    assert "<script>alert" not in page
    assert "\\*a\\* \\| b" in listed


def _no_detection(run: HandmadeRun) -> None:
    d = run.tables["detections"]
    d["outcome"], d["duration_s"], d["cause"] = "not_applicable", float("nan"), ""


def _all_censored(run: HandmadeRun) -> None:
    d = run.tables["detections"]
    d["outcome"], d["duration_s"], d["cause"] = "censored", 20.0, ""


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("bend", [_no_detection, _all_censored])
def test_a_run_without_a_detection(tmp_path: Path, bend: Callable[[HandmadeRun], None]) -> None:
    from harness.measure import quality_of_service as qos
    from harness.measure.quality_of_service import incidence_by_cause

    run = handmade_run(ONE)
    bend(run)
    d = run.tables["detections"]
    run.tables |= {
        "qos": qos.qos(d),
        "survival": qos.survival(d),
        "detections_by_layer": qos.detections_by_layer(d),
        "incidence": incidence_by_cause(d),
    }
    result = build(run.write(tmp_path))
    assert result.agreement.verdict == "unknown"
    assert "no fault was detected in this run" in result.html.read_text()


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("engines", [("theory", "simulated"), ("theory",), ("real",)])
def test_an_engine_that_is_not_there(tmp_path: Path, engines: tuple[str, ...]) -> None:
    run = handmade_run(ONE, engines=engines)
    result = build(run.write(tmp_path))
    missing = [engine for engine in ("theory", "simulated", "real") if engine not in engines]
    page = result.html.read_text()
    assert f"Not part of this run: {', '.join(missing)}." in page
    if "real" not in engines:
        assert "There was no real run" in page


@pytest.mark.usefixtures("unrendered")
def test_an_empty_directory_still_reports(tmp_path: Path) -> None:
    result = build(tmp_path)
    assert result.headline.status == "unknown"
    page = result.html.read_text()
    for sentence in (
        "No fault was measured in this run.",
        "No threshold was checked",
        "There is no latency to show",
        "Nothing could be compared",
        "No client was traced",
        "The run does not say what ran",
        "What became of sessions is not known",
        "What it costs is not known",
    ):
        assert sentence in page, sentence
