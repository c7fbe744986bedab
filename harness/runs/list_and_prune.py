"""The folder of run directories: list them, show one, prune old ones.

Reads what runs say of themselves and deletes whole run directories, nothing else: never the one that
`latest` points at, never one that may still be running, never a folder that `new_run` has not marked as a run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from harness.runs.directory import RunDir, RunDirError
from reports.numbers import ABSENT, count, size_bytes

__all__ = ["Pruned", "RunInfo", "describe", "list_runs", "prune", "table"]

# A killed run says `running` for ever; after this long without a new file nobody is at it any more.
_ABANDONED_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run as its files tell. Empty strings and None: they do not say."""

    path: Path
    scenario: str
    started: datetime
    engines: tuple[str, ...]
    status: str  # running, complete, partial, or "no report" where nothing was concluded
    verdict: str  # pass, fail, unknown, partial
    headline: str
    clients: int | None
    faults: int | None
    size_bytes: int
    latest: bool

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go. ``spared`` are runs that were old enough and stay, each with the reason."""

    gone: tuple[RunInfo, ...]
    kept: tuple[RunInfo, ...]
    spared: tuple[tuple[RunInfo, str], ...]

    @property
    def freed_bytes(self) -> int:
        """What it frees."""
        return sum(run.size_bytes for run in self.gone)


def list_runs(root: Path = Path("runs")) -> list[RunInfo]:
    """Every run directory in a folder, the newest first; no folder is an empty list.

    A run directory is one with a scenario.yaml or a run.json. A file of it that cannot be read leaves the
    fields empty that stood in it: a damaged run must still be listed, or it could never be pruned.
    """
    if not root.is_dir():
        return []
    runs = [describe(path) for path in sorted(root.iterdir()) if not path.is_symlink() and _is_run(path)]
    runs.sort(key=lambda run: (run.started, run.name), reverse=True)
    link = root / "latest"  # there is none in a folder that was copied without its links
    latest = link.resolve() if link.is_dir() else runs[0].path.resolve() if runs else None
    return [replace(run, latest=run.path.resolve() == latest) for run in runs]


def describe(path: Path) -> RunInfo:
    """Read what one run directory says of itself; whether it is the latest, `list_runs` knows.

    Raises:
        RunDirError: it is not a run directory.
    """
    if not _is_run(path):
        raise RunDirError(f"{path}: not a run directory: it has no scenario.yaml and no run.json")
    run = RunDir(path)
    ran, found = _json(run.provenance), _json(run.summary)
    counts = found.get("counts") if isinstance(found.get("counts"), dict) else {}
    assert isinstance(counts, dict)
    status = str(ran.get("status") or found.get("status") or "")
    engines = found.get("engines") or ran.get("engines") or []
    return RunInfo(
        path=path,
        scenario=str(ran.get("scenario") or found.get("name") or ""),
        started=_started(path, ran),
        engines=tuple(map(str, engines)) if isinstance(engines, list) else (),
        status=status if found or status == "running" else "no report",
        verdict=str(found.get("verdict") or ""),
        headline=str(found.get("headline") or ""),
        clients=_whole(counts.get("clients")),
        faults=_whole(counts.get("faults")),
        size_bytes=sum(f.lstat().st_size for f in path.rglob("*") if not f.is_dir()),
        latest=False,
    )


def prune(
    root: Path = Path("runs"),
    *,
    keep: int | None = None,
    older_than_s: float | None = None,
    dry_run: bool = True,
    now_s: float | None = None,
) -> Pruned:
    """Delete old runs, or by default only say which.

    Args:
        root: folder of run directories.
        keep: the newest so many stay.
        older_than_s: runs that began less than this long ago stay. With both, whatever either keeps stays.
        dry_run: delete nothing.
        now_s: seconds since the epoch; default: the clock.

    Raises:
        RunDirError: neither rule is given, or one is negative.
        OSError: a directory cannot be deleted; those before it are gone.
    """
    if keep is None and older_than_s is None:
        raise RunDirError("say which runs may go: keep, older_than_s, or both")
    if (keep or 0) < 0 or (older_than_s or 0) < 0:
        raise RunDirError(f"keep {keep}, older_than_s {older_than_s}; allowed: 0 or more")
    now = datetime.fromtimestamp(time.time() if now_s is None else now_s, UTC)
    gone, kept, spared = [], [], []
    for n, run in enumerate(list_runs(root)):
        young = older_than_s is not None and (now - run.started).total_seconds() < older_than_s
        if n < (keep or 0) or young:
            kept.append(run)
        elif reason := _must_stay(run, now):
            spared.append((run, reason))
        else:
            gone.append(run)
    if not dry_run:
        for run in gone:
            shutil.rmtree(run.path)
    return Pruned(tuple(gone), tuple(kept), tuple(spared))


def table(runs: Sequence[RunInfo]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows for a terminal."""
    header = ("run", "scenario", "date (UTC)", "engines", "clients", "faults", "verdict", "size")
    rows: list[tuple[str, ...]] = [
        (
            f"{run.name}{' (latest)' if run.latest else ''}",
            run.scenario or ABSENT,
            f"{run.started:%Y-%m-%d %H:%M}",
            ", ".join(run.engines) or ABSENT,
            count(run.clients),
            count(run.faults),
            run.verdict or run.status or ABSENT,
            size_bytes(run.size_bytes),
        )
        for run in runs
    ]
    return header, rows


def _is_run(path: Path) -> bool:
    run = RunDir(path)
    return path.is_dir() and (run.scenario.is_file() or run.provenance.is_file())


def _must_stay(run: RunInfo, now: datetime) -> str:
    if run.latest:
        return "latest points at it"
    if not (marker := RunDir(run.path).marker).is_file():
        return f"no {marker.name} in it says that it is ours: an older run, or another's folder"
    newest_s = max(found.lstat().st_mtime for found in (run.path, *run.path.rglob("*")))
    quiet_s = now.timestamp() - newest_s
    if run.status == "running" and quiet_s < _ABANDONED_AFTER_S:
        return "it may still be running"
    return ""


def _started(path: Path, ran: dict[str, Any]) -> datetime:
    """When it began: as it says, or by its name, or by its folder."""
    for written, form in ((str(ran.get("started")), None), (path.name[:15], "%Y%m%d-%H%M%S")):
        try:
            found = datetime.strptime(written, form) if form else datetime.fromisoformat(written)
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
