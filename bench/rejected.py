"""Suggestions that the documented systems make and this gateway does not take up: each against what it does instead.

    python bench/rejected.py [--users 20000] [--ranges 3000000] [--rounds 3]

Printed as ours, suggested, and their ratio, medians of rounds in which both take turns; figures of different runs or
machines do not compare.

* bloom: who is online in a Bloom filter of 10 bits a user and 7 hashes, which is made for 1 % of wrong answers, in
  place of Redis's sorted set. A string and BITFIELD stand for RedisBloom: one command a look-up there, too. A
  generation: everybody leaves, and as many others come.
* cache: the node of a hot user kept in memory, which spares the look-up when a message is sent.
* geography: each address looked up at its login, in place of the ledger's addresses all at once, when somebody asks.
* pools: fifty connections to Redis and eight to the ledger, a call each, in place of one each that carries batches.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from statistics import median

import numpy as np
from redis import Redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis

from harness.real.processes.children import Children
from harness.real.processes.redis import redis_server
from reference_server.config import GatewayConfig
from reference_server.ledger.rows import LedgerUnavailable, Login, now_ms
from reference_server.ledger.table import LedgerDatabase, ledger_url
from reference_server.sessions.redis_writer import Call, StoreWriter, open_redis
from reference_server.sessions.scripts import Script

__all__ = ["Row", "measure"]

_BITS, _HASHES = 10, 7  # a user; 0.8 % of wrong answers, by (1 − e^(−k/10))^k
_PER_PIPELINE = 500
_PUT = "return redis.call('SET', KEYS[1], ARGV[1])"
_POOL, _THREADS, _BATCH = 50, 8, 100


@dataclass(frozen=True)
class Row:
    """One comparison; the two in the same unit."""

    what: str
    unit: str
    ours: float
    suggested: float


def measure(redis_url: str, folder: Path, users: int, ranges: int, rounds: int) -> Iterator[Row]:
    """Compare each of them.

    Args:
        redis_url: of a Redis that has nothing in it; it is flushed.
        folder: for ledgers.
        users: online in Redis, and look-ups, messages and calls of each round.
        ranges: of addresses, in a table of a geography.
        rounds: of each comparison.
    """
    redis = Redis.from_url(redis_url)
    yield from _bloom(redis, users, rounds)
    yield from _cache(redis, users, rounds)
    yield from _geography(users, ranges, rounds)
    yield from _pools(redis_url, folder, users, rounds)
    redis.flushall()
    redis.close()


def _in_turns(
    rounds: int, ours: Callable[[], object], suggested: Callable[[], object]
) -> tuple[float, float]:
    """Return the median seconds of both."""
    took_s: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, took in zip((ours, suggested), took_s, strict=True):
            began_s = time.perf_counter()
            work()
            took.append(time.perf_counter() - began_s)
    return median(took_s[0]), median(took_s[1])


def _pipelined(redis: Redis, calls: Sequence[tuple[object, ...]]) -> list[object]:
    answers: list[object] = []
    for n in range(0, len(calls), _PER_PIPELINE):
        pipeline = redis.pipeline(transaction=False)
        for call in calls[n : n + _PER_PIPELINE]:
            pipeline.execute_command(*call)  # type: ignore[no-untyped-call]  # of the library
        answers += pipeline.execute()
    return answers


def _bloom(redis: Redis, users: int, rounds: int) -> Iterator[Row]:
    def places(user: str) -> list[int]:
        digest = blake2b(user.encode(), digest_size=16).digest()
        one, two = int.from_bytes(digest[:8]), int.from_bytes(digest[8:])
        return [(one + n * two) % (users * _BITS) for n in range(_HASHES)]  # Kirsch, Mitzenmacher (ESA 2006)

    def bits(user: str, *what: object) -> tuple[object, ...]:
        return (
            "BITFIELD",
            "bloom",
            *(part for at in places(user) for part in (what[0], "u1", at, *what[1:])),
        )

    def come(generation: int) -> list[str]:
        names = [f"user-{generation}-{n}" for n in range(users)]
        _pipelined(redis, [("ZADD", "online", n, name) for n, name in enumerate(names)])
        _pipelined(redis, [bits(name, "SET", 1) for name in names])
        return names

    names = come(0)
    size = [float(redis.memory_usage(key, samples=0) or 0) / users for key in ("online", "bloom")]
    yield Row("bloom: memory of a user online", "bytes", *size)
    plain, filtered = [("ZSCORE", "online", name) for name in names], [bits(name, "GET") for name in names]
    took_s = _in_turns(rounds, lambda: _pipelined(redis, plain), lambda: _pipelined(redis, filtered))
    yield Row("bloom: look-up", "µs", *(1e6 * s / users for s in took_s))
    strangers = [f"stranger-{n}" for n in range(users)]
    for generation in range(4):
        if generation:
            redis.delete("online")  # who leaves is taken off; out of a Bloom filter nobody can be
            come(generation)
        if generation in (0, 1, 3):
            scored = _pipelined(redis, [("ZSCORE", "online", name) for name in strangers])
            wrong = sum(score is not None for score in scored) / users
            found = _pipelined(redis, [bits(name, "GET") for name in strangers])
            said = sum(all(answer) for answer in found if isinstance(answer, list)) / users
            yield Row(f"bloom: offline, told online, {generation} generations on", "share", wrong, said)
    redis.flushall()


def _cache(redis: Redis, users: int, rounds: int) -> Iterator[Row]:
    """The script looks the user's node up and publishes; whoever knows the node by heart only publishes."""
    _pipelined(
        redis, [("SET", f"status:user-{n}", f"session-{n}|node-1.00000000:{n:014x}") for n in range(users)]
    )
    sha, text = redis.script_load(Script.SEND), '{"type":"message","from":"ann","payload":"hello"}'
    routed = [("EVALSHA", sha, 0, "", 0, f"user-{n}", text) for n in range(users)]
    known = [("PUBLISH", "to:node-1.00000000", text) for _ in range(users)]
    took_s = _in_turns(rounds, lambda: _pipelined(redis, routed), lambda: _pipelined(redis, known))
    yield Row("cache: a message sent", "µs", *(1e6 * s / users for s in took_s))
    redis.flushall()


