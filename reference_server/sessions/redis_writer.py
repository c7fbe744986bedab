"""Lua calls to Redis from a whole gateway, gathered into pipelines: one in flight at a time.

From calls that anybody may submit at any time, without awaiting, to their answers in the order of
submission. Knows what a script is, not what it means.

There are two kinds. A *request* (a login) fails at once with `StoreUnavailable` when Redis does not answer:
somebody waits for it. A *durable* call (a clean-up, a refresh) is retried until Redis acknowledges it. A newer
durable call with the same key replaces it, so the queue is bounded by the number of keys: one a connection.
Scripts must bear being executed twice: a pipeline that failed may have been carried out.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from reference_server.errors import MachineError

__all__ = ["STORE_LOST", "Answer", "Call", "StoreUnavailable", "StoreWriter", "open_redis"]

STORE_LOST = (RedisError, OSError, TimeoutError, RuntimeError)
"""What a lost connection to Redis raises; RuntimeError: uvloop, of a transport that was reset a moment ago."""

_GATHER_S = 0.002
_COMPANY_S = 0.1  # so long after calls met each other more of them are expected, and waited for
_MOST_PER_PIPELINE = 128  # a pipeline keeps Redis and our own loop busy for about 5 ms at most
_ANSWER_DEADLINE_S = 1.0
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 1.0
# Answers of a Redis that cannot serve now, as against answers to a wrong question.
_NOT_NOW = (BusyLoadingError, ReadOnlyError, OutOfMemoryError, NoScriptError)
# The same from within a script: "ERR Error running script (…): -MISCONF Redis is configured to …"
_NOT_NOW_IN_SCRIPT = re.compile(r"\b(MISCONF|READONLY|OOM|NOREPLICAS|MASTERDOWN|LOADING|BUSY)\b")

_log = logging.getLogger(__name__)


class StoreUnavailable(MachineError):
    """Redis does not answer, or cannot serve now; whether the call was carried out is unknown."""


Answer = Any
"""What a script returned, as redis-py reads it; or a `StoreUnavailable`."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script. With a ``durable_key`` it is retried until it is done; None: a request.

    Two are equal that do the same, whoever waits for the answer.
    """

    script: str  # its Lua text
    keys: tuple[str, ...]
    args: tuple[str | int, ...]
    done: Callable[[Answer], None] | None = field(default=None, compare=False)
    durable_key: str | None = None


def open_redis(url: str, answers_in_s: float | None = _ANSWER_DEADLINE_S) -> Redis:
    """Return a client that waits so long for each answer at most and does not try again by itself.

    Args:
        url: of a Redis.
        answers_in_s: None: it is for whoever asks to wait no longer than that, which spares a timer an answer.

    Raises:
        ValueError: the URL is not one of a Redis.
    """
    patience: dict[str, Any] = {}
    if hasattr(socket, "TCP_USER_TIMEOUT") and not url.startswith("unix"):
        # The kernel gives up when we do: what was asked before a partition would else arrive after it.
        options = {socket.TCP_USER_TIMEOUT: round(1000 * _ANSWER_DEADLINE_S)}
        patience = {"socket_keepalive": True, "socket_keepalive_options": options}
    return Redis.from_url(
        url,
        **patience,
        socket_timeout=answers_in_s,
        socket_connect_timeout=_ANSWER_DEADLINE_S,
        retry=Retry(NoBackoff(), 0),  # not asyncio's own: it connects anew before it raises, to nobody's use
    )


class StoreWriter:
    """Carries calls to Redis. `run` does it, in a task; `submit` never waits.

    While Redis is away, requests fail at once and a ping every second at most looks whether it is back.

    Args:
        redis: of `open_redis`.
        scripts: all that will be called.
        prefix: of every key.
    """

    def __init__(self, redis: Redis, scripts: Iterable[str], prefix: str = "") -> None:
        self._redis = redis
        self.prefix = prefix
        self._scripts = {script: redis.register_script(script) for script in scripts}
        self._waiting: deque[Call] = deque()
        self._durable: dict[str, Call] = {}  # the one that counts under each key
        self._flying: frozenset[str] = frozenset()  # keys of those that are being carried out
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.available = True  # as of the last answer, or its absence
        self.on_back: Callable[[], None] = lambda: None  # called when Redis answers again

    @property
    def waiting(self) -> int:
        """How many calls have not been sent yet."""
        return len(self._waiting)

    def submit(self, call: Call) -> None:
        """Queue a call; ``done`` is called with the answer in a later turn of the loop."""
        if call.durable_key is None and not self.available:
            if call.done is not None:
                error = StoreUnavailable("Redis is away")
                asyncio.get_running_loop().call_soon(call.done, error)
            return
        if call.durable_key is not None:
            before = self._durable.get(call.durable_key)
            if before is not None and call.durable_key not in self._flying and before == call:
                return  # it waits already, and keeps its place before what was submitted since
            self._durable[call.durable_key] = call
        self._waiting.append(call)
        self._idle.clear()
        self._wake.set()

    async def ask(self, call: Call) -> Answer:
        """Carry out a request and wait for its answer.

        Raises:
            StoreUnavailable: there is none.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def take(value: Answer) -> None:
            if not answer.done():  # the one who asked may have gone
                answer.set_result(value)

        self.submit(Call(call.script, call.keys, call.args, take))
        value = await answer
        if isinstance(value, StoreUnavailable):
            raise value
        return value

    async def run(self) -> None:
        """Carry calls until cancelled."""
        clock = asyncio.get_running_loop().time
        met_s = -_COMPANY_S  # when calls last shared a pipeline, or could have
        while True:
            await self._wake.wait()
            # A pipeline costs more than a call, so busy times share them; who is alone need not wait for anybody.
            await asyncio.sleep(_GATHER_S if clock() - met_s < _COMPANY_S else 0)
            batch = self._take()
            try:
                async with asyncio.timeout(_ANSWER_DEADLINE_S):
                    answers = await self._execute(batch) if batch else []
            except STORE_LOST as error:
                self._keep(batch)
                await self._until_back(error)
                continue
            self._flying = frozenset()
            if len(batch) > 1 or self._waiting:
                met_s = clock()
            for call, answer in zip(batch, answers, strict=True):
                self._settle(call, answer)
            if not self._waiting:
                self._wake.clear()
                self._idle.set()

    async def drain(self, deadline_s: float) -> bool:
        """Wait until every call is carried out; False when ``deadline_s`` seconds did not suffice."""
        try:
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        except TimeoutError:
            return False
        return True

    def _take(self) -> list[Call]:
        batch: list[Call] = []
        while self._waiting and len(batch) < _MOST_PER_PIPELINE:
            call = self._waiting.popleft()
            if call.durable_key is None or self._durable.get(call.durable_key) is call:
                batch.append(call)
        self._flying = frozenset(call.durable_key for call in batch if call.durable_key is not None)
        return batch

    async def _execute(self, batch: list[Call]) -> list[Answer]:
        answers = await self._send(batch)
        missed = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missed:
            # A restarted Redis has no scripts. What was carried out before they went is not sent again:
            # the second answer of a connect would not be the first one.
            # All are loaded at once, so that calls overtake each other this once and not at each first use.
            for script in self._scripts.values():
                await self._redis.script_load(script.script)
            for n, answer in zip(missed, await self._send([batch[n] for n in missed]), strict=True):
                answers[n] = answer
        for answer in answers:
            if isinstance(answer, _NOT_NOW):
                raise answer
            if isinstance(answer, ResponseError) and _NOT_NOW_IN_SCRIPT.search(str(answer)):
                raise answer
        return answers

    async def _send(self, batch: list[Call]) -> list[Answer]:
        # Not `await script(client=pipeline)`: that asks Redis before each pipeline whether it has the scripts.
        pipeline = self._redis.pipeline(transaction=False)
        for call in batch:
            sha = self._scripts[call.script].sha
            pipeline.evalsha(sha, len(call.keys), *call.keys, *call.args)
        answers: list[Answer] = await pipeline.execute(raise_on_error=False)
        return answers

    def _settle(self, call: Call, answer: Answer) -> None:
        if call.durable_key is not None and self._durable.get(call.durable_key) is call:
            del self._durable[call.durable_key]
        if isinstance(answer, ResponseError):
            # Wrong for good (a key of another type, say): to try again would never end.
            _log.error("Redis refuses %s %s: %s", call.keys, call.args, answer)
            answer = StoreUnavailable(str(answer))
        if call.done is not None:
            call.done(answer)

    def _keep(self, batch: list[Call]) -> None:
        """Put durable calls back in their order; let requests fail, those still waiting too."""
        self.available = False
        self._flying = frozenset()
        everything = [*batch, *self._waiting]
        self._waiting.clear()
        self._waiting.extend(call for call in everything if call.durable_key is not None)
        for call in everything:
            if call.durable_key is None:
                self._settle(call, StoreUnavailable("Redis does not answer"))

    async def _until_back(self, error: Exception) -> None:
        _log.warning("Redis is away: %s; %d durable calls wait", error, len(self._durable))
        wait_s = _FIRST_RETRY_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_RETRY_S)
            try:
                # Idle connections may be of the server that is gone: each of them would cost a try.
                async with asyncio.timeout(_ANSWER_DEADLINE_S):
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
                    await self._redis.ping()
            except STORE_LOST:
                continue
            break
        _log.warning("Redis is back; %d durable calls wait", len(self._durable))
        self.available = True
        self.on_back()
