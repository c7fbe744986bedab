"""The timer wheel: never early, late by a grain at most, no work when nothing is due, no bursts."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from reference_server.heartbeat.timer_wheel import LoopClock, TimerWheel
from tests.reference_server.fakes import FakeClock

GRAIN_S = 0.002
LOOP_S = 0.001


class Item:
    def __init__(self) -> None:
        self.bucket = 0
        self.seen_s: list[float] = []


def wheel(clock: FakeClock, most_per_tick: int = 256) -> TimerWheel[Item]:
    return TimerWheel(
        clock, lambda item, now_s: item.seen_s.append(now_s), grain_s=GRAIN_S, most_per_tick=most_per_tick
    )


@given(st.lists(st.floats(-1.0, 20.0), min_size=1, max_size=60))
def test_each_is_called_once_never_early_and_a_grain_late_at_most(delays: list[float]) -> None:
    clock = FakeClock()
    tested, items = wheel(clock), [Item() for _ in delays]
    for item, delay_s in zip(items, delays, strict=True):
        tested.schedule(item, clock.time_s + delay_s)
    start_s = clock.time_s
    clock.run_until(start_s + 30)
    for item, delay_s in zip(items, delays, strict=True):
        (seen_s,) = item.seen_s
        due_s = start_s + max(delay_s, 0.0)
        assert due_s - 1e-9 <= seen_s <= due_s + GRAIN_S + LOOP_S + 1e-9


def test_what_was_moved_to_an_earlier_time_is_called_then_and_only_then() -> None:
    clock = FakeClock()
    tested, item = wheel(clock), Item()
    tested.schedule(item, clock.time_s + 5)
    tested.schedule(item, clock.time_s + 1)
    clock.run_until(clock.time_s + 10)
    assert item.seen_s == [pytest.approx(1001, abs=2 * GRAIN_S)]


def test_what_was_moved_to_a_later_time_is_looked_at_where_it_stands() -> None:
    clock = FakeClock()
    tested, item = wheel(clock), Item()
    tested.schedule(item, clock.time_s + 1)
    tested.schedule(item, clock.time_s + 5)
    clock.run_until(clock.time_s + 10)
    assert item.seen_s == [pytest.approx(1001, abs=2 * GRAIN_S)]


def test_an_item_put_back_for_the_past_is_served_in_a_later_bucket_not_for_ever() -> None:
    clock = FakeClock()
    seen = []

    def again(item: Item, now_s: float) -> None:
        seen.append(now_s)
        if len(seen) < 5:
            tested.schedule(item, now_s - 1)

    tested: TimerWheel[Item] = TimerWheel(clock, again, grain_s=GRAIN_S)
    tested.schedule(Item(), clock.time_s)
    clock.run_until(clock.time_s + 1)
    assert len(seen) == 5
    assert all(later > earlier for earlier, later in itertools.pairwise(seen))


def test_the_loop_is_woken_for_what_is_due_and_not_in_between() -> None:
    clock = FakeClock()
    tested = wheel(clock)
    for n in range(10):
        tested.schedule(Item(), clock.time_s + 10 * n)
    clock.run_until(clock.time_s + 1000)
    assert clock.wakeups <= 2 * 10


def test_many_at_once_are_served_in_parts_with_the_sockets_read_in_between() -> None:
    clock = FakeClock()
    tested, items = wheel(clock, most_per_tick=100), [Item() for _ in range(1000)]
    parts: list[int] = []
    clock.read_sockets = lambda: parts.append(sum(len(item.seen_s) for item in items))
    for item in items:
        tested.schedule(item, clock.time_s + 1)
    clock.run_until(clock.time_s + 2)
    served = [later - earlier for earlier, later in itertools.pairwise(parts)]
    assert max(served) == 100
    assert sum(served) == 1000


def test_a_stopped_wheel_calls_nobody() -> None:
    clock = FakeClock()
    tested, item = wheel(clock), Item()
    tested.schedule(item, clock.time_s + 1)
    tested.stop()
    clock.run_until(clock.time_s + 2)
    assert item.seen_s == []


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_after_reading_comes_after_what_lay_in_the_sockets(loop_factory: object) -> None:
    """The rule that verdicts rest on, on the real loops: a stalled loop reads before it judges."""

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        clock = LoopClock(loop)
        order: list[str] = []
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        judged = asyncio.Event()

        def judge() -> None:
            order.append("judged")
            judged.set()

        def stalled_tick() -> None:
            theirs.send(b"answer")
            time.sleep(0.02)  # the loop's other timers, or a stall
            clock.after_reading(judge)

        def read() -> None:
            ours.recv(100)
            order.append("read")

        loop.add_reader(ours, read)
        clock.call_later(0.01, stalled_tick)
        await judged.wait()
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
        return order

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        assert runner.run(scenario()) == ["read", "judged"]
