"""Stored baselines: the tables of a good run, small enough to be committed, that later runs are compared with.

From a run directory to `baselines/<scenario>/`, and from there to a `Comparison`. Judges nothing itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.runs.directory import RunDir
from harness.studies.compare.compare import Comparison, compare
from harness.studies.compare.inputs import CannotCompare
from reports.run_tables import SCHEMAS, load_run

__all__ = ["check_baseline", "set_baseline"]

_FILES = ("run.json", "scenario.yaml", "plan.json", "summary.json", *(f"{name}.csv" for name in SCHEMAS))


def set_baseline(run: RunDir, folder: Path, *, anyway: bool = False) -> Path:
    """Keep what a comparison needs of a run, in the place of an older baseline of its scenario; return where.

    Raises:
        CannotCompare: its verdict is not good, or it was interrupted, and nobody said ``anyway``.
        TablesError: no run directory.
    """
    summary = load_run(run.path).summary
    if summary.get("exit_code") != 0 and not anyway:
        said = summary.get("headline", "it was not concluded")
        raise CannotCompare(f"{run.path}: {said}; a baseline is a good run; allowed: --anyway")
    kept = folder / str(summary["name"])
    if kept.exists():
        shutil.rmtree(kept)
    kept.mkdir(parents=True)
    for name in _FILES:
        if (run.path / name).exists():
            shutil.copyfile(run.path / name, kept / name)
    return kept


def check_baseline(run: RunDir, folder: Path) -> Comparison:
    """Compare a run with the baseline of its scenario.

    Raises:
        CannotCompare: there is none, or the two cannot be compared.
        TablesError: one of them cannot be read.
    """
    name = str(load_run(run.path).summary.get("name", ""))
    kept = folder / name
    if not kept.is_dir():
        raise CannotCompare(f"{kept}: no baseline; make one: flatline baseline set {run.path.name}")
    return compare([kept, run.path])
