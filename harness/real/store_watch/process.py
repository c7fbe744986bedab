"""The store watch: a process that sees for itself when Redis forgets the sessions of faulted clients.

    python -m harness.real.store_watch.process --redis URL --prefix P --logs DIR --out FILE --origin-s X

From the clients' event logs (`client-*.jsonl` of DIR: which sessions there are, which are faulted), the
harness's of incidents (`incidents-*.jsonl`) and Redis, polled, to `store_cleared` (rules: `store_clearing.py`),
`ghosts_gone` and `store_agrees` (rules: `harness/events/store_convergence.py`), `store_sample` and `loop_lag` events.
It asks the gateway nothing, so it goes on when that is frozen, and it does not rely on keyspace notifications,
which come late or not at all.

The faulted sessions are looked at every few milliseconds, less often where there are so many that the looks would
take more than a fifth of its time. It looks whether the store shows whoever is connected (rules:
`harness/events/presence_watch.py`) and counts the existing keys of the sessions that clients were given (``EXISTS``;
``SCAN`` would walk every key of the server): each of them once a second, or more rarely where there are very many, some
at a time between two looks. Once a second a sample says what was counted, how many users have a status, how many
members the online set, and how often each command was called (``INFO commandstats``, without the watch's own calls).
Redis may be down, stalled or restarted: the watch keeps asking. `previous_poll_s` of a `store_cleared` then shows how
wide its moment is, and `store_gap_s` of the next sample how long no answer came (`store_wait_s`: the longest wait for
one that did; `largest_gap_s`: the longest time between two looks at the faulted sessions).
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Where OpenTelemetry is installed, redis-py would import it: a third of this process's start.
sys.modules["opentelemetry"] = None  # type: ignore[assignment]

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from harness.events.presence_watch import PresenceWatch
from harness.events.store_convergence import WANTED, Records, StoreConvergence
from harness.events.tail import CLIENT_LOGS, INCIDENT_LOGS, LogTail
from harness.real.rest import Rest
from harness.real.store_watch.store_clearing import StoreClearing
from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source, decode

__all__ = ["Store", "Watch", "main"]

ROLE = "store-watch"
_SAMPLE_CHUNK = 1000  # keys in one EXISTS
_LAG_EVERY_S = 0.5
_LOOK_FOR_FILES_EVERY_S = 0.25
_ANSWER_DEADLINE_S = 1.0
_OUT_OF_REACH = (redis.ConnectionError, redis.TimeoutError)
# Most lines of a client's log are other events: a search for bytes passes over them unparsed.
_WANTED = tuple(f'"kind":"{kind}"'.encode() for kind in sorted(WANTED))
_ASK_CHUNK = 500  # sessions in one MGET
_REST = 4  # after a look, in lengths of it: at most a fifth of the time of Redis
# Commands that touch no record, and those that only the watch uses (MGET, EXISTS, ZCARD). A script's own calls are
# counted by Redis themselves.
_NO_RECORDS = re.compile(
    r"cmdstat_(acl|auth|client|cluster|command|config|echo|eval|evalsha|exec|exists|flush\w+|hello|info|mget|multi|ping|"
    r"publish|p?(un)?subscribe|reset|script|select|zcard)(\|.*)?"
)
_SESSIONS_PER_S = 10_000  # asked for, counted: twice as many were a quarter of a core beside 40,000 clients

_log = logging.getLogger(ROLE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What Redis said, and between which two moments; seconds since the origin."""

    value: Any
    asked_s: float
    answered_s: float


class _Packer:
    """Packs commands as redis-py does, but for its `tuple` of a generator.

    CPython makes such a tuple of another size than it keeps it for reuse when it is done: the lists of kept tuples grow
    with every command, up to 2,000 of each size below 20.
    """

    def pack(self, *args: Any) -> list[bytes]:
        return [hiredis.pack_command((*args[0].encode().split(), *args[1:]))]


