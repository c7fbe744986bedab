"""flatline's own options under plain Locust, and the shapes of load: for Locust's parser and for our `--help`.

Loads nothing: Locust and gevent take a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

__all__ = ["SHAPES", "OptionGroup", "add_options", "help_text"]

_STEPS = 5
_BASE = 0.2

# (share of the length, share of the most), joined by straight lines.
SHAPES: Mapping[str, tuple[tuple[float, float], ...]] = MappingProxyType(
    {
        "ramp": ((0.0, 0.0), (0.6, 1.0), (1.0, 1.0)),
        "step": tuple(
            (edge / _STEPS, (step + 1) / _STEPS) for step in range(_STEPS) for edge in (step, step + 1)
        ),
        "spike": ((0.0, _BASE), (0.4, _BASE), (0.4, 1.0), (0.6, 1.0), (0.6, _BASE), (1.0, _BASE)),
        "soak": ((0.0, 0.0), (0.1, 1.0), (0.9, 1.0), (1.0, 0.0)),
    }
)


class OptionGroup(Protocol):
    """A group of options of Locust's parser."""

    def add_argument(self, *names: str, **said: Any) -> Any:
        """Add one; ``env_var`` names the variable that gives it, too."""


def add_options(group: OptionGroup) -> None:
    """Add those that a person gives."""
    group.add_argument(
        "--scenario",
        default="demo",
        env_var="FLATLINE_SCENARIO",
        help="built-in scenario or file; -u, -r, -t replace its clients, ramp, duration",
    )
    group.add_argument(
        "--run-dir",
        default="",
        env_var="FLATLINE_RUN_DIR",
        help="write the event log there, for instance beside that of `flatline serve`, whose "
        "directory it prints: the run is then judged and gives the exit code; "
        "default: a new directory under runs/",
    )
    group.add_argument(
        "--ws-url",
        default="ws://127.0.0.1:8765/ws",
        env_var="FLATLINE_WS_URL",
        help="the gateway's WebSocket endpoint; several nodes: separated by commas",
    )
    group.add_argument(
        "--http-url",
        default="http://127.0.0.1:8766",
        env_var="FLATLINE_HTTP_URL",
        help="the gateway's HTTP API; several nodes: commas, in the same order",
    )
    group.add_argument(
        "--tls-ca",
        default="",
        env_var="FLATLINE_TLS_CA",
        help="file (PEM) with the CA to trust where the URLs say wss and https; default: the system's",
    )
    group.add_argument(
        "--tls-insecure",
        action="store_true",
        env_var="FLATLINE_TLS_INSECURE",
        help="trust any certificate; for servers on loopback alone",
    )
    group.add_argument(
        "--shape",
        default="",
        choices=["", *SHAPES],
        env_var="FLATLINE_SHAPE",
        help="a shape of the load over -t, with -u clients at its highest; default: none",
    )


class _WithoutLocust:
    """Takes the options into a plain parser, which knows no variables of the environment."""

    def __init__(self, group: OptionGroup) -> None:
        self._group = group

    def add_argument(self, *names: str, **said: Any) -> Any:
        """Add one, its variable in its help."""
        said["help"] += f" [{said.pop('env_var')}]"
        return self._group.add_argument(*names, **said)


def help_text(what: str) -> str:
    """Return the help of `flatline locust`: what it does, our options, and where Locust's own are told."""
    parser = argparse.ArgumentParser(
        prog="flatline locust",
        usage="flatline locust [options of Locust] [options of flatline]",
        description=what,
        epilog="Of Locust's own, the most wanted: -u clients, -r how many come a second, -t how long (as 5m), "
        "--headless, --processes, --csv. All of them: `flatline locust --help-all`.",
        add_help=False,
    )
    add_options(_WithoutLocust(parser.add_argument_group("options of flatline")))
    group = parser.add_argument_group("and")
    group.add_argument("--path", action="store_true", help="print where our locustfile is, no more")
    group.add_argument("--help", action="store_true", help="show this")
    group.add_argument("--help-all", action="store_true", help="show Locust's own options and these")
    return parser.format_help()
