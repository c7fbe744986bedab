"""The pytest plugin, in a test suite of its own: a good run passes, a missed threshold fails with its sentence."""

from __future__ import annotations

import os
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

_SCENARIO = """
clients: 60
ramp: 5s
duration: 60s
faults: [{kind: orderly_close, share: 50%, at: {uniform: {low: 1s, high: 20s}}}]
thresholds: ["detection_latency.max < 1s"]
"""
_WITHOUT_PICTURES = """
import reports.build

reports.build.draw = lambda *_: {}
"""
_TESTS = """
def test_good(flatline):
    assert flatline.run("closes.yaml", real=False).report.exists()

def test_missed(flatline):
    flatline.run("closes.yaml", real=False, thresholds=["detection_latency.max < 0.1ms"])
"""


def test_a_suite_of_ones_own_passes_and_fails_as_the_command_does(tmp_path: Path) -> None:
    (tmp_path / "closes.yaml").write_text(_SCENARIO)
    (tmp_path / "test_liveness.py").write_text(_TESTS)
    (tmp_path / "conftest.py").write_text(_WITHOUT_PICTURES)
    argv = [
        "-p",
        "harness.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-q",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    # A copy of this process: what its tests need is loaded.
    suite = get_context("fork").Process(target=_run_suite, args=(argv, tmp_path / "said"))
    suite.start()
    suite.join(60)
    said = (tmp_path / "said").read_text()
    assert suite.exitcode == pytest.ExitCode.TESTS_FAILED and "1 failed, 1 passed" in said, said
    assert "detection_latency.max < 0.1ms" in said


def _run_suite(argv: list[str], said: Path) -> None:
    # By its module, whether this flatline was installed before it had the plugin or after.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with said.open("w") as out:
        os.dup2(out.fileno(), 1)
        sys.stdout = out
        code = pytest.main(argv)
        out.flush()
        os._exit(code)
