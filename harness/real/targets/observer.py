"""The observer: starts a server that is not ours, reads its output, and looks at its sockets in the kernel.

    python -m harness.real.targets.observer --run-dir DIR --origin-s X --port P --http-port H --redis-url URL

From the run's scenario (its target), the clients' event logs and the server's output to `socket_closed`, `suspected`,
`store_cleared` (`store.py`) and `connections_counted` (`counts.py`) events in `observer.jsonl`. The server runs on a
terminal of its own, so that it writes by the line, in this process's group; it sees neither our code nor our
environment but what the target file says. It is ended with this process.

The sockets of faulted clients are looked up every few milliseconds, less often where there are so many that looking
takes more than a quarter of the time. `previous_poll_s` is the last look that found the server's end open.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from harness.events.tail import CLIENT_LOGS, LogTail
from harness.real.processes import die_with_parent
from harness.real.rest import Rest
from harness.real.targets.counts import Counts
from harness.real.targets.describe import command_of, environment_of, values_of, write_files
from harness.real.targets.sock_diag import HELD, SockDiag, address_of, question
from harness.real.targets.store import StoreRecords
from harness.runs.directory import RunDir
from reference_server.event_log import EventWriter
from reference_server.events import Cause, Event, EventKind, Source, decode
from scenarios.load import load_scenario
from scenarios.plan import Plan
from scenarios.target import Target, filled

__all__ = ["LogWitness", "Observer", "main"]

_LOOK_EVERY_S = 0.004
_REST = 3  # after a look, in lengths of it
_FILES_EVERY_S = 0.25
_FLUSH_EVERY_S = 0.2
_LAG_EVERY_S = 0.5
_KNOWN_WITHIN_S = 2.0  # a client's log is written to its file five times a second
_CHUNK = 65536
_TAIL_LINES = 20
_WANTED = (b'"kind":"connected"', b'"kind":"fault_injected"')
_CAUSES = {
    Cause.TCP_RESET: ("reset", "broken pipe"),
    Cause.HEARTBEAT: ("timeout", "timed out", "ping", "heartbeat", "keepalive", "idle", "1011"),
    Cause.CLOSE_FRAME: ("1000", "1001", "client disconnect", "client namespace disconnect"),
}
_CONNECTION = r"(?P<client>c\d+x\d+)"
_USER = r"(?P<user>user-\d+)"
_KNOWN = r"(?P<known>[\w.:@~-]+)"


class LogWitness:
    """Finds the lines of a server's output that tell of a suspicion. Pure.

    Args:
        pattern: of the target file, with {client}, {user}, or the name that the login gives in it.
        known_as: that name.
    """

    def __init__(self, pattern: str, known_as: str | None = None) -> None:
        words = {"client": _CONNECTION, "user": _USER}
        if known_as is not None:
            words[known_as] = _KNOWN
        self._pattern = re.compile(filled(pattern, words))
        self._latest: dict[str, str] = {}  # user or name: its last connection

    def connected(self, connection: str, *names: str) -> None:
        """Take note of a connection of a user, and of other names for it."""
        self._latest |= dict.fromkeys(names, connection)

    def tells(self, line: str) -> bool:
        """Whether a line tells of a suspicion, be its connection known by now or not."""
        return self._pattern.search(line) is not None

    def suspicion(self, line: str) -> tuple[str, Cause | None] | None:
        """Return the connection that a line tells of, and its cause in our words; None: it tells of none."""
        found = self._pattern.search(line)
        if found is None:
            return None
        named = found.groupdict()
        known = named.get("user") or named.get("known") or ""
        connection = named.get("client") or self._latest.get(known, "")
        return (connection, cause_of(named.get("cause") or "")) if connection else None


def cause_of(said: str) -> Cause | None:
    """What a server calls a cause, in our words; None: it says too little, as a close code that was never sent."""
    if said in set(Cause):
        return Cause(said)
    said = said.lower().replace("_", " ")
    for cause, words in _CAUSES.items():
        if any(word in said for word in words):
            return cause
    return None


@dataclass(slots=True)
class _Watched:
    """A faulted client's connection."""

    connection_id: str
    question: bytes  # what the kernel is asked of the server's end
    open_s: float  # when it was last known to be open


