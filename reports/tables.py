"""The tables of a run directory: from its CSV and JSON files to one typed object.

A run may lack tables: one engine only, an interrupted run, an older version. A table that is missing
or empty becomes an empty DataFrame with its columns; a table that is there and has other columns is an
error. Computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import orjson
import pandas as pd

__all__ = ["ENGINES", "MILESTONES", "SCHEMAS", "RunTables", "TablesError", "load_run"]

ENGINES: Final = ("theory", "simulated", "real")
MILESTONES: Final = ("suspected", "socket_closed", "store_cleared", "peers_notified", "locked_out")

_PERCENTILES = " ".join(f"{p}_s {p}_lo_s {p}_hi_s" for p in ("p50", "p95", "p99"))
# Columns by type: text, then numbers. ARCHITECTURE.md says what they hold. More columns are allowed.
_COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "detections": ("engine fault_id fault session_id node milestone cause outcome",
                   "injected_at_s duration_s speedup"),
    "laws": ("fault milestone cause note", "lo_s hi_s mean_s p50_s p95_s p99_s mass"),
    "law_curves": ("fault milestone", "duration_s probability"),
    "qos": ("engine fault milestone",
            f"n detected censored recovered not_applicable mean_s {_PERCENTILES} max_s"),
    "breakdown": ("engine fault milestone by part",
                  f"n detected censored recovered not_applicable mean_s {_PERCENTILES} max_s"),
    "survival": ("engine fault milestone", "duration_s survival lo hi at_risk"),
    "causes": ("engine fault cause", "count median_s"),
    "false_suspicions": ("engine", "healthy_clients client_days count rate_per_client_day rate_lo rate_hi"),
    "accuracy": ("engine", "count t_mr_s t_m_s p_a"),
    "not_applicable": ("engine fault milestone reason", "count"),
    "ghosts": ("engine fault_id fault outcome", "ghost_s"),
    "live": ("engine", "time_s live_clients store_sessions ghosts"),
    "timelines": ("engine fault fault_id lane kind cause note", "time_s"),
    "tcp_info": ("engine fault", "n unacked_share retransmitted_share"),
    "lag": ("role pid", "time_s max_lag_s"),
    "lateness": ("node", "time_s n p50_s p99_s max_s"),
    "resources": ("role pid", "time_s cpu_percent rss_bytes descriptors"),
    "incidence": ("engine fault cause", "duration_s incidence lo hi"),
    "omission": ("engine fault", "planned injected late_p50_s late_max_s "
                 "p50_s p50_longest_s p99_s p99_longest_s"),
    "session_quality": ("engine fault figure note", "count of share lo hi"),
    "cost": ("engine basis", "clients heartbeats_per_s frames_per_s bytes_per_s redis_operations_per_s "
             "gateway_cpu_percent gateway_rss_bytes"),
    "storm": ("engine",
              "time_s width_s disconnected connected resumed session_unknown logged_in login_refused"),
    "flicker": ("engine session_id user_id watcher", "offline_s gap_s"),
    "incidents": ("engine incident_id kind node",
                  "at_s lasts_s watched_s clients_hit clients_lost clients_back clients_away back_p50_s back_p99_s "
                  "back_max_s detected_s ghosts_gone_s store_agrees_s grain_s false_suspicions bound_s"),
    "thresholds": ("expression verdict reason", "value"),
}  # fmt: skip
SCHEMAS: Final[Mapping[str, Mapping[str, str]]] = {
    name: {**dict.fromkeys(text.split(), "str"), **dict.fromkeys(numbers.split(), "float64")}
    for name, (text, numbers) in _COLUMNS.items()
}


class TablesError(ValueError):
    """A run directory cannot be read. Its text names the file and what is wrong with it."""


@dataclass(frozen=True)
class RunTables:
    """One run, as its directory tells it. All times are scenario seconds unless ARCHITECTURE.md says real.

    ``summary`` and ``provenance`` are summary.json and run.json; ``absent`` names the tables that have no
    file. The properties below answer with None or an empty value for what the run does not say.
    """

    path: Path
    summary: Mapping[str, Any]
    provenance: Mapping[str, Any]
    absent: frozenset[str]
    frames: Mapping[str, pd.DataFrame] = field(repr=False)

    def table(self, name: str) -> pd.DataFrame:
        """One table by name, with the columns that `SCHEMAS` lists; empty where the run has none.

        Raises:
            KeyError: no such table in any run.
        """
        return self.frames[name]

    @cached_property
    def name(self) -> str:
        """The scenario's name."""
        return str(self._fact("name") or self._fact("scenario") or self.path.name)

    @cached_property
    def description(self) -> str:
        """What the scenario shows, one paragraph."""
        return " ".join(str(self._fact("description") or "").split())

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """The engines of this run in the order theory, simulated, real: stated, or else seen in its tables."""
        stated = self._fact("engines")
        if isinstance(stated, list):
            known = {str(engine) for engine in stated}
        else:
            known = {str(engine) for engine in self.table("detections")["engine"]}
            known |= set() if self.table("laws").empty else {"theory"}
        return tuple(engine for engine in ENGINES if engine in known)

    @cached_property
    def measured_engines(self) -> tuple[str, ...]:
        """The engines that measure: simulated, real."""
        return tuple(engine for engine in self.engines if engine != "theory")

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """Every fault's label, in the order in which the tables name them."""
        names = [
            *self.table("laws")["fault"],
            *self.table("detections")["fault"],
            *self.table("qos")["fault"],
        ]
        return tuple(dict.fromkeys(map(str, names)))

    @cached_property
    def complete(self) -> bool | None:
        """Whether the run reached its end; None where it does not say."""
        status = self._fact("status")
        return None if status is None else status == "complete"

    @cached_property
    def sound(self) -> bool | None:
        """Whether a real run's numbers may be believed; None where nobody judged (no real engine)."""
        sound = self._fact("sound")
        return None if sound is None else bool(sound)

    @cached_property
    def unsound_reasons(self) -> tuple[str, ...]:
        """Why the run is not sound, one sentence each."""
        return tuple(map(str, self._fact("unsound_reasons") or ()))

    @cached_property
    def negative_control(self) -> bool:
        """Whether the gateway was given another policy than the scenario's, to see the report turn red."""
        return bool(self._fact("negative_control"))

    def number(self, key: str) -> float | None:
        """Return a number of summary.json or run.json; None where it is absent, null or not a number."""
        value = self._fact(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return None if math.isnan(value) else float(value)

    def records(self, key: str) -> list[dict[str, Any]]:
        """Return a list of objects of summary.json, as ``fault_windows``; empty where it is absent."""
        value = self._fact(key)
        return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []

    def _fact(self, key: str) -> Any:
        value = self.summary.get(key)
        return self.provenance.get(key) if value is None else value


def load_run(path: Path) -> RunTables:
    """Read a run directory.

    Raises:
        TablesError: no such directory, a file that is not what its name says, a table without one of
            its columns, or a number that is none.
    """
    if not path.is_dir():
        raise TablesError(f"{path}: no such run directory")
    frames = {name: _read_table(path / f"{name}.csv", schema) for name, schema in SCHEMAS.items()}
    absent = frozenset(name for name, table in frames.items() if table is None)
    return RunTables(
        path=path,
        summary=_read_json(path / "summary.json"),
        provenance=_read_json(path / "run.json"),
        absent=absent,
        frames={
            name: _empty(SCHEMAS[name]) if table is None else table
            for name, table in frames.items()
        },
    )


def _empty(schema: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(schema)).astype(dict(schema))


def _read_table(path: Path, schema: Mapping[str, str]) -> pd.DataFrame | None:
    text = {column: "str" for column, kind in schema.items() if kind == "str"}
    # Only an empty cell is "no value": a user, a note or a node may be called "NA" or "null".
    blanks = {column: [""] for column, kind in schema.items() if kind != "str"}
    try:
        found = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=blanks)
    except FileNotFoundError:
        return None
    except pd.errors.EmptyDataError:
        return _empty(schema)
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise TablesError(f"{path}: not a table: {error}") from error
    if lacking := [column for column in schema if column not in found.columns]:
        raise TablesError(
            f"{path}: no column {', '.join(lacking)}; it has {', '.join(map(str, found.columns))}"
        )
    try:
        return found.astype(dict(schema))
    except ValueError as error:
        raise TablesError(f"{path}: a cell that should be a number is none: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TablesError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise TablesError(f"{path}: not a JSON object")
    return content
