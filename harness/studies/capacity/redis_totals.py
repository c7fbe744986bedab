"""What Redis itself counts while a run goes on: commands and bytes, those of the harness taken off.

From the run's Redis, asked four times a second, to totals at any moment. Commands inside scripts count, as Redis
counts them. Knows nothing of clients.
"""

from __future__ import annotations

import time

import numpy as np
import redis
from numpy.typing import NDArray

from harness.real.resources import RepeatingThread
from harness.runs.directory import RunDir

__all__ = ["StoreWitness"]

_EVERY_S = 0.25
_OURS = frozenset({"info", "mget"})  # this witness's and the store watch's; no gateway uses them
_FRAMING = 12  # bytes of a bulk string's frame, about


class StoreWitness(RepeatingThread):
    """Use as a context around a run; `at` tells afterwards. Without an answer it knows nothing and says NaN."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(self._sample, _EVERY_S)
        self._directory = run
        self._seen: list[tuple[float, float, float]] = []
        self._own_bytes = 0
        self._pool: redis.ConnectionPool | None = None

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        if self._pool is not None:
            self._pool.disconnect()

    def at(self, monotonic_s: float) -> NDArray[np.float64]:
        """Commands and bytes (in both directions) since Redis started, shape (2,).

        At a moment of CLOCK_MONOTONIC, between two samples by a straight line.
        """
        if len(self._seen) < 2 or monotonic_s < self._seen[0][0] - 1.0:
            return np.full(2, np.nan)
        times, *totals = zip(*self._seen, strict=True)
        return np.array([np.interp(monotonic_s, times, total) for total in totals])

    def _sample(self) -> None:
        if self._pool is None:
            if not (configs := self._directory.gateway_configs()):
                return
            self._pool = redis.ConnectionPool.from_url(configs[0].redis_url, socket_timeout=2.0)
        try:
            connection = self._pool.get_connection()
            clients, traffic = (self._info(connection, part) for part in ("commandstats", "stats"))
            self._pool.release(connection)
        except (redis.RedisError, OSError):
            self._stop.set()  # it ends with the run, a little before us
            return
        commands = sum(
            int(line.partition("calls=")[2].partition(",")[0])
            for line in clients.splitlines()
            if line.startswith("cmdstat_") and line.removeprefix("cmdstat_").partition(":")[0] not in _OURS
        )
        told = dict(line.split(":", 1) for line in traffic.splitlines() if ":" in line)
        moved = int(told["total_net_input_bytes"]) + int(told["total_net_output_bytes"])
        self._seen.append((time.monotonic(), commands, moved - self._own_bytes))

    def _info(self, connection: redis.Connection, part: str) -> str:
        connection.send_command("INFO", part)  # type: ignore[no-untyped-call]
        raw: bytes = connection.read_response()
        self._own_bytes += len(raw) + _FRAMING + len(part) + 20
        return raw.decode()