def _geography(users: int, ranges: int, rounds: int) -> Iterator[Row]:
    rng = np.random.default_rng(1)
    begins = np.unique(rng.integers(0, 2**32, ranges, dtype=np.uint32))
    places = rng.integers(0, 250, begins.size, dtype=np.uint16)
    addresses = rng.integers(begins[0], 2**32, users, dtype=np.uint32)
    table, one_by_one = begins.tolist(), addresses.tolist()
    took_s = _in_turns(
        rounds,
        lambda: places[np.searchsorted(begins, addresses, side="right") - 1],
        lambda: [places[bisect_right(table, address) - 1] for address in one_by_one],
    )
    yield Row("geography: an address's place", "µs", *(1e6 * s / users for s in took_s))
    table_bytes = sys.getsizeof(table) + sum(map(sys.getsizeof, table[:1000])) / 1000 * len(table)
    yield Row("geography: table in every gateway process", "MiB", 0.0, (table_bytes + places.nbytes) / 2**20)


def _pools(redis_url: str, folder: Path, users: int, rounds: int) -> Iterator[Row]:
    async def one() -> None:
        redis = open_redis(redis_url)
        writer = StoreWriter(redis, [_PUT])
        task = asyncio.create_task(writer.run())
        for n in range(users):
            writer.submit(Call(_PUT, (f"k{n}",), ("x",)))
        await writer.drain(600)
        task.cancel()
        await redis.aclose()

    async def many() -> None:
        pool = BlockingConnectionPool.from_url(redis_url, max_connections=_POOL, timeout=None)
        redis = AsyncRedis(connection_pool=pool)
        script, waiting = redis.register_script(_PUT), iter(range(users))

        async def work() -> None:
            for n in waiting:
                await redis.evalsha(script.sha, 1, f"k{n}", "x")

        await asyncio.gather(*(work() for _ in range(_POOL)))
        await redis.aclose()
        await pool.aclose()

    took_s = _in_turns(rounds, lambda: asyncio.run(one()), lambda: asyncio.run(many()))
    yield Row("pools: a call to Redis", "µs", *(1e6 * s / users for s in took_s))
    logins = max(_THREADS, users // 50)
    paths = iter(range(2 * rounds))
    took_s = _in_turns(
        rounds,
        lambda: _log_in(folder / f"{next(paths)}.db", logins, 1, _BATCH),
        lambda: _log_in(folder / f"{next(paths)}.db", logins, _THREADS, 1),
    )
    yield Row("pools: a login in the ledger", "µs", *(1e6 * s / logins for s in took_s))


def _log_in(path: Path, logins: int, threads: int, batch: int) -> None:
    """Commit logins over so many connections, so many in a transaction; one that the file is too busy for again."""

    def work(first: int) -> None:
        ledger = LedgerDatabase(GatewayConfig(ledger_url=ledger_url(path)))
        _again(ledger.open)
        rows = [Login(f"s{n}", f"u{n}", "web", "", "", "", now_ms()) for n in range(first, logins, threads)]
        for n in range(0, len(rows), batch):
            _again(partial(ledger.write, rows[n : n + batch]))
        ledger.close()

    work(logins)  # makes the tables
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def _again(work: Callable[[], object]) -> None:
    while True:
        with suppress(LedgerUnavailable):
            work()
            return


def main() -> int:
    parser = argparse.ArgumentParser(description="What rejected suggestions would cost or bring.")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--ranges", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'':48}{'ours':>10}{'suggested':>12}{'ratio':>9}")
    with (
        tempfile.TemporaryDirectory() as folder,
        Children() as children,
        redis_server(None, children, Path(folder)) as redis,
    ):
        for row in measure(redis.url, Path(folder), options.users, options.ranges, options.rounds):
            ratio = f"{row.suggested / row.ours:.2f}×" if row.ours else ""
            print(f"{row.what:48}{row.ours:10.4g}{row.suggested:12.4g}{ratio:>9} {row.unit}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
