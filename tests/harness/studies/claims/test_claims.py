"""Claims as data, their verdicts, and the whole way from presets to the page without a real run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.studies.claims.claim import Claim, load_claims
from harness.studies.claims.experiment import COLUMNS, experiment, run_claims
from harness.studies.claims.judge import Seen, Verdict, judge
from reference_server.presets import load_presets
from reports.claims_page import claims_table, write_claims_page

NAN = math.nan
WITHIN = Claim(
    presets=("b-as-meant",),
    fault="network_cut",
    milestones=("suspected",),
    text="30–90 s",
    lo=30.0,
    hi=90.0,
    source="a table",
)
NEVER = WITHIN.model_copy(update={"lo": 0.0, "hi": None, "never": True})


def seen(**changes: Any) -> Seen:
    given: dict[str, Any] = {
        "n": 20,
        "detected": 20,
        "recovered": 0,
        "lo_s": 40.0,
        "p50_s": 60.0,
        "hi_s": 80.0,
        "watched_s": NAN,
        "epsilon_s": 0.5,
    }
    return Seen(**given | changes)


NONE = {"detected": 0, "lo_s": NAN, "p50_s": NAN, "hi_s": NAN}
# what was claimed, what was seen, the verdict, a word of the reason
VERDICTS: dict[str, tuple[Claim | None, Seen, Verdict, str]] = {
    "nothing is claimed": (None, seen(), Verdict.NO_CLAIM, ""),
    "all within": (WITHIN, seen(), Verdict.HOLDS, ""),
    "within what the clocks can tell": (WITHIN, seen(lo_s=29.6, hi_s=90.4), Verdict.HOLDS, ""),
    "sooner": (WITHIN, seen(lo_s=0.001), Verdict.FAILS, "sooner"),
    "later": (WITHIN, seen(hi_s=91.0), Verdict.FAILS, "later"),
    "both": (WITHIN, seen(lo_s=1.0, hi_s=91.0), Verdict.FAILS, "later"),
    "never, and watched for long": (
        WITHIN,
        seen(**NONE, watched_s=900.0),
        Verdict.FAILS,
        "20 of 20 not within 900",
    ),
    "one of them not": (WITHIN, seen(detected=19, watched_s=900.0), Verdict.FAILS, "1 of 20"),
    "the run was too short to say": (WITHIN, seen(**NONE, watched_s=80.0), Verdict.UNKNOWN, "the run ended"),
    "resumed first": (WITHIN, seen(**NONE, recovered=20), Verdict.UNKNOWN, "resumed"),
    "no such fault": (WITHIN, seen(n=0, **NONE), Verdict.UNKNOWN, "took effect"),
    "not known": (WITHIN, seen(unknown="no closed form"), Verdict.UNKNOWN, "no closed form"),
    "unsound, and it matters": (WITHIN, seen(hi_s=90.4, sound=False), Verdict.UNKNOWN, "unsound"),
    "unsound, and it does not matter": (WITHIN, seen(hi_s=300.0, sound=False), Verdict.FAILS, "later"),
    "never claimed and never seen": (NEVER, seen(**NONE, watched_s=900.0), Verdict.HOLDS, ""),
    "never claimed and seen": (NEVER, seen(), Verdict.FAILS, "over after"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_a_verdict(name: str) -> None:
    claim, what, verdict, word = VERDICTS[name]
    found, reason = judge(claim, what)
    assert found is verdict and word in reason
    assert bool(reason) is (verdict not in (Verdict.HOLDS, Verdict.NO_CLAIM))


def test_every_cell_of_the_documents_table_is_a_claim_and_no_cell_has_two() -> None:
    book = load_claims()
    cells = [
        (preset, claim.fault, milestone)
        for claim in book.claims
        for preset in claim.presets
        for milestone in claim.milestones
    ]
    assert len(cells) == len(set(cells))
    for preset in ("b-before", "b-as-written", "b-as-meant"):
        for fault in ("orderly_close", "refresh", "network_cut", "frozen"):
            for milestone in ("suspected", "store_cleared"):
                assert (preset, fault, milestone) in cells
    claim = book.find("b-as-written", "network_cut", "suspected")
    assert claim is not None and (claim.lo, claim.hi_s) == (30.0, 90.0)
    assert book.find("b-before", "process_crash", "suspected") is None
    assert book.case_of("frozen") == "zombie connection"


@pytest.mark.parametrize("preset", load_presets())
def test_an_experiment_is_long_enough_and_not_too_fast(preset: str) -> None:
    what = experiment(preset, load_claims().faults)
    policy = what.liveness
    last_s = max(fault.at.quantile(1.0).item() for fault in what.faults)
    bound_s = (policy.session_timeout or 0.0) + policy.sweep_interval
    if policy.session_timeout is None:
        bound_s = 1020.0  # a beat, and TCP's give-up
    elif policy.detection_range_s is not None and what.detector.kind == "ping":
        bound_s = min(bound_s, policy.detection_range_s[1])
    if policy.heartbeat_interval is None:  # idle since they connected, before the first fault
        bound_s -= min(fault.at.quantile(0.0).item() for fault in what.faults)
    assert what.duration >= last_s + bound_s
    span_s = last_s - min(fault.at.quantile(0.0).item() for fault in what.faults)
    assert span_s >= policy.sweep_interval
    assert 1 <= what.speedup <= 20
    assert not what.simulated_only


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    out = tmp_path_factory.mktemp("claims")
    presets = ("a-after", "b-as-written", "b-as-meant")
    faults = ("network_cut", "process_crash")
    return run_claims(presets, faults, out, real=False, clients=40)


def cell(rows: pd.DataFrame, preset: str, fault: str, milestone: str, engine: str) -> pd.Series[Any]:
    of_cell = (rows["preset"] == preset) & (rows["fault"] == fault)
    found = rows[of_cell & (rows["milestone"] == milestone) & (rows["engine"] == engine)]
    assert len(found) == 1
    return found.iloc[0]


# preset, fault, milestone: verdict, and the layer that decides
TESTED: dict[tuple[str, str, str], tuple[str, str]] = {
    ("b-as-written", "network_cut", "suspected"): ("does not hold", "session_timeout"),
    ("b-as-written", "process_crash", "suspected"): ("does not hold", "tcp_fin"),
    ("b-as-meant", "network_cut", "suspected"): ("does not hold", "heartbeat"),  # 70 to 100, not 30 to 90
    ("b-as-meant", "process_crash", "store_cleared"): ("does not hold", "tcp_fin"),
    ("a-after", "network_cut", "suspected"): ("does not hold", "state_check"),
    ("a-after", "process_crash", "suspected"): ("holds", "state_check"),
    ("a-after", "network_cut", "locked_out"): ("holds", "state_check"),
}


@pytest.mark.parametrize("of", TESTED)
def test_theory_and_simulation_give_the_same_verdict(rows: pd.DataFrame, of: tuple[str, str, str]) -> None:
    verdict, cause = TESTED[of]
    for engine in ("theory", "simulated"):
        found = cell(rows, *of, engine)
        assert found["verdict"] == verdict, (engine, found["reason"])
        assert found["cause"] == cause


def test_a_killed_process_is_seen_at_once_and_a_cut_is_not_seen_in_ninety_seconds(rows: pd.DataFrame) -> None:
    killed = cell(rows, "b-as-written", "process_crash", "suspected", "simulated")
    assert killed["hi_s"] < 0.01 and "sooner" in killed["reason"]
    cut = cell(rows, "b-as-written", "network_cut", "suspected", "simulated")
    assert cut["lo_s"] > 90 and "later" in cut["reason"]


def test_the_page_has_every_cell_in_words(rows: pd.DataFrame, tmp_path: Path) -> None:
    assert tuple(rows.columns) == COLUMNS
    page = write_claims_page(rows, tmp_path)
    html, text = page.read_text(), (tmp_path / "claims.md").read_text()
    assert "data:image/svg+xml" in html
    for words in ("b-as-written", "network cut", "does not hold", "session timeout"):
        assert words in html and words in text
    assert pd.read_csv(tmp_path / "claims.csv").shape == rows.shape
    assert {"claims_suspected.svg", "claims_suspected.png"} <= {
        path.name for path in (tmp_path / "figures").iterdir()
    }
    table = claims_table(rows, "suspected")
    assert len(table.rows) == 6
    said = list(table.columns).index("verdict")
    verdicts = {(row[0].text, row[1].text): row[said].text for row in table.rows}
    assert verdicts["b-as-written", "network cut"] == "does not hold"
    assert "• finding" in html and "• finding" in text, (
        "no failure: the command ends with 0 whatever it finds"
    )