class Store:
    """A Redis that may be away. Asks once a question, waits 1 s at most, keeps account of gaps."""

    def __init__(self, url: str, now_s: Callable[[], float]) -> None:
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=_ANSWER_DEADLINE_S,
            socket_connect_timeout=_ANSWER_DEADLINE_S,
            retry=Retry(NoBackoff(), 0),
            command_packer=_Packer(),
        )
        self._now_s = now_s
        self.answered_s = now_s()
        self._away = False
        self.gap_s = 0.0  # longest time without an answer since this was last set to 0
        self.wait_s = 0.0  # longest wait for one answer since this was last set to 0
        self.waited_s = 0.0  # for answers, in all

    def ask(self, question: Callable[[redis.Redis], Any]) -> Answer | None:
        """Ask something; None: Redis does not answer now."""
        asked_s = self._now_s()
        try:
            value = question(self._redis)
        except _OUT_OF_REACH as error:
            if not self._away:
                _log.warning("%.3f s: Redis does not answer: %s", asked_s, error)
            self._away = True
            return None
        finally:
            answered_s = self._now_s()
            self.waited_s += answered_s - asked_s
        if self._away:
            gap_s = answered_s - self.answered_s
            _log.warning("%.3f s: Redis answers again, after %.3f s", answered_s, gap_s)
            self.gap_s = max(self.gap_s, gap_s)
        self._away, self.answered_s = False, answered_s
        self.wait_s = max(self.wait_s, answered_s - asked_s)
        return Answer(value, asked_s, answered_s)

    def close(self) -> None:
        """Drop the connection."""
        self._redis.close()


