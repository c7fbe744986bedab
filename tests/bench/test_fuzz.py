"""The fuzz of bench/fuzz.py in its short form."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.fuzz import fuzz


@pytest.mark.real
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_some_hundred_strangers_leave_nothing_behind(tls: bool, tmp_path: Path) -> None:
    assert fuzz(200, 1, 2, tls=tls, folder=tmp_path) == []
