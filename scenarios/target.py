"""A target: a server that somebody else wrote. How it is started, spoken to, watched, and what its heartbeat's law is.

Data only. A scenario that names one begins with its heartbeat, as it would with a preset; the files are read by
`target_files.py`. Nothing is changed in the server: what is told to it goes through its command line and environment.

    {port} {http_port}                    a free port, and another one for a server that has two
    {redis_url}                           of the private Redis that `start.services` asks for
    {run_dir} {here} {python}             the run directory, the target file's folder, this Python
    {interval_s} {timeout_s} {interval_ms} {timeout_ms}   the heartbeat's times, as a run at its speedup needs them
    {client} {user} {index}               of a client: a name of this very connection, its user, its number
    and what `login.take` names
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, field_validator, model_validator

from reference_server.durations import Duration, PositiveDuration
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import ClientBeats, DetectorKind, Ping, SendErrors
from scenarios.clock import RunClock
from scenarios.parts import Part

__all__ = [
    "MODELLED",
    "Connect",
    "CountWitness",
    "Grain",
    "Heartbeat",
    "Login",
    "Ready",
    "Rounding",
    "Start",
    "Stop",
    "StoreWitness",
    "Target",
    "Witnesses",
    "at_json_path",
    "filled",
    "filled_in",
]

MODELLED = frozenset({"suspected", "socket_closed"})
"""The milestones of a target that theory and model know: it has no store, watchers or logins of ours."""
TIMERS = ("interval", "timeout")
_NO_SWEEP_S = 0.001  # a timer of its own for each connection, as good as no sweep
_JSON_PATH = r"^\$(\.\w+)*$"
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def filled(text: str, values: Mapping[str, object]) -> str:
    """Put values in the place of their names in braces; every other brace stays as it is."""
    return _PLACEHOLDER.sub(lambda name: str(values.get(name[1], name[0])), text)


def filled_in(body: Any, values: Mapping[str, object]) -> Any:
    """Do `filled` to every text of a JSON value."""
    match body:
        case str():
            return filled(body, values)
        case dict():
            return {key: filled_in(value, values) for key, value in body.items()}
        case list():
            return [filled_in(value, values) for value in body]
    return body


def at_json_path(value: Any, path: str) -> Any:
    """Return what is at a path as ``$.user.token`` or ``$.0.id``; None: nothing is."""
    for name in path.split(".")[1:]:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


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
    services: Annotated[
        tuple[Literal["redis"], ...],
        Field(description="redis: a private one of flatline's, at {redis_url}; it ends with the run"),
    ] = ()
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
        str,
        Field(pattern=r"^wss?://", description="as ws://127.0.0.1:{port}/ws?user={client}; wss: with TLS"),
    ]
    ca: Annotated[
        str, Field(description="wss: file (PEM) of the CA to trust, as {here}/ca.pem; empty: the system's")
    ] = ""
    verifies: Annotated[
        bool, Field(description="wss: false takes any certificate, for a server on loopback alone")
    ] = True
    headers: Annotated[dict[str, str], Field(default_factory=dict)]
    subprotocol: Annotated[str | None, Field(description="null: the dialect's own, if it has one")] = None


class Login(Part):
    """A call over HTTP before a client's first connection; what its JSON answer gives fills `{name}` elsewhere."""

    model_config = ConfigDict(populate_by_name=True)

    post: Annotated[str, Field(pattern=r"^https?://", description="URL, as http://127.0.0.1:{port}/login")]
    json_body: Annotated[
        dict[str, Any],
        Field(alias="json", default_factory=dict, description="what is sent; its texts may hold {user}"),
    ]
    take: Annotated[
        dict[str, Annotated[str, Field(pattern=_JSON_PATH)]],
        Field(min_length=1, description="name: where it is in the answer, as $.token"),
    ]
    known_as: Annotated[
        str | None,
        Field(
            description="which of these the server calls the client by, in its output and store: a witness may "
            "hold it; it is written to the log, so no secret"
        ),
    ] = None

    @model_validator(mode="after")
    def _takes_what_it_is_known_as(self) -> Login:
        if self.known_as is not None and self.known_as not in self.take:
            raise ValueError(f"known_as: {self.known_as!r}; allowed: {', '.join(self.take)}")
        return self


class Rounding(Part):
    """The server's timers fire on whole multiples of a time only. Real time: a faster run does not make it finer."""

    to: Annotated[PositiveDuration, Field(description="as 1s, for whole seconds")]
    way: Literal["up", "down"]
    above: Annotated[Duration, Field(description="timers up to this long are not rounded")] = 0.0


