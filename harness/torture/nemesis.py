"""The nemesis: does a schedule's steps to a real cluster of gateway nodes, a private Redis and a ledger.

    clients ──► node n ──► a proxy of our own for each node ──► Redis
                  └──────► ledger (SQLite)

From steps to signals, cables, locks and limits; what takes effect is noted in the history. A step that finds its target
gone already does nothing and is not noted.

The partition between a node and Redis: where the nodes have hosts of their own (root), the cable between the two is
pulled. Elsewhere the proxy holds back all bytes in both directions and delivers them at the end, as TCP would.
"""

from __future__ import annotations

import asyncio
import math
import resource
import signal
import socket
import sqlite3
import struct
from asyncio import StreamReader, StreamWriter, Task, create_task
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from harness.real.errors import CannotRun
from harness.real.network.hosts import REDIS_ADDRESS, Hosts
from harness.real.processes.children import ChildDied
from harness.real.processes.gateways import Node, Nodes
from harness.real.processes.redis import RedisServer
from harness.torture.history import History
from harness.torture.node import move_clock
from harness.torture.schedule import KINDS, Step

__all__ = ["Nemesis", "RedisProxy"]

_LOOK_S = 0.02
_START_S = 30.0
_APART_S = 0.2
_CHUNK = 65_536
_LINGER = struct.pack("ii", 1, 0)
_PATIENCE_S = 1.0  # of a gateway's kernel: what is not acknowledged by then is never sent again


