"""`--help` and `--version` load nothing heavy, which is what makes them quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"numpy", "pandas", "scipy", "matplotlib", "sqlalchemy", "simpy"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["runs", "prune", "--help"]]
)
def test_nothing_heavy_is_loaded(arguments: list[str]) -> None:
    code = (
        "import sys; from harness.cli.main import app\n"
        f"try: app({arguments!r})\n"
        f"except SystemExit as done: print('loaded', sorted({HEAVY!r} & set(sys.modules)), done.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded [] 0" in done.stdout.replace("None", "0"), done.stdout
