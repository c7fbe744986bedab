"""What benches found, in one form: from a bench's figures to one JSON file that docs/performance.md is made of.

A bench prints as it likes and hands its figures to `keep`. Each figure names what it is measured against in the same
run, and its bound where it has one. The file holds the last run of each bench, with machine, date and commit.
"""

from __future__ import annotations

import os
import platform
import subprocess
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

__all__ = ["Figure", "add_save", "cpu_s", "keep"]


class Figure(NamedTuple):
    """One number. ``unit`` is "×" for a ratio to ``against``; ``least`` and ``most``: its bounds, if any."""

    what: str
    value: float
    unit: str = "×"
    against: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def within(self) -> bool:
        """Whether it keeps its bounds."""
        return not (
            (self.least is not None and self.value < self.least)
            or (self.most is not None and self.value > self.most)
        )


def add_save(parser: ArgumentParser) -> None:
    """Give a bench the option ``--save FILE``."""
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="keep the figures there, beside other benches'"
    )


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process's threads have taken, to the nanosecond.

    What psutil reads has a grain of 10 ms: a few heartbeats or handshakes may take none.
    """
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def keep(path: Path | None, bench: str, figures: Sequence[Figure]) -> bool:
    """Put a bench's figures into the file, in place of its earlier ones; return whether all keep their bounds.

    Args:
        path: the file; None: nothing is kept.
        bench: its name, as `python -m bench.NAME` has it.
        figures: what it found.
    """
    within = all(figure.within for figure in figures)
    if path is not None:
        kept: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
        kept[bench] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
            "commit": _commit(),
            "machine": _machine(),
            "load_average": round(os.getloadavg()[0], 1),
            "figures": [figure._asdict() | {"within": figure.within} for figure in figures],
        }
        path.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    return within


def _commit() -> str:
    """The commit of the code; with a +, if it has changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, check=True, text=True
        )
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed else "")


def _machine() -> dict[str, Any]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "memory_gib": round(memory_gib),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
