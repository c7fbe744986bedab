"""Each bench of `make bench` that opens sockets still runs, and keeps its figures beside a baseline of the same run."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[2]
BENCHES = re.search(r"^BENCHES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
assert BENCHES is not None
NAMES = (*BENCHES[1].split(), "scale", "tsung")
TINY = {
    "heartbeat": "--clients 10 --interval-s 0.2 --seconds 0.6 --rounds 1",
    "logins": "--logins 20 --at-once 5 --rounds 1",
    "handshakes": "--clients 10 --at-once 5 --rounds 1",
    "tls": "--clients 5 --handshakes 4 --interval-s 0.2 --seconds 0.6 --rounds 1",
    "scale": "--clients 200 --rate 100 --interval 0.6 --runs {folder}",
    "tsung": "--clients 10 --interval-s 1 --seconds 1 --rate 10",
}


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_started_and_asked_what_it_takes(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").main)
    assert "add_save(" in (ROOT / "bench" / f"{name}.py").read_text()


@pytest.mark.real
@pytest.mark.parametrize("name", TINY)
def test_a_tiny_one_ends_and_keeps_its_figures(name: str, tmp_path: Path) -> None:
    if name == "tsung" and shutil.which("tsung") is None:
        pytest.skip("tsung is not installed")
    kept = tmp_path / "kept.json"
    argv = [
        sys.executable,
        "-m",
        f"bench.{name}",
        *TINY[name].format(folder=tmp_path).split(),
        "--save",
        str(kept),
    ]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)  # so few clients may miss a bound
    (figures,) = (one["figures"] for one in orjson.loads(kept.read_bytes()).values())
    assert any(figure["unit"] == "×" and figure["against"] for figure in figures)