class Observer:
    """Watches one server from outside. Real seconds on the run's clock.

    Args:
        target: what is watched, by which witnesses.
        run: where the clients log.
        origin_s: CLOCK_MONOTONIC at the run's origin.
        out: where to write.
        values: for the placeholders of what asks the server.
    """

    def __init__(
        self, target: Target, run: RunDir, origin_s: float, out: EventWriter, values: Mapping[str, object]
    ) -> None:
        self._origin_s, self._out = origin_s, out
        self._diag = SockDiag() if target.witnesses.socket_closed == "kernel" else None
        pattern = target.witnesses.suspected
        self._known_as = target.login.known_as if target.login is not None else None
        self._log_witness = None if pattern is None else LogWitness(pattern, self._known_as)
        self._tail = LogTail(run.logs, CLIENT_LOGS)
        self._questions: dict[str, bytes] = {}  # connection: what to ask of the server's end
        self._watched: list[_Watched] = []
        self._look_s = self._files_s = self._flush_s = self._lag_s = 0.0
        self._rest = Rest(_REST)
        self._unknown: list[tuple[str, float]] = []  # lines about connections that no client has told of yet
        self._worst_s = 0.0  # of its own lag since the last sample
        watched = target.witnesses
        self._store = self._counts = None
        if watched.store_cleared is not None:
            self._store = StoreRecords(watched.store_cleared, values, self.now_s)
        self._faulted = {fault.client for fault in Plan.load(run.plan).faults}
        if watched.count is not None:
            self._counts = Counts(watched.count, values, self.now_s)

    def now_s(self) -> float:
        """Real seconds since the run's origin."""
        return time.monotonic() - self._origin_s

    def line(self, text: str, time_s: float) -> None:
        """Take a line of the server's output."""
        if self._log_witness is None or not self._log_witness.tells(text):
            return
        if (found := self._log_witness.suspicion(text)) is None:
            # The server may be quicker than the log of the client that it has just let in.
            self._unknown.append((text, time_s))
        else:
            connection, cause = found
            detail: dict[str, object] = {"witness": "log", "line": text[:200]}
            self._write(time_s, EventKind.SUSPECTED, connection, cause, detail)

    def late_by(self, late_s: float) -> None:
        """Take note of how late a line may have been read: that is no delay of the server's."""
        self._worst_s = max(self._worst_s, late_s)
        if (now_s := self.now_s()) >= self._lag_s:
            detail: dict[str, object] = {"max_lag_s": self._worst_s, "role": "observer", "pid": os.getpid()}
            self._out.write(Event(now_s, Source.OBSERVER, EventKind.LOOP_LAG, detail=detail))
            self._worst_s, self._lag_s = 0.0, now_s + _LAG_EVERY_S

    def step(self) -> float:
        """Do what is due; return the real seconds until something is again."""
        now_s = self.now_s()
        if now_s >= self._files_s:
            self._tail.find_files()
            self._files_s = now_s + _FILES_EVERY_S
        for line in self._tail.new_lines():
            if any(wanted in line for wanted in _WANTED):
                self._told(decode(line))
        unknown, self._unknown = self._unknown, []
        for text, time_s in unknown:
            if now_s - time_s < _KNOWN_WITHIN_S:
                self.line(text, time_s)
        self._ask()
        if (look_s := self.now_s()) >= self._look_s:
            self._look()
            took_s = self.now_s() - look_s
            self._look_s = look_s + max(_LOOK_EVERY_S, took_s + self._rest.after(took_s))
        if now_s >= self._flush_s:
            self._out.flush()
            self._flush_s = now_s + _FLUSH_EVERY_S
        return max(0.0, self._look_s - self.now_s())

    def _told(self, event: Event) -> None:
        if event.source is not Source.CLIENT:
            return
        if event.kind is EventKind.CONNECTED and "server" in event.detail:
            ends = (address_of(event.detail["server"]), address_of(event.detail["address"]))
            self._questions[event.connection_id] = question(*ends)
            index, user, known = (event.detail.get(key, "") for key in ("client", "user_id", "known_as"))
            if self._log_witness is not None:
                self._log_witness.connected(event.connection_id, user, *filter(None, [known]))
            if self._store is not None and index in self._faulted:
                names = {"client": event.connection_id, "user": user, "index": index}
                names |= {self._known_as: known} if self._known_as is not None else {}
                self._store.connected(event.connection_id, names)
        elif event.kind is EventKind.FAULT_INJECTED and event.connection_id in self._questions:
            watched = _Watched(event.connection_id, self._questions[event.connection_id], event.time_s)
            self._watched.append(watched)
            if self._store is not None:
                self._store.struck(event.connection_id, event.time_s)

    def _ask(self) -> None:
        for gone in self._store.look() if self._store is not None else ():
            found: dict[str, object] = {"witness": "store", "previous_poll_s": gone.last_seen_s}
            self._write(gone.time_s, EventKind.STORE_CLEARED, gone.connection_id, None, found)
        for time_s, count in self._counts.new() if self._counts is not None else ():
            said = {"witness": "count", "count": count}
            self._out.write(
                Event(time_s, Source.OBSERVER, EventKind.CONNECTIONS_COUNTED, node="node-1", detail=said)
            )

    def _look(self) -> None:
        if self._diag is None:
            return
        asked_s = self.now_s()
        states = self._diag.states([one.question for one in self._watched])
        answered_s = self.now_s()
        still = []
        for one, state in zip(self._watched, states, strict=True):
            if state in HELD:
                one.open_s = asked_s
                still.append(one)
            else:
                seen: dict[str, object] = {"witness": "kernel", "previous_poll_s": one.open_s}
                self._write(answered_s, EventKind.SOCKET_CLOSED, one.connection_id, None, seen)
        self._watched = still

    def _write(
        self, time_s: float, kind: EventKind, connection: str, cause: Cause | None, detail: dict[str, object]
    ) -> None:
        self._out.write(
            Event(time_s, Source.OBSERVER, kind, connection, connection, "node-1", cause or "", detail)
        )

    def close(self) -> None:
        """Look no more."""
        self._tail.close()
        if self._store is not None:
            self._store.close()
        if self._counts is not None:
            self._counts.close()
        if self._diag is not None:
            self._diag.close()


