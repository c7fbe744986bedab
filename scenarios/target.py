"""A target: a server that somebody else wrote. How it is started, spoken to, watched, and what its heartbeat's law is.

Data only. A scenario that names one begins with its heartbeat, as it would with a preset; the files are read by
`target_files.py`. Nothing is changed in the server: what is told to it goes through its command line and environment.

    {port} {run_dir} {here} {python}      the free port, the run directory, the target file's folder, this Python
    {interval_s} {timeout_s} {interval_ms} {timeout_ms}   the heartbeat's times, as a run at its speedup needs them
    {client} {user} {index}               of a client: a name of this very connection, its user, its number
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from reference_server.durations import Duration, PositiveDuration
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import ClientBeats, DetectorKind, Ping, SendErrors
from scenarios.clock import RunClock
from scenarios.parts import Part

__all__ = ["MODELLED", "Connect", "Heartbeat", "Ready", "Start", "Stop", "Target", "Witnesses", "filled"]

MODELLED = frozenset({"suspected", "socket_closed"})
"""The milestones of a target that theory and model know: it has no store, watchers or logins of ours."""
TIMERS = ("interval", "timeout")
_NO_SWEEP_S = 0.001  # a timer of its own for each connection, as good as no sweep
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def filled(text: str, values: Mapping[str, object]) -> str:
    """Put values in the place of their names in braces; every other brace stays as it is."""
    return _PLACEHOLDER.sub(lambda name: str(values.get(name[1], name[0])), text)


class Start(Part):
    """How the server is started: a process group of its own, its output on a terminal, so that it comes by the line."""

    command: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="program and arguments, never a shell; {port} is free"),
    ]
    env: Annotated[
        dict[str, str],
        Field(default_factory=dict, description="added to the environment; values may hold {…}"),
    ]
    files: Annotated[
        dict[str, str],
        Field(
            default_factory=dict, description="name: text, written into the run directory's logs ({run_dir})"
        ),
    ]
    needs: Annotated[
        tuple[str, ...],
        Field(
            description="without which it cannot start: programs, Python packages as `python:NAME`, npm's as "
            "`npm:NAME` (in the folder `node` beside the file)"
        ),
    ] = ()


class Ready(Part):
    """When the server is there: all that are given."""

    log: Annotated[str | None, Field(description="regular expression of a line of its output")] = None
    tcp: Annotated[bool, Field(description="whether its port accepts a connection")] = True
    within: PositiveDuration = 30.0

    _is_regex = field_validator("log", mode="after")(lambda value: _checked_regex(value))


class Stop(Part):
    """How the server is ended; then SIGKILL to its process group."""

    signal: Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGKILL"] = "SIGTERM"
    grace: Duration = 5.0


class Connect(Part):
    """Where clients connect to, and with what."""

    url: Annotated[
        str, Field(pattern=r"^ws://", description="as ws://127.0.0.1:{port}/ws?user={client}; no TLS")
    ]
    headers: Annotated[dict[str, str], Field(default_factory=dict)]
    subprotocol: Annotated[str | None, Field(description="null: the dialect's own, if it has one")] = None


class Heartbeat(Part):
    """The server's timers, as a law: when it gives a client up that has fallen silent.

    ping_deadline   it pings every `interval`, an answer has `timeout`: U + timeout (with `misses` k: + (k−1) intervals)
    next_tick       a ping that is not answered by the next tick, `misses` in a row: U + misses × interval
    idle_limit      the client beats every `interval`, the server waits `timeout`, looks every `look_every`
    intervals       the client beats every `interval`; 2 to 3 intervals after its last beat (RabbitMQ)
    tcp_only        it sends every `interval` and looks at no answer: TCP gives up
    never           it sends nothing and has no limit
    unknown         nothing is claimed: no law, no simulation
    """

    model: Literal["ping_deadline", "next_tick", "idle_limit", "intervals", "tcp_only", "never", "unknown"]
    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None
    misses: Annotated[int, Field(ge=1, description="unanswered pings in a row")] = 1
    first: Annotated[
        Literal["interval", "random"],
        Field(
            description="first ping: one interval after a connection begins, or at a phase of the server's"
        ),
    ] = "interval"
    look_every: Annotated[
        PositiveDuration | None, Field(description="idle_limit: how often it looks; null: a timer each")
    ] = None
    socket_lag: Annotated[
        Duration, Field(description="from the decision to the end of the server's socket; never sped up")
    ] = 0.0
    settable: Annotated[
        tuple[Literal["interval", "timeout"], ...],
        Field(
            description="which times {interval_s}, {timeout_s} tell the server: needed for a speedup above 1"
        ),
    ] = ()
    source: Annotated[str, Field(description="file and line, or page, that says so")] = ""
    status: Literal["measured", "seen", "derived", "recalled"] = "derived"

    @model_validator(mode="after")
    def _has_its_times(self) -> Heartbeat:
        wants = {
            "ping_deadline": ("interval", "timeout"),
            "next_tick": ("interval",),
            "idle_limit": ("interval", "timeout"),
            "intervals": ("interval",),
            "tcp_only": ("interval",),
        }.get(self.model, ())
        if lacking := [name for name in wants if getattr(self, name) is None]:
            raise ValueError(f"{self.model} needs {' and '.join(lacking)}, as 25s")
        return self

    @property
    def fixed(self) -> tuple[str, ...]:
        """Its times that cannot be told to the server."""
        there = [name for name in TIMERS if getattr(self, name) is not None]
        there += [name for name in ("look_every",) if getattr(self, name) is not None]
        return tuple(name for name in there if name not in self.settable)

    @property
    def law_known(self) -> bool:
        """Whether a law follows from it."""
        return self.model != "unknown"

    @property
    def client_beats(self) -> bool:
        """Whether clients beat by themselves."""
        return self.model in ("idle_limit", "intervals")

    @property
    def detector(self) -> DetectorKind:
        """The kind of detector that decides as the server does."""
        match self.model:
            case "idle_limit" | "intervals":
                return ClientBeats()
            case "tcp_only":
                return SendErrors()
            case _:
                return Ping(frame="ping")

    @property
    def policy(self) -> LivenessPolicy:
        """The policy with the server's law. Nothing is kept after a decision: nobody resumes."""
        times: dict[str, Any] = {"heartbeat_interval": self.interval, "session_timeout": None}
        match self.model:
            case "ping_deadline":
                times |= {"heartbeat_timeout": self.timeout, "max_failures": self.misses}
            case "next_tick":
                times |= {"heartbeat_timeout": self.interval, "max_failures": self.misses}
            case "idle_limit":
                sweep_s = self.look_every or _NO_SWEEP_S
                times |= {"session_timeout": self.timeout, "sweep_interval": sweep_s}
            case "intervals":
                assert self.interval is not None
                times |= {"session_timeout": 2 * self.interval, "sweep_interval": self.interval}
            case "never" | "unknown":
                times["heartbeat_interval"] = None
        return LivenessPolicy(**times, first_ping=self.first, resume_window=0.0, max_sessions=None)


