"""What Redis itself counts while a run goes on: commands and bytes, those of the harness taken off.

From the run's Redis, asked four times a second, to totals at any moment. Commands inside scripts count, as Redis
counts them. Knows nothing of clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Self

import numpy as np
import redis

from harness.runs.directory import RunDir

__all__ = ["StoreTotals", "StoreWitness"]

_EVERY_S = 0.25
_OURS = frozenset({"info", "mget"})  # this witness's and the store watch's; no gateway uses them
_FRAMING = 12  # bytes of a bulk string's frame, about


@dataclass(frozen=True, slots=True)
class StoreTotals:
    """Totals since Redis started: commands, and bytes in both directions."""

    commands: float
    bytes: float

    def since(self, before: StoreTotals) -> StoreTotals:
        """What came in between."""
        return StoreTotals(self.commands - before.commands, self.bytes - before.bytes)


class StoreWitness:
    """Use as a context around a run; `at` tells afterwards. Without an answer it knows nothing and says NaN."""

    def __init__(self, run: RunDir, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._seen: list[tuple[float, float, float]] = []
        self._own_bytes = 0
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def at(self, monotonic_s: float) -> StoreTotals:
        """Totals at a moment of CLOCK_MONOTONIC, between two samples by a straight line."""
        if len(self._seen) < 2 or monotonic_s < self._seen[0][0] - 1.0:
            return StoreTotals(float("nan"), float("nan"))
        times, commands, sizes = zip(*self._seen, strict=True)
        return StoreTotals(
            float(np.interp(monotonic_s, times, commands)), float(np.interp(monotonic_s, times, sizes))
        )

    def _watch(self) -> None:
        while not (configs := self._run.gateway_configs()):
            if self._over.wait(0.02):
                return
        pool = redis.ConnectionPool.from_url(configs[0].redis_url, socket_timeout=2.0)
        try:
            connection = pool.get_connection()
            while not self._over.wait(_EVERY_S):
                self._sample(connection)
        except (redis.RedisError, OSError):
            pass  # it ends with the run, a little before us
        finally:
            pool.disconnect()

    def _sample(self, connection: redis.Connection) -> None:
        texts = []
        for part in ("commandstats", "stats"):
            connection.send_command("INFO", part)  # type: ignore[no-untyped-call]
            raw: bytes = connection.read_response()
            self._own_bytes += len(raw) + _FRAMING + len(part) + 20
            texts.append(raw.decode())
        commands = sum(
            int(line.partition("calls=")[2].partition(",")[0])
            for line in texts[0].splitlines()
            if line.startswith("cmdstat_") and line.removeprefix("cmdstat_").partition(":")[0] not in _OURS
        )
        told = dict(line.split(":", 1) for line in texts[1].splitlines() if ":" in line)
        moved = int(told["total_net_input_bytes"]) + int(told["total_net_output_bytes"])
        self._seen.append((self._clock(), commands, moved - self._own_bytes))
