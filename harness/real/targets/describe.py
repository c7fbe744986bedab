"""What a target file comes to on this machine: its command line, environment and files, what it lacks, its versions.

From a target to words for `subprocess`. Starts nothing but `PROGRAM --version`.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from scenarios.clock import RunClock
from scenarios.target import Start, Target, filled

__all__ = [
    "attached_port",
    "command_of",
    "environment_of",
    "lacking",
    "other_versions",
    "trust_of",
    "urls_of",
    "values_of",
    "versions_of",
    "write_files",
]

_VERSION_DEADLINE_S = 10.0
# What is ours and would change another Python's run.
_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "LD_PRELOAD")


def values_of(
    target: Target, clock: RunClock, ports: tuple[int, int], logs: Path, redis_url: str = ""
) -> dict[str, object]:
    """What stands for the placeholders of `start`, and of what asks the server: its port and the one for HTTP first."""
    return {
        "port": ports[0],
        "http_port": ports[1],
        "redis_url": redis_url,
        "run_dir": str(logs.resolve()),
        "here": target.folder,
        "python": sys.executable,
        **target.times(clock),
    }


def command_of(target: Target, values: dict[str, object]) -> list[str]:
    """The program, looked up on the PATH, and its arguments."""
    assert target.start is not None
    program, *arguments = (filled(part, values) for part in target.start.command)
    return [_program(program, target.folder) or program, *arguments]


def _program(name: str, folder: str) -> str | None:
    """A program on the PATH, or beside the target file."""
    beside = Path(folder) / name
    if "/" in name and beside.exists():
        return str(beside)
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def environment_of(start: Start, values: dict[str, object]) -> dict[str, str]:
    """This process's environment without what is ours alone, and the target file's."""
    kept = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON}
    return kept | {key: filled(value, values) for key, value in start.env.items()}


def write_files(start: Start, logs: Path, values: dict[str, object]) -> None:
    """Write the target file's templates into the run directory."""
    for name, template in start.files.items():
        (logs / Path(name).name).write_text(filled(template, values))


def urls_of(target: Target, ports: tuple[int, int]) -> tuple[str, str]:
    """Where clients connect to and log in (empty: nowhere); the client's own names are still to be filled in."""
    known = {"port": ports[0], "http_port": ports[1]}
    return filled(target.connect.url, known), filled(target.login.post if target.login else "", known)


def trust_of(target: Target) -> list[str]:
    """What the generator is told of whom to trust where the URL says wss."""
    connect = target.connect
    ca = filled(connect.ca, {"here": target.folder})
    return [*(["--tls-ca", ca] if ca else []), *([] if connect.verifies else ["--tls-insecure"])]


def attached_port(target: Target) -> int:
    """The port of a server that runs already.

    Raises:
        ValueError: its URL is none, or leads to a host that is neither this one nor on a private network.
    """
    parts = urlsplit(target.connect.url)
    host = parts.hostname or ""
    if host != "localhost" and not ipaddress.ip_address(host).is_private:
        raise ValueError(f"{target.connect.url}: {host} is neither loopback nor a private address")
    return parts.port or (443 if parts.scheme == "wss" else 80)


def lacking(target: Target) -> list[str]:
    """Sentences: what this machine lacks to start it; none: nothing."""
    if target.start is None:
        return []
    found = []
    program = filled(target.start.command[0], {"python": sys.executable, "here": target.folder})
    if _program(program, target.folder) is None:
        found.append(f"{target.target} needs the program {program}, which is not on the PATH")
    for need in target.start.needs:
        kind, colon, name = need.partition(":")
        if colon and kind == "python":
            if importlib.util.find_spec(name) is None:
                found.append(f"{target.target} needs the Python package {name}: pip install {name}")
        elif colon and kind == "npm":
            packages = Path(target.folder) / "node"
            if not (packages / "node_modules" / name).is_dir():
                found.append(f"{target.target} needs the npm package {name}: npm ci --prefix {packages}")
        elif _program(need, target.folder) is None:
            found.append(f"{target.target} needs {need}, which is not on the PATH")
    return found


def versions_of(target: Target) -> dict[str, str]:
    """The versions of the pinned packages and of the needed programs, for run.json."""
    found = {name: _installed(name) for name in target.pins}
    for need in target.start.needs if target.start else ():
        if need.startswith("npm:"):
            package = Path(target.folder) / "node/node_modules" / need.removeprefix("npm:") / "package.json"
            if package.exists():
                found[need.removeprefix("npm:")] = str(orjson.loads(package.read_bytes())["version"])
        elif ":" not in need and (path := _program(need, target.folder)) is not None:
            found[need] = _says(path)
    return {name: said for name, said in found.items() if said}


def other_versions(target: Target) -> list[str]:
    """Sentences: which pinned packages have another version here."""
    return [
        f"{target.target} was described for {name} {wanted}, and {there or 'none'} is installed"
        for name, wanted in target.pins.items()
        if (there := _installed(name)) != wanted
    ]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _says(program: str) -> str:
    try:
        done: Any = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0][:100] if lines else ""
