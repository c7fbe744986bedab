"""End a real run early: a threshold that says `abort_on_fail` has failed in what was seen so far.

`EarlyEnd` asks, every few seconds, a process that gives way to everything (`python -m harness.abort_on_fail RUN`); that
measures the logs as those of an interrupted run are measured, and prints which of these thresholds have failed. A
threshold fails by its whole interval, as at the end, so chance ends no run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from harness.runs.directory import RunDir
from scenarios.schema import Scenario

__all__ = ["EarlyEnd", "ThresholdFailed", "failed_so_far"]

_EVERY_S = 5.0  # of real time, from one answer to the next question


class ThresholdFailed(Exception):
    """A threshold has failed in mid-run; never leaves `harness.run`."""


class EarlyEnd:
    """Looks now and then, and never waits.

    Args:
        run: whose logs grow.
        scenario: of it; without `abort_on_fail` nothing is ever asked.
    """

    def __init__(self, run: RunDir, scenario: Scenario) -> None:
        self._run, self._asked = run, bool(scenario.abort_on_fail)
        self._child: subprocess.Popen[bytes] | None = None
        self._next_s = time.monotonic() + _EVERY_S

    def look(self) -> None:
        """Ask, or take the answer.

        Raises:
            ThresholdFailed: one has failed.
        """
        if not self._asked:
            return
        if self._child is None:
            if time.monotonic() >= self._next_s:
                argv = [sys.executable, "-m", "harness.abort_on_fail", str(self._run.path)]
                self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        elif self._child.poll() is not None:
            said, _ = self._child.communicate()
            good, self._child = self._child.returncode == 0, None
            self._next_s = time.monotonic() + _EVERY_S
            if good and (failed := json.loads(said)):
                raise ThresholdFailed("; ".join(failed))

    def close(self) -> None:
        """End a process that still measures."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


def failed_so_far(run: RunDir) -> list[str]:
    """Return which thresholds with `abort_on_fail` have failed in what is logged, each with what was seen."""
    from harness.conclude import measure_run
    from harness.judge.thresholds import check_thresholds, evaluate
    from scenarios.load import load_scenario

    scenario = load_scenario(str(run.scenario))
    watched = [one for one in check_thresholds(scenario) if one.expression in scenario.abort_on_fail]
    found = evaluate(watched, measure_run(run).tables)  # whether the run is sound is known at its end
    failed = found[found["verdict"] == "fail"]
    return [f"{row.expression} ({row.reason})" for row in failed.itertuples()]


if __name__ == "__main__":
    os.nice(19)
    print(json.dumps(failed_so_far(RunDir(Path(sys.argv[1])))))
