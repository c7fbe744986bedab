"""A dialect of an installed package is found by its entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PACKAGE = """
from harness.real.dialects import Answer, Dialect

class Mine(Dialect):
    name = "mine"
    def receive(self, message):
        return [Answer("pong")] if message == "ping" else []
"""
_ASKS = """
from harness.real.dialects import Who, find_dialect
mine = find_dialect("mine")(Who("c1x1", "user-1", 1, 1.0))
print(mine.receive("ping")[0].message)
"""


def test_a_package_offers_a_dialect(tmp_path: Path) -> None:
    (tmp_path / "my_dialect.py").write_text(_PACKAGE)
    info = tmp_path / "my_dialect-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-dialect\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flatline.dialects]\nmine = my_dialect:Mine\n")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", _ASKS], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pong"