class RedisProxy:
    """One node's way to Redis: passes bytes on, holds them back, or resets its connections.

    Args:
        redis_port: on 127.0.0.1.
        hosts: whether the node comes from another host.
    """

    def __init__(self, redis_port: int, hosts: bool) -> None:
        self._redis_port = redis_port
        self._address = REDIS_ADDRESS if hosts else "127.0.0.1"
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[StreamWriter] = set()
        self._tasks: set[Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; return the URL that the node is told."""
        self._server = await asyncio.start_server(self._accept, self._address, 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"redis://{self._address}:{port}/0"

    def hold(self) -> None:
        """Begin a partition."""
        self._open.clear()

    def release(self) -> None:
        """End it."""
        self._open.set()

    def reset(self) -> None:
        """Reset every connection, at both ends."""
        for writer in list(self._writers):
            found = writer.get_extra_info("socket")
            if found is not None:
                with suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            writer.transport.abort()

    def close(self) -> None:
        """End it all."""
        if self._server is not None:
            self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()

    # No coroutine: asyncio would print a traceback for each that an interrupt cancels.
    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._keep(self._serve(reader, writer))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        await self._open.wait()
        try:
            up, down = await asyncio.open_connection("127.0.0.1", self._redis_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, down}
        for one in (self._pass(reader, down, _PATIENCE_S), self._pass(up, writer)):
            self._keep(one)

    async def _pass(self, reader: StreamReader, writer: StreamWriter, patience_s: float = math.inf) -> None:
        try:
            while data := await reader.read(_CHUNK):
                came_s = monotonic()
                await self._open.wait()
                if monotonic() - came_s > patience_s:
                    break
                writer.write(data)
                await writer.drain()
            await self._open.wait()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class Nemesis:
    """Does steps to nodes, store and ledger. Use: `do` each when it is due, then `heal`.

    Args:
        history: what takes effect is noted there.
        nodes: the gateways.
        redis: their store.
        proxies: each node's way to it.
        hosts: of the nodes, where they have any.
        ledger: the SQLite file.
        configs: of the nodes, as files.
        clock_of: how far a node's wall clock is ahead while no step moves it.
    """

    def __init__(
        self,
        history: History,
        nodes: Nodes,
        redis: RedisServer,
        proxies: Sequence[RedisProxy],
        hosts: Hosts | None,
        ledger: Path,
        configs: Sequence[Path],
        clock_of: Callable[[int], float],
    ) -> None:
        self._history = history
        self._nodes = nodes
        self._redis = redis
        self._proxies = proxies
        self._hosts = hosts
        self._ledger = ledger
        self._configs = configs
        self._clock_of = clock_of
        self._paused: Counter[int] = Counter()
        self._cut: Counter[int] = Counter()
        self._held: Counter[int] = Counter()  # proxies
        self._full: Counter[int] = Counter()
        self._away: set[int] = set()  # nodes that are down or starting
        self._store_is_away = False
        self._store_pauses = 0
        self._locks = 0
        self._steps: list[asyncio.Future[None]] = []

    @property
    def store_answers(self) -> bool:
        """Whether Redis is there and not stopped, for all that was done to it."""
        return not self._store_is_away and not self._store_pauses

    def do(self, step: Step) -> None:
        """Begin a step; it ends by itself."""
        deeds: dict[str, Callable[[Step], Awaitable[None]]] = {
            "pause": self._pause,
            "crash": self._down,
            "drain": self._down,
            "host": self._down,
            "partition": self._partition,
            "disconnect": self._disconnect,
            "clock": self._clock,
            "full": self._fill,
            "restart": self._restart,
            "empty_restart": self._restart,
            "flush": self._flush,
            "store_pause": self._pause_store,
            "locked": self._lock,
        }
        self._steps.append(asyncio.ensure_future(deeds[step.kind](step)))

    async def heal(self) -> None:
        """Wait until every step is over.

        Raises:
            CannotRun: a node or Redis does not come back.
            ChildDied: a node that was started again has ended by itself.
        """
        await asyncio.gather(*self._steps)

    def _begins(self, step: Step) -> int:
        node = step.target if KINDS[step.kind].side == "node" else 0
        return self._history.invoke("fault", kind=step.kind, node=node, lasts_s=step.lasts_s)

    def _ends(self, number: int, step: Step) -> None:
        node = step.target if KINDS[step.kind].side == "node" else 0
        self._history.note("over", op=number, kind=step.kind, node=node)

    # -- nodes -------------------------------------------------------------------------------------

    async def _pause(self, step: Step) -> None:
        n = step.target
        if n in self._away:
            return
        number = self._begins(step)
        self._paused[n] += 1
        pid = self._nodes[n].child.pid
        self._nodes.stall(n)
        await asyncio.sleep(step.lasts_s)
        self._paused[n] -= 1
        if self._nodes[n].child.pid == pid and not self._paused[n]:
            self._nodes.resume(n)
        self._ends(number, step)

    async def _down(self, step: Step) -> None:
        n = step.target
        if n in self._away:
            return
        self._away.add(n)
        number = self._begins(step)
        node = self._nodes[n]
        if step.kind == "drain":
            self._nodes.drain(n)
        else:
            self._nodes.kill(n, host=step.kind == "host")
        await asyncio.sleep(step.lasts_s)
        async with asyncio.timeout(_START_S):
            while node.runs:  # it drains, and may stand still meanwhile
                await asyncio.sleep(_LOOK_S)
        self._nodes.start_again(n)
        if self._hosts is not None and self._cut[n]:
            self._hosts.partition(n)  # a host that comes back has new cables
        await self._until(lambda: _listens(node), node.name)
        self._away.discard(n)
        self._ends(number, step)

    async def _partition(self, step: Step) -> None:
        n = step.target
        if n in self._away and self._hosts is not None:
            return  # its cables may be gone with its host
        number = self._begins(step)
        self._cut[n] += 1
        if self._hosts is None:
            self._hold(n)
        else:
            self._hosts.partition(n)
        await asyncio.sleep(step.lasts_s)
        self._cut[n] -= 1
        if self._hosts is None:
            self._release(n)
        elif not self._cut[n]:
            self._hosts.heal(n)
        self._ends(number, step)

    def _hold(self, n: int) -> None:
        self._held[n] += 1
        self._proxies[n - 1].hold()

    def _release(self, n: int) -> None:
        self._held[n] -= 1
        if not self._held[n]:
            self._proxies[n - 1].release()

    async def _disconnect(self, step: Step) -> None:
        number = self._begins(step)
        self._proxies[step.target - 1].reset()
        self._ends(number, step)

    async def _clock(self, step: Step) -> None:
        number = self._begins(step)
        config = self._configs[step.target - 1]
        is_s = self._clock_of(step.target)
        move_clock(config, is_s + step.offset_s)
        await asyncio.sleep(step.lasts_s)
        move_clock(config, is_s)
        self._ends(number, step)

    async def _fill(self, step: Step) -> None:
        n = step.target
        if n in self._away:
            return
        number = self._begins(step)
        self._full[n] += 1
        pid = self._nodes[n].child.pid
        self._limit_files(pid, 0)
        await asyncio.sleep(step.lasts_s)
        self._full[n] -= 1
        if self._nodes[n].child.pid == pid and not self._full[n]:
            self._limit_files(pid, resource.RLIM_INFINITY)
        self._ends(number, step)

    @staticmethod
    def _limit_files(pid: int, size: int) -> None:
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    # -- the store and the ledger ------------------------------------------------------------------

    async def _restart(self, step: Step) -> None:
        if self._store_is_away:
            return
        self._store_is_away = True
        number = self._begins(step)
        self._redis.stop()
        for node in self._nodes:
            self._hold(node.number)
        await asyncio.sleep(step.lasts_s)
        self._redis.start(keeps=step.kind == "restart")
        await self._until(self._redis.answers, "redis")
        self._store_is_away = False
        for node in self._nodes:  # real ones find it again one after the other
            self._release(node.number)
            await asyncio.sleep(_APART_S)
        self._ends(number, step)

    async def _flush(self, step: Step) -> None:
        if self.store_answers:
            number = self._begins(step)
            self._redis.flush()
            self._ends(number, step)

    async def _pause_store(self, step: Step) -> None:
        if self._store_is_away:
            return
        number = self._begins(step)
        child = self._redis.child
        assert child is not None
        self._store_pauses += 1
        child.send_signal(signal.SIGSTOP)
        await asyncio.sleep(step.lasts_s)
        self._store_pauses -= 1
        if self._redis.child is child and not self._store_pauses and child.returncode is None:
            child.send_signal(signal.SIGCONT)
        self._ends(number, step)

    async def _lock(self, step: Step) -> None:
        if self._locks:
            return
        self._locks += 1
        with suppress(sqlite3.OperationalError):  # a node was faster, again and again
            other = sqlite3.connect(self._ledger, timeout=0.0, isolation_level=None)
            try:
                for _ in range(50):
                    with suppress(sqlite3.OperationalError):
                        other.execute("BEGIN IMMEDIATE")
                        break
                    await asyncio.sleep(_LOOK_S / 4)
                else:
                    return
                number = self._begins(step)
                await asyncio.sleep(step.lasts_s)
                other.execute("ROLLBACK")
                self._ends(number, step)
            finally:
                other.close()
                self._locks -= 1

    async def _until(self, ready: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(_START_S):
                while not ready():
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise CannotRun(f"{what} does not come back within {_START_S:g} s") from None


def _listens(node: Node) -> bool:
    child = node.child
    if child.returncode is not None:
        raise ChildDied(child.name, child.returncode, child.log, child.log_tail())
    return node.listens()
