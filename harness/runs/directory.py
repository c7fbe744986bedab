"""The run directory: where each stage of a run leaves its result, so that later stages can be redone.

Names paths and writes small JSON files; computes nothing.
"""

from __future__ import annotations

from reference_server.errors import FlatlineError

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

__all__ = ["RunDir", "RunDirError", "find_run", "new_run"]


class RunDirError(FlatlineError):
    """A run directory is missing or lacks a file that is needed."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run. See ARCHITECTURE.md for the columns of each table."""

    path: Path

    @property
    def scenario(self) -> Path:
        """The scenario as it ran, every default written out (YAML)."""
        return self.path / "scenario.yaml"

    @property
    def plan(self) -> Path:
        """The fault plan (JSON)."""
        return self.path / "plan.json"

    @property
    def provenance(self) -> Path:
        """What ran where: versions, machine, seed, engines, speedup, status (JSON)."""
        return self.path / "run.json"

    @property
    def logs(self) -> Path:
        """Folder of the witnesses' own logs: `<role>-<pid>.jsonl`, and `<role>.log` with their stderr."""
        return self.path / "logs"

    @property
    def events(self) -> Path:
        """All witnesses' events, merged and sorted by time (JSON lines)."""
        return self.path / "events.jsonl"

    @property
    def summary(self) -> Path:
        """Verdicts, bounds and counts (JSON)."""
        return self.path / "summary.json"

    @property
    def figures(self) -> Path:
        """Folder of the figures, each as SVG and PNG."""
        return self.path / "figures"

    @property
    def ledger_url(self) -> str:
        """The gateways' durable ledger, where they have one: an SQLite file."""
        return f"sqlite:///{self.path.absolute() / 'ledger.db'}"

    def table(self, name: str) -> Path:
        """One CSV table: detections, laws, law_curves, qos, agreement, false_suspicions, live, …"""
        return self.path / f"{name}.csv"

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read one of the JSON files.

        Raises:
            RunDirError: it is missing or is not JSON.
        """
        try:
            content = orjson.loads(path.read_bytes())
        except OSError as error:
            raise RunDirError(
                f"{path}: {error.strerror}; is {self.path} a run directory?"
            ) from error
        except ValueError as error:
            raise RunDirError(f"{path}: not JSON: {error}") from error
        if not isinstance(content, dict):
            raise RunDirError(f"{path}: not a JSON object")
        return content

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Write one of the JSON files in one step, so that a crash leaves the old one or the new one."""
        draft = path.with_suffix(".tmp")
        draft.write_bytes(
            orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
        )
        draft.replace(path)


def new_run(root: Path, name: str) -> RunDir:
    """Make an empty run directory `root/<date>-<name>` and point `root/latest` at it."""
    root.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for n in range(1000):
        path = root / (f"{stamp}-{name}" if n == 0 else f"{stamp}-{name}-{n}")
        try:
            path.mkdir()
            break
        except FileExistsError:
            continue
    else:
        raise RunDirError(f"{root}: no free name for a run called {name}")
    run = RunDir(path)
    run.logs.mkdir()
    latest, draft = root / "latest", root / f".latest-{os.getpid()}"
    draft.symlink_to(path.name)
    draft.replace(latest)
    return run


def find_run(name_or_path: str, root: Path = Path("runs")) -> RunDir:
    """Find a run by path, by its name under `root`, or as `latest`.

    Raises:
        RunDirError: no such run.
    """
    for path in (Path(name_or_path), root / name_or_path):
        if path.is_dir():
            return RunDir(path.resolve())
    known = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    raise RunDirError(f"no run {name_or_path!r}; in {root}: {', '.join(known) or 'none'}")