class Grain(NamedTuple):
    """How far a heartbeat's two times may be off in a run, the same for all its connections. Scenario seconds.

    The interval lies in [interval_s, interval_s + interval_spread_s], the timeout likewise.
    """

    interval_s: float
    interval_spread_s: float
    timeout_s: float
    timeout_spread_s: float


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
        PositiveDuration | None,
        Field(
            description="how often it looks: who is idle (idle_limit), or whether a ping is due; null: a timer each"
        ),
    ] = None
    round: Annotated[
        Rounding | None, Field(description="ping_deadline, next_tick: its timers' grain; null: none")
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
        if self.round is not None and not self.pings:
            raise ValueError(f"round: {self.model} has none; allowed: with ping_deadline and next_tick")
        return self

    @property
    def pings(self) -> bool:
        """Whether the server pings, and looks for answers."""
        return self.model in ("ping_deadline", "next_tick")

    def fixed_at(self, speedup: float) -> tuple[str, ...]:
        """Its times that cannot be told to the server, or be made so much shorter."""
        there = [name for name in (*TIMERS, "look_every") if getattr(self, name) is not None]
        if self.round is not None and any(self._is_rounded(name, speedup) for name in TIMERS):
            there.append("round")
        return tuple(name for name in there if name not in self.settable)

    def _is_rounded(self, name: str, speedup: float) -> bool:
        time_s = getattr(self, name)
        return self.round is not None and time_s is not None and time_s / speedup > self.round.above

    def grain_at(self, speedup: float = 1.0) -> Grain | None:
        """How coarse its pings and deadlines are at a speedup, scenario seconds; None: not at all."""
        if not self.pings or (self.round is None and self.look_every is None):
            return None
        lows_s, spreads_s = [], []
        for name in TIMERS:
            time_s = getattr(self, name) if self.model != "next_tick" else self.interval
            assert time_s is not None  # the model has it
            low_s, spread_s = time_s, 0.0
            if name == "interval" and self.look_every is not None:
                spread_s = self.look_every * speedup
            elif self.round is not None and self._is_rounded(name, speedup):
                spread_s = self.round.to * speedup
                low_s -= spread_s if self.round.way == "down" else 0.0
            lows_s.append(max(low_s, _NO_SWEEP_S))
            spreads_s.append(spread_s)
        if self.model == "next_tick":
            lows_s[1], spreads_s[1] = lows_s[0], 0.0
        if not any(spreads_s):
            return None
        return Grain(lows_s[0], spreads_s[0], lows_s[1], spreads_s[1])

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

    def policy_at(self, speedup: float = 1.0) -> LivenessPolicy:
        """The policy with the server's law, its shortest times. Nothing is kept after a decision: nobody resumes."""
        grain = self.grain_at(speedup)
        interval_s = self.interval if grain is None else grain.interval_s
        times: dict[str, Any] = {"heartbeat_interval": interval_s, "session_timeout": None}
        match self.model:
            case "ping_deadline":
                timeout_s = self.timeout if grain is None else grain.timeout_s
                times |= {"heartbeat_timeout": timeout_s, "max_failures": self.misses}
            case "next_tick":
                times |= {"heartbeat_timeout": interval_s, "max_failures": self.misses}
            case "idle_limit":
                sweep_s = self.look_every or _NO_SWEEP_S
                times |= {"session_timeout": self.timeout, "sweep_interval": sweep_s}
            case "intervals":
                assert self.interval is not None
                times |= {"session_timeout": 2 * self.interval, "sweep_interval": self.interval}
            case "never" | "unknown":
                times["heartbeat_interval"] = None
        return LivenessPolicy(**times, first_ping=self.first, resume_window=0.0, max_sessions=None)


class StoreWitness(Part):
    """How Redis records that a user is there: one of key, hash, set, zset; without it the user is gone."""

    redis: Annotated[str, Field(description="URL; {redis_url} is that of `start.services`")] = "{redis_url}"
    key: str | None = None
    hash: str | None = None
    field: Annotated[str | None, Field(description="of the hash; null: the hash itself")] = None
    set: str | None = None
    zset: str | None = None
    member: Annotated[str | None, Field(description="of the set or zset; null: the set itself")] = None
    shows: Annotated[
        str | None,
        Field(
            description="regular expression of a value that shows the user; null: any (of a key or a hash's field)"
        ),
    ] = None

    _is_regex = field_validator("shows", mode="after")(lambda value: _checked_regex(value))

    @model_validator(mode="after")
    def _is_one_record(self) -> StoreWitness:
        given = [name for name in ("key", "hash", "set", "zset") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"got {' and '.join(given) or 'none'}; allowed: one of key, hash, set, zset")
        wrong = {
            "field": self.field is not None and self.hash is None,
            "member": self.member is not None and self.set is None and self.zset is None,
            "shows": self.shows is not None and self.key is None and self.field is None,
        }
        if misplaced := [name for name, is_so in wrong.items() if is_so]:
            raise ValueError(f"{misplaced[0]} does not go with {given[0]}")
        return self

    def pattern(self, values: Mapping[str, object]) -> re.Pattern[str] | None:
        """What a value has to match that shows this client; None: any does."""
        return None if self.shows is None else re.compile(filled(self.shows, values))

    @property
    def question(self) -> tuple[str, ...]:
        """The Redis command whose answer says whether the record is there; its texts hold a client's names."""
        if self.key is not None:
            return ("GET" if self.shows else "EXISTS", self.key)
        if self.hash is not None and self.field is not None:
            return ("HGET" if self.shows else "HEXISTS", self.hash, self.field)
        if self.set is not None and self.member is not None:
            return ("SISMEMBER", self.set, self.member)
        if self.zset is not None and self.member is not None:
            return ("ZSCORE", self.zset, self.member)
        return ("EXISTS", self.hash or self.set or self.zset or "")


class CountWitness(Part):
    """A number of connections that the server itself tells: a curve, which pairs no clients."""

    model_config = ConfigDict(populate_by_name=True)

    http: Annotated[str | None, Field(description="URL of a JSON answer")] = None
    json_path: Annotated[
        str, Field(alias="json", pattern=_JSON_PATH, description="where it is: a number, or a list to count")
    ] = "$"
    prometheus: Annotated[str | None, Field(description="URL of metrics in Prometheus' text form")] = None
    metric: Annotated[
        str | None, Field(description='of it: a gauge, its labels if wanted, as connections{kind="ws"}')
    ] = None
    every: Annotated[PositiveDuration, Field(description="real time from one question to the next")] = 0.5

    @model_validator(mode="after")
    def _is_one_source(self) -> CountWitness:
        if (self.http is None) == (self.prometheus is None):
            raise ValueError("allowed: http and json, or prometheus and metric")
        if (self.metric is None) != (self.prometheus is None):
            raise ValueError("prometheus needs metric, and http has none")
        return self


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
    store_cleared: Annotated[
        StoreWitness | None, Field(description="the record of a user's presence in Redis")
    ] = None
    peers_notified: Annotated[
        Literal["dialect"] | None,
        Field(description="another client of the server is told: its dialect knows the message"),
    ] = None
    count: Annotated[CountWitness | None, Field(description="how many connections the server tells of")] = (
        None
    )

    revival: Annotated[
        bool,
        Field(
            description="each client whose fault heals asks at once whether the server still holds it: one bit a "
            "client; when clients are given up is in the table revival_law, and is no milestone"
        ),
    ] = False

    _is_regex = field_validator("suspected", mode="after")(lambda value: _checked_regex(value))

    @property
    def milestones(self) -> frozenset[str]:
        """Those that somebody sees."""
        names = type(self).model_fields.keys() - {"count", "revival"}
        return frozenset(name for name in names if getattr(self, name) is not None)


class Target(Part):
    """A server that somebody else wrote, unchanged."""

    target: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", description="its name")]
    title: str = ""
    start: Annotated[Start | None, Field(description="null: it runs already, at the port of its url")] = None
    ready: Ready = Ready()
    stop: Stop = Stop()
    connect: Connect
    login: Annotated[Login | None, Field(description="null: the handshake or the dialect says who it is")] = (
        None
    )
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

    @model_validator(mode="after")
    def _witnesses_name_a_client(self) -> Target:
        names = ["client", "user"]
        if self.login is not None and self.login.known_as is not None:
            names.append(self.login.known_as)
        store = self.witnesses.store_cleared
        patterns = {
            "suspected": self.witnesses.suspected,
            "store_cleared": None if store is None else " ".join(store.question),
        }
        for witness, pattern in patterns.items():
            if pattern is not None and not any("{" + name + "}" in pattern for name in names):
                allowed = " or ".join("{" + name + "}" for name in names)
                raise ValueError(
                    f"witnesses.{witness} names no client; allowed: a pattern that holds {allowed}"
                )
        return self

    @property
    def dialect_name(self) -> str:
        """Its dialect's name, or FILE.py:CLASS."""
        return self.dialect if isinstance(self.dialect, str) else next(iter(self.dialect))

    @property
    def dialect_options(self) -> dict[str, Any]:
        """What the dialect is told."""
        return {} if isinstance(self.dialect, str) else next(iter(self.dialect.values()))

    def scenario_keys_at(self, speedup: float) -> dict[str, Any]:
        """What a scenario for it has, whatever its file says: the server has no policy, store or nodes of ours."""
        watchers = 0 if self.witnesses.peers_notified is None else 1
        return {
            "liveness": self.heartbeat.policy_at(speedup).model_dump(mode="json"),
            "detector": self.heartbeat.detector.model_dump(mode="json"),
            "sessions": {"watchers_per_user": watchers},
            "preset": None,
        }

    def without(self, witnesses: Iterable[str]) -> Target:
        """The target that these witnesses of it do not watch."""
        left = self.witnesses.model_copy(update=dict.fromkeys(witnesses))
        return self.model_copy(update={"witnesses": left})

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
            re.compile(_PLACEHOLDER.sub("x", value))
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
    return value