class Watch:
    """Reads logs, asks the store, writes events."""

    def __init__(
        self, store: Store, tails: Sequence[LogTail], out: EventWriter, prefix: str, sample_s: float
    ) -> None:
        self._store, self._tails, self._out = store, tails, out
        self._prefix = prefix
        self._online_key = f"{prefix}online"
        self._sample_s = sample_s
        self._clearing = StoreClearing(prefix)
        self._convergence = StoreConvergence()
        self._presence = PresenceWatch()
        self._looked_s: float | None = None  # at the faulted sessions
        self._largest_gap_s = 0.0  # between two such looks, since the last sample
        self.look_took_s = 0.0  # the last of them, of Redis's time
        self._next_look_s = self._next_sample_s = self._next_comparison_s = 0.0
        self._next_shown_s = self._next_count_s = 0.0
        self._uncounted: list[bytes] = []  # session keys that this count has not asked for yet
        self._found = 0  # of those that it has, how many exist
        self._sessions = 0  # that existed by the last count of all

    def read_logs(self, now_s: float) -> None:
        """Take up what clients and harness have logged since the last call."""
        if now_s >= self._next_look_s:
            for tail in self._tails:
                tail.find_files()
            self._next_look_s = now_s + _LOOK_FOR_FILES_EVERY_S
        for tail in self._tails:
            for line in tail.new_lines():
                if any(kind in line for kind in _WANTED):
                    self._take(line)

    def ask(self, now_s: float) -> None:
        """Do one poll; what it saw is with the operating system when it returns."""
        queries, waited_s = self._clearing.queries(), self._store.waited_s
        for query in queries:
            answer = self._store.ask(partial(redis.Redis.mget, keys=query.keys))
            if answer is None:
                break
            for event in self._clearing.on_answer(query, answer.value, answer.asked_s, answer.answered_s):
                self._out.write(event)
        else:
            if queries and self._looked_s is not None:
                self._largest_gap_s = max(self._largest_gap_s, self._store.answered_s - self._looked_s)
            self._looked_s = self._store.answered_s if queries else None
        self.look_took_s = self._store.waited_s - waited_s
        if now_s >= self._next_comparison_s:
            self._next_comparison_s = now_s + self._compare(now_s)
        if now_s >= self._next_shown_s:
            self._next_shown_s = now_s + self._look_who_is_shown()
        if now_s >= self._next_count_s:
            self._next_count_s = now_s + self._count_some()
        if now_s >= self._next_sample_s and self._sample():
            self._next_sample_s = now_s + self._sample_s
        self._out.flush()

    def _take(self, line: bytes) -> None:
        try:
            event = decode(line)
        except ValueError as error:  # a client was killed in mid-line, and its file goes on
            _log.warning("passed over: %s", error)
            return
        self._clearing.on_client_event(event)
        self._presence.take(event)
        self._convergence.take(event)

    def _compare(self, now_s: float) -> float:
        """Ask for what an incident has hit; return how long that is to suffice, in seconds."""
        asked = self._convergence.questions()
        sessions = list(asked)
        found: dict[str, Records] = {}
        began_s = answered_s = now_s
        for n in range(0, len(sessions), _ASK_CHUNK):
            chunk = sessions[n : n + _ASK_CHUNK]
            keys = [f"{self._prefix}session:{one}" for one in chunk]
            keys += [f"{self._prefix}status:{asked[one]}" for one in chunk]
            answer = self._store.ask(partial(redis.Redis.mget, keys=keys))
            if answer is None:
                return 0.0
            began_s, answered_s = (began_s if n else answer.asked_s), answer.answered_s
            half = len(chunk)
            for one, record, status in zip(chunk, answer.value[:half], answer.value[half:], strict=True):
                owner = None if record is None else record.decode().rpartition("|")[2]
                found[one] = (owner, None if status is None else status.decode())
        for event in self._convergence.answer(found, began_s, answered_s):
            self._out.write(event)
        return len(sessions) / _SESSIONS_PER_S

    def _sample(self) -> bool:
        clearing = self._clearing
        absent = [f"{self._prefix}status:{user}" for user in self._presence.absent]
        answer = self._store.ask(lambda r: _count(r, absent, clearing.left_keys, self._online_key))
        if answer is None:
            return False
        shown, left, online, commands = answer.value
        detail = {
            "sessions": self._sessions + clearing.on_left(left),
            "shown": self._presence.shown + shown,
            "online": online,
            "watched": len(self._clearing.watched),
            "store_gap_s": self._store.gap_s,
            "store_wait_s": self._store.wait_s,
            "largest_gap_s": self._largest_gap_s,
            "commands": commands,
        }
        self._store.gap_s = self._store.wait_s = self._largest_gap_s = 0.0
        self._out.write(Event(answer.answered_s, Source.STORE, EventKind.STORE_SAMPLE, detail=detail))
        return True

    def _look_who_is_shown(self) -> float:
        """Look for those who have waited longest; return how long until the next ones, in seconds."""
        asked = self._presence.questions(_ASK_CHUNK)
        keys = [f"{self._prefix}status:{user}" for user in asked.values()]
        if asked:
            answer = self._store.ask(partial(redis.Redis.mget, keys=keys))
            if answer is None:
                return 0.0
            found = [None if status is None else status.decode() for status in answer.value]
            statuses = dict(zip(asked, found, strict=True))
            for event in self._presence.answer(statuses, answer.asked_s, answer.answered_s):
                self._out.write(event)
        return self._pause_s(len(asked), len(self._presence))

    def _count_some(self) -> float:
        """Count on; return how long until the next ones, in seconds."""
        uncounted = self._uncounted or list(self._clearing.session_keys)
        part, rest = uncounted[:_SAMPLE_CHUNK], uncounted[_SAMPLE_CHUNK:]
        if part:
            answer = self._store.ask(lambda r: r.exists(*part))
            if answer is None:
                return 0.0
            self._found += answer.value
        if not rest:
            self._sessions, self._found = self._found, 0
        self._uncounted = rest
        return self._pause_s(len(part), len(self._clearing.session_keys))

    def _pause_s(self, some: int, of: int) -> float:
        """How long to wait after some of so many: all have their turn within a sample, unless they are too many."""
        return max(self._sample_s * (some / max(1, of) if some else 1.0), some / _SESSIONS_PER_S)


