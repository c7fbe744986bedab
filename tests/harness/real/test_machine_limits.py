"""Whether a machine will do is said before anything starts, with what would do. Numbers, no sockets."""

from __future__ import annotations

import pytest

from harness.real.generator.shard import ClientIndexPool, WorkerShard
from harness.real.machine_limits import Load, Machine, complaints, workers_for

ROOMY = Machine(descriptors=20_000, ports=28_232, memory_bytes=22 << 30)


@pytest.mark.parametrize(
    ("load", "machine", "certain", "says"),
    [
        (Load(640, 1, 1), ROOMY, [], []),
        (Load(20_000, 2, 2), ROOMY, [], []),
        (Load(100_000, 6, 6), ROOMY, [], []),
        (Load(20_000, 2, 1), ROOMY, [True], ["--workers 2"]),
        (Load(100_000, 5, 6), ROOMY, [True], ["--nodes 6"]),
        (Load(100_000, 1, 1), ROOMY, [True, True], ["--workers 6", "--nodes 6"]),
        (Load(5_000, 1, 1), Machine(20_000, 4_000, 22 << 30), [True], ["ip_local_port_range"]),
        (Load(100_000, 6, 6), Machine(20_000, 28_232, 5 << 30), [False], ["clients would fit"]),
        (Load(100_000, 6, 6), Machine(20_000, 28_232, 2 << 30), [True], ["clients would fit"]),
    ],
)
def test_what_will_not_do_is_said_with_what_would(
    load: Load, machine: Machine, certain: list[bool], says: list[str]
) -> None:
    found = complaints(load, machine)
    assert [one.certain for one in found] == certain
    assert all(text in one.text for text, one in zip(says, found, strict=True)), found


@pytest.mark.parametrize("clients", [1, 19_000, 20_000, 99_999, 250_000])
def test_what_would_do_does(clients: int) -> None:
    workers = workers_for(clients, ROOMY)
    found = complaints(Load(clients, 64, workers), ROOMY)
    assert not any("--workers" in one.text for one in found)


@pytest.mark.parametrize(("clients", "of"), [(7, 1), (7, 2), (8, 3), (2, 5)])
def test_every_client_is_one_generators(clients: int, of: int) -> None:
    taken = []
    for position in range(of):
        shard = WorkerShard(position, of)
        pool = ClientIndexPool(shard, clients)
        mine = [pool.take() for _ in range(shard.count(clients) + 1)]
        assert mine.pop() is None  # one user too many has no client
        taken += mine
    assert sorted(index for index in taken if index is not None) == list(range(clients))


def test_a_place_that_is_given_back_is_taken_again_first() -> None:
    pool = ClientIndexPool(WorkerShard(1, 2), 8)
    assert [pool.take(), pool.take(), pool.take()] == [1, 3, 5]
    pool.give_back(3)
    pool.give_back(1)
    assert [pool.take(), pool.take(), pool.take(), pool.take()] == [1, 3, 7, None]
