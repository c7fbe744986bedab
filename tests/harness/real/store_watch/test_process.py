"""The store watch as a process beside a real Redis: what it sees, and how soon."""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from harness.events.log import read_log
from harness.events.tail import LogTail
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import RedisServer, find_redis, redis_server
from harness.real.store_watch.process import _REST, Store
from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source, encode
from tests.support import wait_until

pytestmark = pytest.mark.real

POLL_S = 0.02
_REDIS_CLOCK_S = 0.002  # it counts whole milliseconds, when it sets an expiry and when it compares


@dataclass
class Bench:
    """A watch under test, a client's log for it to read, and the Redis that it looks at."""

    children: Children
    folder: Path
    url: str
    prefix: str
    origin_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.out = self.folder / "store.jsonl"
        self.redis = redis.Redis.from_url(self.url)
        self.log = EventWriter(self.folder / "client-1.jsonl")

    def start(self) -> Child:
        arguments = {
            "redis": self.url,
            "prefix": self.prefix,
            "logs": str(self.folder),
            "out": str(self.out),
            "origin-s": repr(self.origin_s),
            "poll-ms": str(POLL_S * 1000),
            "sample-ms": "100",
        }
        options = [word for key, value in arguments.items() for word in (f"--{key}", value)]
        child = self.children.start(
            "watch",
            [sys.executable, "-m", "harness.real.store_watch.process", *options],
            log=self.folder / "watch.log",
        )
        wait_until(lambda: self.seen(EventKind.STORE_SAMPLE), "the first sample", 30.0)
        return child

    def now_s(self) -> float:
        return time.monotonic() - self.origin_s

    def client_event(self, kind: EventKind, n: int) -> None:
        detail = {"user_id": f"u{n}", "fault_id": f"f{n}"}
        self.log.write(Event(self.now_s(), Source.CLIENT, kind, f"s{n}", detail=detail))
        self.log.flush()

    def log_in(self, *clients: int) -> None:
        pipeline = self.redis.pipeline(transaction=False)
        for n in clients:
            pipeline.set(self.session_key(n), f"u{n}|c{n}")
            pipeline.set(self.status_key(n), f"s{n}|c{n}")
            pipeline.zadd(f"{self.prefix}online", {f"u{n}": 1.0})
        pipeline.execute()
        for n in clients:
            self.client_event(EventKind.LOGGED_IN, n)

    def fault(self, *clients: int) -> None:
        """Fault clients and wait until the watch has taken them up."""
        before = self.sample("watched")
        for n in clients:
            self.client_event(EventKind.FAULT_INJECTED, n)
        wait_until(lambda: self.sample("watched") == before + len(clients), "they are watched")

    def session_key(self, n: int) -> str:
        return f"{self.prefix}session:s{n}"

    def status_key(self, n: int) -> str:
        return f"{self.prefix}status:u{n}"

    def clear(self, *clients: int) -> None:
        self.redis.delete(*(key(n) for n in clients for key in (self.session_key, self.status_key)))

    def seen(self, kind: EventKind) -> list[Event]:
        if not self.out.exists():
            return []
        return [event for event in read_log(self.out).events if event.kind is kind]

    def sample(self, key: str) -> Any:
        return self.seen(EventKind.STORE_SAMPLE)[-1].detail[key]

    def await_cleared(self, count: int = 1) -> list[Event]:
        wait_until(lambda: len(self.seen(EventKind.STORE_CLEARED)) >= count, f"{count} cleared")
        return self.seen(EventKind.STORE_CLEARED)

    def bound_s(self) -> float:
        """How late a look may be: one poll, this watch's own lag, and the answers it waited for.

        The next question leaves one poll after the last was due, later by the lag it had, by work that
        overran, and by the answers to question and sample in between; its own answer is the third wait.
        After two long looks in a row the watch rests for so many lengths of the shorter one.
        """
        lag_s: float = max(event.detail["max_lag_s"] for event in self.seen(EventKind.LOOP_LAG))
        wait_s: float = max(event.detail["store_wait_s"] for event in self.seen(EventKind.STORE_SAMPLE))
        return POLL_S + 2 * lag_s + (3 + _REST) * wait_s


