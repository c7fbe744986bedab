"""Figures of benches are kept side by side, and say when they are beyond a bound."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from bench.figures import Figure, keep


@pytest.mark.parametrize(
    ("figure", "within"),
    [
        (Figure("a", 2.0), True),
        (Figure("a", 2.0, most=2.0), True),
        (Figure("a", 2.1, most=2.0), False),
        (Figure("a", 0.9, least=1.0), False),
        (Figure("a", 1.5, least=1.0, most=2.0), True),
    ],
)
def test_a_bound_holds_what_lies_on_it(figure: Figure, within: bool) -> None:
    assert keep(None, "one", [figure]) is within


def test_the_last_run_of_each_bench_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    for name, value in (("one", 1.0), ("other", 2.0), ("one", 3.0)):
        keep(path, name, [Figure("ratio", value, against="plain", most=2.5)])
    kept = orjson.loads(path.read_bytes())
    assert {
        name: (one["figures"][0]["value"], one["figures"][0]["within"]) for name, one in kept.items()
    } == {"one": (3.0, False), "other": (2.0, True)}
    assert {"cores", "cpu", "kernel", "python"} <= kept["one"]["machine"].keys()