class Server:
    """The server's process on a terminal of its own; None as ``target.start``: it runs already."""

    def __init__(self, target: Target, run: RunDir, port: int, values: dict[str, object]) -> None:
        self._target, self._port = target, port
        self._log = (run.logs / "target.log").open("ab", buffering=0)
        self._rest = b""
        self.tail: list[str] = []
        self.popen: subprocess.Popen[bytes] | None = None
        self.terminal: int | None = None
        if target.start is None:
            return
        write_files(target.start, run.logs, values)
        self.terminal, slave = pty.openpty()
        modes = termios.tcgetattr(slave)
        modes[1] &= ~termios.OPOST  # a newline stays a newline
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        wrapper = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())]
        self.popen = subprocess.Popen(
            [*wrapper, *command_of(target, values)],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env=environment_of(target.start, values),
            cwd=target.folder or None,
        )
        os.close(slave)

    def lines(self, timeout_s: float) -> list[str]:
        """Wait for output for so long, and return the lines that are whole by now."""
        if self.terminal is None:
            time.sleep(timeout_s)
            return []
        ready, _, _ = select.select([self.terminal], [], [], timeout_s)
        if not ready:
            return []
        try:
            data = os.read(self.terminal, _CHUNK)
        except OSError:  # the other end is closed: the server has ended
            time.sleep(timeout_s)
            return []
        self._log.write(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = [line.decode(errors="replace").rstrip("\r") for line in whole]
        self.tail = [*self.tail, *lines][-_TAIL_LINES:]
        return lines

    @property
    def ended(self) -> int | None:
        """Its exit code; None: it runs, or it is not ours."""
        return None if self.popen is None else self.popen.poll()

    def listens(self) -> bool:
        """Whether its port accepts a connection, at the address that clients are to use."""
        host = urlsplit(self._target.connect.url).hostname
        try:
            socket.create_connection((host, self._port), timeout=0.5).close()
        except OSError:
            return False
        return True

    def stop(self, observer: Observer) -> None:
        """End it as the target file says; what it writes meanwhile is read."""
        if self.popen is None:
            return
        stop = self._target.stop
        with suppress(ProcessLookupError):
            self.popen.send_signal(signal.Signals[stop.signal])
        deadline_s = time.monotonic() + stop.grace
        while self.popen.poll() is None and time.monotonic() < deadline_s:
            self.lines(0.05)
        self.popen.kill()
        self.popen.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM, or until the server ends by itself, which is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--origin-s", type=float, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--redis-url", default="")
    told = parser.parse_args(argv)
    run = RunDir(told.run_dir)
    scenario = load_scenario(str(run.scenario))
    target = Target.model_validate(run.read_json(run.target))
    ports = told.port, told.http_port
    values = values_of(target, scenario.clock, ports, run.logs, told.redis_url)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # before the server starts it is set back there
    with ExitStack() as stack:
        out = stack.enter_context(EventWriter(run.log("observer")))
        observer = Observer(target, run, told.origin_s, out, values)
        stack.callback(observer.close)
        server = Server(target, run, told.port, values)
        if server.popen is not None:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, server.popen.pid, 0)
        ready = target.ready
        seen_log = ready.log is None or server.popen is None
        is_ready = False
        wait_s = 0.0
        woke_s = observer.now_s()
        while not stopping:
            slept_s = observer.now_s()
            lines = server.lines(wait_s)
            worked_s, woke_s = slept_s - woke_s, observer.now_s()
            observer.late_by(max(worked_s, woke_s - slept_s - wait_s))
            for line in lines:
                seen_log = seen_log or re.search(ready.log or "", line) is not None
                observer.line(line, observer.now_s())
            if server.ended is not None:
                print(
                    f"{target.target} ended with exit code {server.ended}:",
                    *server.tail,
                    sep="\n",
                    flush=True,
                )
                return 1
            if not is_ready and seen_log and (not ready.tcp or server.listens()):
                is_ready = True
                pid = server.popen.pid if server.popen is not None else None
                run.write_json(run.ready_file("target"), {"port": told.port, "http_port": 0, "pid": pid})
                observer_began(out, observer)
            wait_s = observer.step() if is_ready else 0.02
        server.stop(observer)
    return 0


def observer_began(out: EventWriter, observer: Observer) -> None:
    """Say that there is an observer, for one that sees nothing has a log as well."""
    out.write(Event(observer.now_s(), Source.OBSERVER, EventKind.WITNESS_READY))
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