@pytest.fixture
def bench(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    with Children() as children:
        bench = Bench(children, tmp_path, private_redis.url, key_prefix)
        yield bench
        bench.log.close()
        bench.redis.close()


@pytest.mark.usefixtures("not_forked")
def test_deleted_keys_are_seen_within_a_poll_and_the_lag(bench: Bench) -> None:
    child = bench.start()
    bench.log_in(*range(20))
    bench.fault(*range(20))
    deleted = {}
    for n in range(20):
        sent_s = bench.now_s()
        bench.clear(n)
        deleted[f"s{n}"] = sent_s, bench.now_s()
        time.sleep(0.007)  # spread over the phase of the poll
    events = bench.await_cleared(20)
    wait_until(
        lambda: bench.seen(EventKind.STORE_SAMPLE)[-1].time_s > events[-1].time_s,
        "a sample that covers the last answer",
    )
    bench.children.stop(child)
    assert [event.session_id for event in events] == list(deleted), "each once, in order"
    for event in events:
        sent_s, answered_s = deleted[event.session_id]
        assert sent_s <= event.time_s <= answered_s + bench.bound_s()
        assert event.detail["previous_poll_s"] <= answered_s
        assert event.detail["user_id"] == f"u{event.session_id[1:]}"
        assert event.source is Source.STORE


def test_a_look_that_redis_held_up_delays_no_other(bench: Bench) -> None:
    """Looks that take long because there is much to look at are followed by a rest; one that had to wait is not."""
    child = bench.start()
    bench.log_in(1)
    bench.fault(1)
    wait_until(lambda: bench.sample("watched") == 1, "it is watched")
    bench.redis.client_pause(300)
    wait_until(lambda: bench.seen(EventKind.STORE_SAMPLE)[-1].detail["store_wait_s"] >= 0.25, "it has waited")
    samples = len(bench.seen(EventKind.STORE_SAMPLE))
    wait_until(lambda: len(bench.seen(EventKind.STORE_SAMPLE)) > samples, "and has gone on")
    bench.children.stop(child)
    lag_s = max(event.detail["max_lag_s"] for event in bench.seen(EventKind.LOOP_LAG))
    details = [event.detail for event in bench.seen(EventKind.STORE_SAMPLE)]
    wait_s = max(detail["store_wait_s"] for detail in details)
    assert max(detail["largest_gap_s"] for detail in details) < 3 * wait_s + 2 * lag_s


def test_expired_keys_are_seen_when_the_time_to_live_is_over(bench: Bench) -> None:
    child = bench.start()
    bench.log_in(1)
    bench.fault(1)
    sent_s = bench.now_s()
    for key in (bench.session_key(1), bench.status_key(1)):
        bench.redis.pexpire(key, 300)
    answered_s = bench.now_s()
    (event,) = bench.await_cleared()
    last = event.time_s
    wait_until(lambda: bench.seen(EventKind.STORE_SAMPLE)[-1].time_s > last, "one more sample")
    bench.children.stop(child)
    assert sent_s + 0.3 - _REDIS_CLOCK_S <= event.time_s
    assert event.time_s <= answered_s + 0.3 + _REDIS_CLOCK_S + bench.bound_s()
    assert event.detail["previous_poll_s"] <= answered_s + 0.3 + _REDIS_CLOCK_S


def test_a_log_in_elsewhere_clears_the_old_session(bench: Bench) -> None:
    bench.start()
    bench.log_in(1)
    bench.fault(1)
    bench.redis.delete(bench.session_key(1))
    bench.redis.set(bench.status_key(1), "s-new|c9")
    (event,) = bench.await_cleared()
    assert event.session_id == "s1"


def test_a_client_that_recovered_and_one_without_a_fault_are_not_reported(bench: Bench) -> None:
    bench.start()
    bench.log_in(1, 2, 3)
    bench.fault(1, 3)
    bench.client_event(EventKind.FAULT_RECOVERED, 1)
    wait_until(lambda: bench.sample("watched") == 1, "the recovered one is let go")
    bench.clear(1, 2)
    bench.clear(3)
    assert [event.session_id for event in bench.await_cleared()] == ["s3"]


def test_samples_count_sessions_and_the_online_set(bench: Bench) -> None:
    bench.start()
    bench.log_in(*range(5))
    wait_until(lambda: bench.sample("sessions") == 5, "five sessions")
    assert bench.sample("online") == bench.sample("shown") == 5
    bench.client_event(EventKind.CONNECTED, 0)
    bench.clear(0, 1)
    bench.redis.zrem(f"{bench.prefix}online", "u0")
    wait_until(lambda: bench.sample("sessions") == 3, "three sessions")
    assert bench.sample("online") == 4
    wait_until(lambda: bench.sample("shown") == 3, "three users, whether their clients are connected or not")


def test_logs_that_appear_later_torn_lines_and_lines_in_pieces(bench: Bench) -> None:
    bench.start()
    bench.log_in(1)
    line = encode(Event(0.0, Source.CLIENT, EventKind.FAULT_INJECTED, "s1", detail={"user_id": "u1"}))
    with (bench.folder / "client-2.jsonl").open("wb", buffering=0) as late:
        late.write(b'{"kind":"fault_injected", torn\n\xff\xfe\n' + line[:30])
        wait_until(lambda: "passed over" in (bench.folder / "watch.log").read_text(), "it is read")
        late.write(line[30:])
        wait_until(lambda: bench.sample("watched") == 1, "the line is whole")
    bench.clear(1)
    bench.await_cleared()


def test_the_end_of_the_watch_is_one_more_poll(bench: Bench) -> None:
    child = bench.start()
    bench.log_in(1)
    bench.fault(1)
    child.send_signal(signal.SIGSTOP)
    bench.clear(1)
    assert bench.children.stop(child) == 0, "an orderly end"
    assert len(bench.seen(EventKind.STORE_CLEARED)) == 1


def test_its_own_stall_shows(bench: Bench) -> None:
    child = bench.start()
    child.send_signal(signal.SIGSTOP)
    stopped = psutil.STATUS_STOPPED
    wait_until(lambda: psutil.Process(child.pid).status() == stopped, "it is stopped")
    time.sleep(0.3)  # the stall itself
    child.send_signal(signal.SIGCONT)

    def longest_s(kind: EventKind, key: str) -> float:
        return max((event.detail[key] for event in bench.seen(kind)), default=0.0)

    # A stall while an answer was on its way cannot be told from a slow store: then it counts as one.
    wait_until(
        lambda: (
            max(longest_s(EventKind.LOOP_LAG, "max_lag_s"), longest_s(EventKind.STORE_SAMPLE, "store_wait_s"))
            >= 0.3 - POLL_S
        ),
        "what is left of 0.3 s after one poll",
    )


@pytest.fixture
def own_redis(bench: Bench) -> Iterator[RedisServer]:
    """A Redis that may be frozen and killed, for the bench to look at."""
    with redis_server(None, bench.children, bench.folder) as server:
        bench.url, bench.redis = server.url, redis.Redis.from_url(server.url)
        yield server


def test_a_frozen_redis_is_a_gap_not_a_clearing(bench: Bench, own_redis: RedisServer) -> None:
    assert own_redis.child is not None
    bench.start()
    bench.log_in(1)
    bench.fault(1)
    log = bench.folder / "watch.log"
    own_redis.child.send_signal(signal.SIGSTOP)
    wait_until(lambda: "does not answer" in log.read_text(), "the watch gives up on an answer")
    own_redis.child.send_signal(signal.SIGCONT)
    wait_until(lambda: bench.sample("store_gap_s") >= 1.0, "the gap is in a sample")
    assert bench.seen(EventKind.STORE_CLEARED) == []
    bench.clear(1)
    bench.await_cleared()


def test_a_restarted_redis_has_cleared_and_the_moment_is_as_wide_as_the_gap(
    bench: Bench, own_redis: RedisServer
) -> None:
    assert own_redis.child is not None
    found = find_redis()
    assert found is not None
    bench.start()
    bench.log_in(1)
    bench.fault(1)
    log = bench.folder / "watch.log"
    bench.children.stop(own_redis.child, kill=True)
    killed_s = bench.now_s()
    wait_until(lambda: "does not answer" in log.read_text(), "the watch misses it")
    started_s = bench.now_s()
    port = own_redis.url.rpartition(":")[2].split("/")[0]
    bench.children.start(
        "redis",
        [str(found[0]), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(bench.folder)],
        log=bench.folder / "redis-2.log",
    )
    (event,) = bench.await_cleared()
    assert event.detail["previous_poll_s"] <= killed_s
    assert event.time_s >= started_s


def test_a_tail_reads_each_line_once(tmp_path: Path) -> None:
    with LogTail(tmp_path, "client-*.jsonl") as tail:
        tail.find_files()
        assert list(tail.new_lines()) == []
        (tmp_path / "client-2.jsonl").write_bytes(b"one\ntwo\nthr")
        (tmp_path / "other.jsonl").write_bytes(b"not ours\n")
        assert list(tail.new_lines()) == [], "not looked for yet"
        tail.find_files()
        assert list(tail.new_lines()) == [b"one", b"two"]
        with (tmp_path / "client-2.jsonl").open("ab") as file:
            file.write(b"ee\n")
        (tmp_path / "client-1.jsonl").write_bytes(b"four\n")
        tail.find_files()
        assert sorted(tail.new_lines()) == [b"four", b"three"]
        assert list(tail.new_lines()) == []


def test_a_question_leaves_nothing_behind(private_redis: RedisServer) -> None:
    """Some hundreds a second are asked: redis-py alone would leave a tuple of each, up to 2,000 of a size."""
    store = Store(private_redis.url, time.monotonic)
    keys = [b"session"] * 7
    gc.collect()  # lists of kept tuples are empty
    grown = []
    for _ in range(2):  # the first warms
        before = sys.getallocatedblocks()
        for _ in range(500):
            store.ask(lambda r: r.mget(keys))
        grown.append(sys.getallocatedblocks() - before)
    store.close()
    assert grown[-1] < 50
