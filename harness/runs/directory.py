"""The run directory: where each stage of a run leaves its result, so that later stages can be redone.

Names every file of a run, reads and writes the small JSON ones; computes nothing. The files in `logs` that one
process writes for others have a method here, which is their schema.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from harness.events.tail import CLIENT_LOGS
from reference_server.config import GatewayConfig
from reference_server.errors import FlatlineError
from reference_server.events import EventKind, decode

__all__ = ["NodePorts", "RunDir", "RunDirError", "find_run", "new_run"]


class NodePorts(NamedTuple):
    """Where a gateway node listens."""

    port: int
    http_port: int


class RunDirError(FlatlineError):
    """A run directory is missing or lacks a file that is needed."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run. The columns of each table are in docs/reference-tables.md."""

    path: Path

    @property
    def marker(self) -> Path:
        """Says that the folder was made by `new_run`, and may be deleted."""
        return self.path / ".flatline-run"

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
        """What ran where: versions, machine, seed, engines, pace, status (JSON)."""
        return self.path / "run.json"

    @property
    def logs(self) -> Path:
        """Folder of the witnesses' own logs: `<role>-<pid>.jsonl`, and `<role>.log` with their stderr."""
        return self.path / "logs"

    def log(self, role: str, who: str | int = "") -> Path:
        """The event log of a witness: client, gateway, harness, incidents, audit, each with its pid or name; or store,
        simulation, of which there is one.
        """
        return self.logs / (f"{role}-{who}.jsonl" if who else f"{role}.jsonl")

    def client_logs(self) -> list[Path]:
        """The event logs of the generators that have begun."""
        return sorted(self.logs.glob(CLIENT_LOGS))

    def clients_began_s(self) -> float | None:
        """When the first generator began: the plan's time zero, real seconds since the run's origin; None: none has."""
        begun = []
        for path in self.client_logs():
            with path.open("rb") as file:
                line = file.readline()
            if line.endswith(b"\n") and (first := decode(line)).kind is EventKind.RUN_STARTED:
                begun.append(first.time_s)
        return min(begun, default=None)

    def gateway_config(self, node: str) -> Path:
        """What a gateway node was told at its (last) start, a `GatewayConfig` (JSON)."""
        return self.logs / f"gateway-{node}.json"

    def write_gateway_config(self, config: GatewayConfig) -> Path:
        """Write what a node is to be told, for us alone: it may hold passwords; return where."""
        path = self.gateway_config(config.node)
        self.write_json(path, config.model_dump(mode="json"), mode=0o600)
        return path

    def gateway_configs(self) -> list[GatewayConfig]:
        """What each node was told, node-1 first; empty where no gateway has logged.

        Raises:
            RunDirError: one cannot be read.
        """
        paths = sorted(self.logs.glob("gateway-*.json"))
        return [GatewayConfig.model_validate(self.read_json(path)) for path in paths]

    def ready_file(self, node: str) -> Path:
        """Written by a node when it listens, see `node_ports`."""
        return self.logs / f"ready-{node}.json"

    def node_ports(self, node: str) -> NodePorts | None:
        """Where a node listens; None: it does not yet."""
        path = self.ready_file(node)
        if not path.exists():
            return None
        ready = self.read_json(path)
        return NodePorts(int(ready["port"]), int(ready["http_port"]))

    @property
    def pids(self) -> Path:
        """The run's processes: role, or role/node, to process id (JSON)."""
        return self.logs / "pids.json"

    @property
    def urls(self) -> Path:
        """Where clients find the server (JSON: ws, http, separated by commas); there once it is ready."""
        return self.logs / "urls.json"

    @property
    def target(self) -> Path:
        """What the observer is told of a server that is not ours, a `Target` (JSON); there is none with our gateway."""
        return self.logs / "target.json"

    @property
    def nat_boxes(self) -> Path:
        """The real NATs of a run, for its generators, see `harness/real/network/nat.py`; there is no file without."""
        return self.logs / "network.json"

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
            raise RunDirError(f"{path}: {error.strerror}; is {self.path} a run directory?") from error
        except ValueError as error:
            raise RunDirError(f"{path}: not JSON: {error}") from error
        if not isinstance(content, dict):
            raise RunDirError(f"{path}: not a JSON object")
        return content

    def write_json(self, path: Path, content: dict[str, Any], *, mode: int = 0o666) -> None:
        """Write one of the JSON files in one step, so that a crash leaves the old one or the new one."""
        draft = path.with_suffix(".tmp")
        draft.touch(mode)
        draft.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
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
    run.marker.write_text("A run of flatline. `flatline runs prune` deletes no folder without this file.\n")
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
