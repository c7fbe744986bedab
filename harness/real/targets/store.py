"""The store witness: when Redis forgets that the user of a faulted connection is there.

From a target's record of presence and the clients' connections to the moments at which it was seen gone. It only asks;
keyspace notifications are not used, for they come late or not at all. A record that was never seen before cannot go: a
pattern that names no key shows nothing, instead of a store that forgets at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from harness.real.rest import Rest
from scenarios.target import StoreWitness, filled

__all__ = ["Cleared", "StoreRecords", "is_there"]

_ANSWER_DEADLINE_S = 1.0
_AT_ONCE = 64  # questions in one pipeline: the observer's other witnesses wait meanwhile
_REST = 3  # after them, in lengths of them
_AWAY_S = 0.5  # a store that does not answer is asked again after this


class Cleared(NamedTuple):
    """A record that went between two looks. Real seconds."""

    connection_id: str
    last_seen_s: float
    time_s: float


@dataclass(slots=True)
class _Record:
    """One connection's record of presence."""

    question: tuple[str, ...]
    shows: re.Pattern[str] | None
    seen_s: float | None = None  # when it was last there
    struck: bool = False


class StoreRecords:
    """Watches the records of presence of connections that a fault hits.

    Args:
        witness: what the target file says of its store.
        values: for the placeholders of its texts, as ``redis_url``.
        now_s: real seconds on the run's clock.
    """

    def __init__(
        self, witness: StoreWitness, values: Mapping[str, object], now_s: Callable[[], float]
    ) -> None:
        self._witness, self._values, self._now_s = witness, values, now_s
        self._records: dict[str, _Record] = {}
        self._round: list[str] = []  # whom to ask before the first is asked again
        self._again_s = 0.0
        self._rest = Rest(_REST)
        self._redis = redis.Redis.from_url(
            filled(witness.redis, values),
            socket_timeout=_ANSWER_DEADLINE_S,
            socket_connect_timeout=_ANSWER_DEADLINE_S,
            retry=Retry(NoBackoff(), 0),
        )

    def connected(self, connection_id: str, names: Mapping[str, object]) -> None:
        """Take note of a connection that a fault is planned for, and of the names that its record may hold."""
        words = {**self._values, **names}
        question = tuple(filled(part, words) for part in self._witness.question)
        self._records[connection_id] = _Record(question, self._witness.pattern(words))

    def struck(self, connection_id: str, time_s: float) -> None:
        """Watch a connection's record from now on: its fault took effect at that time."""
        if (record := self._records.get(connection_id)) is not None:
            record.struck = True
            if record.seen_s is not None:
                record.seen_s = max(record.seen_s, time_s)

    def look(self) -> Iterator[Cleared]:
        """Ask for the next few records that have yet to be seen, or to go; yield those that went."""
        if self._now_s() < self._again_s:
            return
        if not self._round:
            self._round = [name for name, one in self._records.items() if one.struck or one.seen_s is None]
        names, self._round = self._round[:_AT_ONCE], self._round[_AT_ONCE:]
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command(*self._records[name].question)  # type: ignore[no-untyped-call]  # redis-py
        asked_s = self._now_s()
        try:
            answers = pipeline.execute(raise_on_error=False)
        except redis.RedisError as error:
            print(f"{asked_s:.3f} s: the store does not answer: {error}", flush=True)
            self._again_s = self._now_s() + _AWAY_S
            return
        answered_s = self._now_s()
        self._again_s = answered_s + self._rest.after(answered_s - asked_s)
        for name, answer in zip(names, answers, strict=True):
            record = self._records[name]
            if isinstance(answer, redis.RedisError):
                print(f"{asked_s:.3f} s: {' '.join(record.question)}: {answer}", flush=True)
                self._again_s = answered_s + _AWAY_S
            elif is_there(answer, record.shows):
                record.seen_s = asked_s
            elif record.seen_s is not None and record.struck:
                del self._records[name]
                yield Cleared(name, record.seen_s, answered_s)

    def close(self) -> None:
        """Drop the connection."""
        self._redis.close()


def is_there(answer: Any, shows: re.Pattern[str] | None) -> bool:
    """Whether an answer to a witness' question says that the record is there, with a value that shows the user."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer > 0  # how many there are; ZSCORE answers in another type
    if isinstance(answer, bytes):
        return shows is None or shows.search(answer.decode(errors="replace")) is not None
    return answer is not None and answer is not False