def _count(
    r: redis.Redis, status_keys: Sequence[str], left_keys: Sequence[bytes], online_key: str
) -> tuple[int, list[bytes | None], int, dict[str, int]]:
    """Count statuses and members of the online set, and calls of each command; read what was left."""
    pipeline = r.pipeline(transaction=False)
    for n in range(0, len(status_keys), _SAMPLE_CHUNK):
        pipeline.exists(*status_keys[n : n + _SAMPLE_CHUNK])
    rest = len(pipeline)
    for n in range(0, len(left_keys), _SAMPLE_CHUNK):
        pipeline.mget(left_keys[n : n + _SAMPLE_CHUNK])
    pipeline.zcard(online_key)
    pipeline.info("commandstats")
    answers = pipeline.execute()
    calls = {
        name.removeprefix("cmdstat_"): int(found["calls"])
        for name, found in answers[-1].items()
        if not _NO_RECORDS.fullmatch(name)
    }
    left = [value for chunk in answers[rest:-2] for value in chunk]
    return sum(answers[:rest]), left, answers[-2], calls


def _run(watch: Watch, store: Store, out: EventWriter, poll_s: float, now_s: Callable[[], float]) -> None:
    """Poll until SIGTERM or Ctrl-C, and once more after it.

    The loop's lag is what this process adds to the resolution of its polls: a question that left late, or
    work of its own that is longer than a poll. A store that makes it wait is `store_wait_s` instead.
    """
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # they are taken in between two polls only
    due_s = now_s()
    max_lag_s, next_lag_s = 0.0, due_s + _LAG_EVERY_S
    rest, last = Rest(_REST), False
    while True:
        woke_s, waited_s = now_s(), store.waited_s
        watch.read_logs(woke_s)
        asked_s = now_s()
        watch.ask(asked_s)
        done_s = now_s()
        work_s = done_s - woke_s - (store.waited_s - waited_s)
        max_lag_s = max(max_lag_s, asked_s - due_s, work_s - poll_s)
        if done_s >= next_lag_s or last:
            detail = {"max_lag_s": max_lag_s, "role": ROLE, "pid": os.getpid()}
            out.write(Event(done_s, Source.STORE, EventKind.LOOP_LAG, detail=detail))
            out.flush()
            max_lag_s, next_lag_s = 0.0, done_s + _LAG_EVERY_S
        if last:
            return
        took_s = watch.look_took_s
        due_s = max(due_s + poll_s, done_s, asked_s + took_s + rest.after(took_s))
        told = signal.sigtimedwait(ends, max(0.0, due_s - now_s()))
        # Python returns something, too, when another signal (a debugger's) interrupts a wait that is over by then.
        last = told is not None and told.si_signo in ends


def main() -> None:
    """Run the watch until it is told to end."""
    parser = argparse.ArgumentParser(description="Note when Redis forgets faulted sessions.")
    parser.add_argument("--redis", required=True, help="URL")
    parser.add_argument("--prefix", required=True, help="of the keys of the run")
    parser.add_argument("--logs", type=Path, required=True, help="folder of client-*.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="event log to append to")
    parser.add_argument("--origin-s", type=float, required=True, help="CLOCK_MONOTONIC at the run's origin")
    parser.add_argument("--poll-ms", type=float, default=5.0)
    parser.add_argument("--sample-ms", type=float, default=1000.0)
    options = parser.parse_args()
    origin_s: float = options.origin_s
    logging.basicConfig(format="%(name)s: %(message)s")

    def now_s() -> float:
        return time.monotonic() - origin_s

    store = Store(options.redis, now_s)
    # What was imported stays: without it a collection of all is due often, and garbage in cycles does not pile up.
    gc.collect()
    gc.freeze()
    with (
        LogTail(options.logs, CLIENT_LOGS) as clients,
        LogTail(options.logs, INCIDENT_LOGS) as incidents,
        EventWriter(options.out) as out,
    ):
        watch = Watch(store, (clients, incidents), out, options.prefix, options.sample_ms / 1000)
        _run(watch, store, out, options.poll_ms / 1000, now_s)
    store.close()


if __name__ == "__main__":
    main()