class Witnesses(Part):
    """Who sees which milestone. What nobody sees is not applicable; one milestone is never taken for another."""

    socket_closed: Annotated[
        Literal["kernel"] | None,
        Field(description="the server's end of each connection, looked up in the kernel"),
    ] = "kernel"
    suspected: Annotated[
        str | None,
        Field(
            description="regular expression of the output's line that tells of it, with {client} or {user} and, "
            "perhaps, (?P<cause>…)"
        ),
    ] = None

    @field_validator("suspected", mode="after")
    @classmethod
    def _names_the_client(cls, value: str | None) -> str | None:
        if value is not None and "{client}" not in value and "{user}" not in value:
            raise ValueError("names no client; allowed: a regular expression that holds {client} or {user}")
        return _checked_regex(value)

    @property
    def milestones(self) -> frozenset[str]:
        """Those that somebody sees."""
        return frozenset(name for name in type(self).model_fields if getattr(self, name) is not None)


class Target(Part):
    """A server that somebody else wrote, unchanged."""

    target: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", description="its name")]
    title: str = ""
    start: Annotated[Start | None, Field(description="null: it runs already, at the port of its url")] = None
    ready: Ready = Ready()
    stop: Stop = Stop()
    connect: Connect
    dialect: Annotated[
        str | dict[str, dict[str, Any]],
        Field(description="`flatline targets` lists them; FILE.py:CLASS; {NAME: {option: value}}"),
    ] = "websocket"
    heartbeat: Heartbeat
    witnesses: Witnesses = Witnesses()
    pins: Annotated[
        dict[str, str],
        Field(
            default_factory=dict, description="Python package: version; another one is said before the run"
        ),
    ]
    folder: Annotated[str, Field(description="the file's own; filled in when it is read")] = ""

    @property
    def dialect_name(self) -> str:
        """Its dialect's name, or FILE.py:CLASS."""
        return self.dialect if isinstance(self.dialect, str) else next(iter(self.dialect))

    @property
    def dialect_options(self) -> dict[str, Any]:
        """What the dialect is told."""
        return {} if isinstance(self.dialect, str) else next(iter(self.dialect.values()))

    @property
    def scenario_keys(self) -> dict[str, Any]:
        """What a scenario for it has, whatever its file says: the server has no policy, store or nodes of ours."""
        return {
            "liveness": self.heartbeat.policy.model_dump(mode="json"),
            "detector": self.heartbeat.detector.model_dump(mode="json"),
            "sessions": {"watchers_per_user": 0},
            "preset": None,
        }

    def milestones_at(self, clock: RunClock) -> frozenset[str]:
        """The milestones that a run with this clock can measure: a lag that cannot be sped up spoils the socket's."""
        seen = self.witnesses.milestones
        spoilt = not clock.is_real_time and self.heartbeat.socket_lag > 0
        return seen - {"socket_closed"} if spoilt else seen

    def times(self, clock: RunClock) -> dict[str, object]:
        """The heartbeat's times by the names of their placeholders, real ones of a run with this clock."""
        found: dict[str, object] = {}
        for name in TIMERS:
            time_s = getattr(self.heartbeat, name)
            if time_s is not None:
                real_s = clock.real_s(time_s)
                found[f"{name}_s"] = f"{real_s:.6g}"
                found[f"{name}_ms"] = round(real_s * 1000)
        return found


def _checked_regex(value: str | None) -> str | None:
    if value is not None:
        try:
            re.compile(filled(value, {"client": "x", "user": "x"}))
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
    return value
