"""A pytest plugin: liveness in a test suite of one's own, by the same runs and verdicts as the command line.

    def test_a_dead_client_is_noticed(flatline):
        flatline.check("my.yaml")                        # `flatline target check my.yaml`
        flatline.run("frozen.yaml", target="my.yaml")    # `flatline run frozen.yaml --target my.yaml`

A test fails with what was found, and where the report is. pytest loads it by itself where flatline is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.conclude import Outcome
    from harness.studies.target_check import TargetCheck

__all__ = ["Flatline", "flatline"]


class Flatline:
    """Runs and checks of one test. Relative paths count from the test's own folder.

    Args:
        folder: of the test.
        root: where run directories go.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder, self._root = folder, root

    def check(self, target: str, speedup: float | None = None) -> TargetCheck:
        """Check a target file, or a bundled target by name; fail the test with what is wrong."""
        from harness.studies.target_check import check_target_file
        from reference_server.errors import Exit
        from scenarios.target_files import load_target

        done = check_target_file(load_target(target, self._folder), self._root, speedup)
        if done.exit_code is not Exit.GOOD:
            wrong = "\n".join(f"{one.what}: {one.seen}" for one in done.findings if not one.good)
            pytest.fail(f"{target}:\n{wrong}\nreport: {done.report}", pytrace=False)
        return done

    def run(self, scenario: str, target: str | None = None, *, real: bool = True, **replaces: Any) -> Outcome:
        """Run a scenario file, or a built-in one by name; fail the test unless its exit code would be 0.

        Args:
            scenario: what is to happen.
            target: a server that somebody else wrote; None: the scenario's, or the reference gateway.
            real: with real clients; else theory and model alone.
            replaces: top-level keys of the scenario, as ``clients=50``.
        """
        from harness.run import ENGINES
        from harness.run import run as run_scenario
        from reference_server.errors import Exit
        from scenarios.load import built_in, load_scenario
        from scenarios.target_files import load_target

        if target is not None:
            replaces["target"] = load_target(target, self._folder).model_dump(mode="json")
        name = scenario if scenario in built_in() else str(self._folder / scenario)
        loaded = load_scenario(name, **replaces)
        no_model = loaded.target is not None and not loaded.target.heartbeat.law_known
        with_real = ("theory", "real") if no_model else ENGINES
        outcome = run_scenario(
            loaded, engines=with_real if real else ("theory", "simulated"), root=self._root
        )
        if outcome.exit_code is not Exit.GOOD:
            lines = "\n".join(outcome.lines)
            pytest.fail(f"{scenario}: {outcome.headline}\n{lines}\nreport: {outcome.report}", pytrace=False)
        return outcome


@pytest.fixture
def flatline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Flatline:
    """Runs and checks of this test; its run directories are under pytest's own temporary folder."""
    return Flatline(request.path.parent, tmp_path_factory.mktemp("runs"))
