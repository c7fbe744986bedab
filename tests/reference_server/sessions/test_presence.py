"""What watchers are told when announcements and answers of Redis, which come by two connections, cross."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from reference_server.sessions.presence import Presence
from reference_server.sessions.redis_writer import Answer, Call, StoreUnavailable


class Watcher:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def send_frame(self, frame: bytes) -> bool:
        message: dict[str, Any] = orjson.loads(frame[frame.index(b"{") :])
        if message["type"] != "watching":
            self.told.append((message["type"], message["session_id"]))
        return True


class Redis:
    """Keeps the calls until the test answers them: `Presence` alone is the subject."""

    prefix = ""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def submit(self, call: Call) -> None:
        self.calls.append(call)

    def answer(self, session: bytes | None) -> None:
        self._done()([session])

    def is_away(self) -> None:
        self._done()(StoreUnavailable("away"))

    def _done(self) -> Callable[[Answer], None]:
        done = self.calls.pop(0).done
        assert done is not None
        return done


def announced(kind: str, session_id: str, **more: object) -> bytes:
    return orjson.dumps({"type": kind, "user_id": "ann", "session_id": session_id} | more)


class Channels:
    """Redis passes every channel on at once, or when the test says so."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once, self.wanted = at_once, dict[str, Callable[[str], None]]()
        self.standing: set[str] = set()

    def hear(self, channel: str, _take: object, begin: Callable[[str], None]) -> None:
        self.wanted[channel] = begin
        if self.at_once:
            self.standing.add(channel)

    def leave(self, channel: str) -> None:
        del self.wanted[channel]

    def stands(self, channel: str) -> bool:
        return channel in self.standing

    def begin_now(self, then: Callable[[], None] = lambda: None) -> None:
        """Let all begin in one turn of a loop, and something happen before the next."""

        async def turns() -> None:
            for channel, begin in self.wanted.items():
                self.standing.add(channel)
                begin(channel)
            then()
            await asyncio.sleep(0)

        asyncio.run(turns())


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
def channels() -> Channels:
    return Channels()


@pytest.fixture
def presence(redis: Redis, channels: Channels) -> Presence:
    return Presence(redis, channels)  # type: ignore[arg-type]  # of both it calls nothing else


@pytest.mark.parametrize("more", [{}, {"again": True}])
def test_an_answer_that_an_announcement_has_overtaken_is_dropped(
    presence: Presence, redis: Redis, more: dict[str, Any]
) -> None:
    watcher = Watcher()
    presence.watch(watcher, ["ann"], 10)
    redis.answer(None)
    presence.reconcile()  # Redis says: offline
    presence.deliver(announced("online", "one", **more))
    redis.answer(None)
    assert watcher.told == [("online", "one")]
    presence.reconcile()  # Redis says: online
    presence.deliver(announced("offline", "one"))
    redis.answer(b"one")
    assert watcher.told == [("online", "one"), ("offline", "one")]


def test_an_answer_to_somebody_who_went_is_not_for_who_came(presence: Presence, redis: Redis) -> None:
    gone, watcher = Watcher(), Watcher()
    presence.watch(gone, ["ann"], 10)
    presence.forget(gone)
    presence.watch(watcher, ["ann"], 10)
    redis.answer(b"old")
    redis.answer(b"new")
    assert (gone.told, watcher.told) == ([], [("online", "new")])


def test_nobody_is_asked_for_before_announcements_are_heard(
    presence: Presence, redis: Redis, channels: Channels
) -> None:
    """What is announced between the answer and the first one heard would be lost."""
    channels.at_once, watcher = False, Watcher()
    presence.watch(watcher, ["ann"], 10)
    presence.reconcile()
    presence.on_store_back()
    assert redis.calls == []
    channels.begin_now()
    redis.answer(b"one")
    assert watcher.told == [("online", "one")]


def test_channels_that_begin_together_are_one_question(
    presence: Presence, redis: Redis, channels: Channels
) -> None:
    channels.at_once = False
    gone = Watcher()
    presence.watch(Watcher(), [f"u{n}" for n in range(400)], 1000)
    presence.watch(gone, ["ann"], 10)
    channels.begin_now(lambda: presence.forget(gone))
    assert [len(call.args) for call in redis.calls] == [1 + 400]


def test_a_channel_that_is_heard_anew_leaves_it_to_who_knows_when_the_records_are_back(
    presence: Presence, redis: Redis, channels: Channels
) -> None:
    presence.watch(Watcher(), ["ann"], 10)
    redis.answer(b"one")
    channels.begin_now()
    assert redis.calls == []


def test_a_channel_is_left_when_nobody_in_it_is_watched(
    presence: Presence, redis: Redis, channels: Channels
) -> None:
    """``u47`` and ``u122`` share one."""
    first, second = Watcher(), Watcher()
    presence.watch(first, ["u47", "ann"], 10)
    presence.watch(second, ["u122"], 10)
    assert len(redis.calls) == 2 and len(channels.wanted) == 2
    presence.forget(first)
    assert len(channels.wanted) == 1
    presence.watch(first, ["u47"], 10)
    presence.forget(second)
    assert len(channels.wanted) == 1
    presence.forget(first)
    assert not channels.wanted


def test_who_was_asked_for_in_vain_is_asked_for_when_redis_is_back(presence: Presence, redis: Redis) -> None:
    """Its connection for announcements may have stood all the while: then nothing else has them looked up."""
    watcher = Watcher()
    presence.watch(watcher, ["ann"], 10)
    redis.is_away()
    presence.on_store_back()
    redis.answer(b"one")
    assert watcher.told == [("online", "one")]
    presence.on_store_back()
    assert not redis.calls, "what is known is compared by whoever knows that the records are back"


@pytest.mark.parametrize(
    "told",
    [
        b"?",
        b"[]",
        b"1",
        b"{}",
        *(announced("online", "one", **more) for more in ({"user_id": ["ann"]}, {"type": "?"})),
    ],
)
def test_what_is_no_announcement_is_passed_over(presence: Presence, redis: Redis, told: bytes) -> None:
    watcher = Watcher()
    presence.watch(watcher, ["ann"], 10)
    presence.deliver(told)
    assert watcher.told == []


def test_what_nobody_announced_is_found_out(presence: Presence, redis: Redis) -> None:
    watcher = Watcher()
    presence.watch(watcher, ["ann"], 10)
    redis.answer(b"one")
    presence.reconcile()
    redis.answer(None)
    presence.reconcile()
    redis.answer(b"two")
    assert watcher.told == [("online", "one"), ("offline", "one"), ("online", "two")]
