"""What a newcomer begins with: a first scenario or target from four answers, and copies of the examples.

From times as people write them to YAML that is checked before it is handed out; from the installed files to a folder.
"""

from __future__ import annotations

import shutil
import site
import sysconfig
from pathlib import Path

from reference_server.durations import format_duration, parse_duration
from reference_server.errors import FlatlineError
from scenarios.load import parse_scenario
from scenarios.target_files import parse_target

__all__ = ["CannotStart", "copy_examples", "first_scenario", "first_target"]


class CannotStart(FlatlineError):
    """An answer cannot be used, or the examples are not here or would overwrite something."""


def first_scenario(interval: str, timeout: str, failures: int, *, silence: bool = True) -> str:
    """A scenario of the reference gateway under these times: some clients lose power, some freeze, some close.

    Args:
        interval: from one ping to the next, as 30s.
        timeout: how long an answer may take.
        failures: unanswered pings that end a connection.
        silence: whether this machine can make power losses; else all of the silent ones freeze.

    Raises:
        CannotStart: a time is none.
        ScenarioError: the times do not go together.
    """
    interval_s, timeout_s = _seconds(interval, "interval"), _seconds(timeout, "timeout")
    latest_s = interval_s + (failures - 1) * max(interval_s, timeout_s) + timeout_s
    wait_s = max(60.0, 3 * interval_s)
    when = f"at: {{uniform: {{low: 10s, high: {_written(wait_s)}}}}}"
    note, crash = "; host_crash needs root or CAP_NET_ADMIN", ""
    frozen, judged = "60%", "frozen"
    if silence:
        note, crash = f"{note} in a real run", f"  - {{kind: host_crash, share: 40%, {when}}}\n"
        frozen, judged = "20%", "host_crash"
    text = f"""\
# A first scenario. Every key: flatline schema, or docs/reference-scenario.md.
clients: 200
ramp: {_written(max(30.0, interval_s))}
duration: {_written(wait_s + 1.2 * latest_s + 10)}          # after the ramp: time for the last death to be noticed
speedup: 5              # a real run is five times as fast as this
liveness:
  heartbeat_interval: {interval}
  heartbeat_timeout: {timeout}
  max_failures: {failures}
faults:                 # flatline faults lists them{note}
{crash}  - {{kind: frozen, share: {frozen}, {when}}}
  - {{kind: orderly_close, share: 10%, {when}}}
thresholds:
  - false_suspicions.count == 0
  - detection_latency{{fault={judged}}}.max < {_written(latest_s + 1)}
"""
    parse_scenario(text, source="the first scenario", default_name="first")
    return text


def first_target(url: str, interval: str, timeout: str, failures: int) -> str:
    """The target file of a server that runs already and pings.

    Raises:
        CannotStart: a time is none.
        TargetError: the URL or the times cannot be used.
    """
    _seconds(interval, "interval"), _seconds(timeout, "timeout")
    text = f"""\
# A server of yours, described for flatline. Every key: flatline schema target.
target: mine
connect:
  url: {url}
dialect: websocket            # its clients answer protocol pings; flatline targets lists other dialects
heartbeat:
  model: ping_deadline
  interval: {interval}
  timeout: {timeout}
  misses: {failures}
witnesses:
  socket_closed: kernel       # when it ends a connection the kernel of this machine sees
# To have it started, with its times shortened by {{interval_s}} and {{timeout_s}}, and settable: [interval, timeout]:
# start:
#   command: ["{{python}}", -m, uvicorn, "app:app", --port, "{{port}}"]
"""
    parse_target(text, "the first target")
    return text


def _seconds(text: str, what: str) -> float:
    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise CannotStart(f"{what}: {error}") from error


def _written(seconds: float) -> str:
    return format_duration(float(round(seconds)))


_FOLDERS = {
    "examples": "a fault of one's own, a workflow for a CI, two Grafana dashboards",
    "notebooks": "a run, a tuning, a send-only heartbeat, capacity, your own data, internet scale; pictures first",
    "reports/sample": "the run that the first notebook reads",
}


def copy_examples(folder: Path) -> dict[str, str]:
    """Copy what comes along into a new folder; return each part with what it is.

    Raises:
        CannotStart: the folder has something in it already, or the files are not installed.
    """
    if folder.exists() and any(folder.iterdir()):
        raise CannotStart(f"{folder} is not empty; allowed: a new folder")
    here = _installed()
    for name in _FOLDERS:
        shutil.copytree(here / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "render.py"))
    return _FOLDERS


def _installed() -> Path:
    """Where the files are: beside the code in a clone, below the environment's `share` in a wheel."""
    places = [Path(__file__).parents[1]]
    places += [Path(base) / "share/flatline" for base in (sysconfig.get_path("data"), site.getuserbase())]
    for place in places:
        if all((place / name).is_dir() for name in _FOLDERS):
            return place
    raise CannotStart(f"the examples are not in {', '.join(map(str, places))}; install flatline again")
