"""A worker's lines reach the master's file once, in order, over a way that loses, repeats and reorders."""

from __future__ import annotations

import random

import pytest

from harness.real.generator.relay import Batch, Receiver, Sender


def lines(count: int, size: int = 20) -> list[bytes]:
    return [f"{n:0{size - 1}d}\n".encode() for n in range(count)]


def sender(written: list[bytes]) -> Sender:
    found = Sender()
    for line in written:
        found.add(line)
    return found


def test_a_good_way_takes_everything_at_once() -> None:
    written = lines(100)
    worker, master = sender(written), Receiver()
    [batch] = worker.due(0.0)
    assert master.take(batch) == b"".join(written)
    worker.acknowledged(master.last)
    assert worker.done
    assert worker.due(10.0) == []


def test_long_logs_go_in_several_batches_of_whole_lines() -> None:
    worker = sender(lines(2000, 1000))
    batches = worker.due(0.0)
    assert len(batches) == 8
    assert all(batch.data.endswith(b"\n") for batch in batches)


def test_no_more_is_on_the_way_than_the_window_holds() -> None:
    worker = sender(lines(5000, 1000))
    assert len(worker.due(0.0)) == 16
    assert worker.due(0.1) == []
    worker.acknowledged(3)
    assert [batch.number for batch in worker.due(0.2)] == [16, 17, 18, 19]


def test_what_is_not_acknowledged_is_sent_again_when_it_is_late() -> None:
    worker = sender(lines(3))
    first = worker.due(0.0)
    assert worker.due(1.9) == []
    assert worker.due(2.0) == first
    assert not worker.done


def test_a_line_longer_than_a_batch_goes_alone() -> None:
    long = b"x" * (1 << 19) + b"\n"
    worker = sender([b"a\n", long, b"b\n"])
    assert [batch.data for batch in worker.due(0.0)] == [b"a\n", long, b"b\n"]


def test_what_came_before_a_gap_is_kept_when_the_worker_dies() -> None:
    master = Receiver()
    assert master.take(Batch(0, b"a\n")) == b"a\n"
    assert master.take(Batch(2, b"c\n")) == b""
    assert master.last == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_way_at_all(seed: int) -> None:
    """Loses, repeats and reorders batches and acknowledgements; in the end the file is the log."""
    rng = random.Random(seed)
    written = lines(400, 2000)
    worker, master, file = Sender(), Receiver(), b""
    under_way: list[Batch] = []
    for step in range(2000):
        for line in written[step * 10 : step * 10 + 10]:
            worker.add(line)
        for batch in worker.due(step * 0.1):
            under_way += [batch] * rng.choice([0, 1, 1, 2])
        rng.shuffle(under_way)
        for batch in under_way[: len(under_way) // 2 + 1]:
            file += master.take(batch)
            if rng.random() < 0.5:
                worker.acknowledged(master.last)
        under_way = under_way[len(under_way) // 2 + 1 :]
        if step > 40 and worker.done:
            break
    assert worker.done
    assert file == b"".join(written)
