"""No interleaving of logins, connections, ends, take-overs and late clean-ups harms the newest connection.

The scripts are atomic in Redis, so what can go wrong is their order. Hypothesis draws orders, clean-ups and
refreshes of connections long gone among them, and compares a real Redis with a model of what must be there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from harness.real.redis_server import RedisServer
from reference_server.liveness import LivenessPolicy
from reference_server.scripts import SCRIPTS
from reference_server.sessions import Connected, ConnectRefused, Record, Sessions
from reference_server.store import StoreUnavailable, StoreWriter, open_redis

pytestmark = pytest.mark.real

USERS = ("ann", "bob|x")  # one with the separator in it


class Ownership(RuleBasedStateMachine):
    """Two nodes, two users, any number of sessions and connections."""

    url: ClassVar[str]
    refuse: ClassVar[bool] = False
    sessions_made = Bundle("sessions_made")
    connections = Bundle("connections")

    @initialize()
    def begin(self) -> None:
        self.prefix = f"test:{secrets.token_hex(6)}:"
        self.loop = asyncio.Runner()
        self.loop.run(self._open())
        self.store = redis.Redis.from_url(self.url, decode_responses=True)
        # The model: who holds the user's records; which sessions have a record and under whose name.
        self.holder: dict[str, Record] = {}
        self.expected: dict[str, str] = {}
        self.user_of: dict[str, str] = {}
        self.vanished: set[str] = set()  # users whose holder's records Redis has lost

    async def _open(self) -> None:
        self.clients = [open_redis(self.url) for _ in range(2)]
        writers = [StoreWriter(client, SCRIPTS) for client in self.clients]
        self.tasks = [asyncio.create_task(writer.run()) for writer in writers]
        self.writers = writers
        self.nodes = [
            Sessions(writer, self.prefix, f"node-{n}", LivenessPolicy(), refuse=self.refuse)
            for n, writer in enumerate(writers)
        ]

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        self.loop.run(self._close())
        self.loop.close()
        if keys := self.store.keys(f"{self.prefix}*"):
            self.store.delete(*keys)
        self.store.close()

    async def _close(self) -> None:
        for task in self.tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for client in self.clients:
            await client.aclose()

    async def _done(self, node: int) -> None:
        assert await self.writers[node].drain(5)

    # -- what happens ------------------------------------------------------------------------

    @rule(target=sessions_made, user=st.sampled_from(USERS), node=st.integers(0, 1))
    def login(self, user: str, node: int) -> Any:
        session_id = self.loop.run(self.nodes[node].login(user))
        refused = self.refuse and user in self.holder and user not in self.vanished
        assert (session_id is None) == refused
        if session_id is None:
            return multiple()
        self.expected[session_id] = f"{user}|"
        self.user_of[session_id] = user
        return session_id

    @rule(target=connections, session_id=sessions_made, node=st.integers(0, 1))
    def connect(self, session_id: str, node: int) -> Any:
        """A refresh, a reconnect, or another device; the older connection may not know for a while."""
        answers: list[Connected | ConnectRefused | StoreUnavailable] = []
        asked = Record(session_id, secrets.token_hex(4))

        async def ask() -> None:
            self.nodes[node].connect(asked, answers.append)
            await self._done(node)

        self.loop.run(ask())
        (answer,) = answers
        user = self.user_of[session_id]
        held = None if user in self.vanished else self.holder.get(user)
        if session_id not in self.expected:
            assert answer == ConnectRefused("session_unknown")
            return multiple()
        if self.refuse and held is not None and held.session_id != session_id:
            assert answer == ConnectRefused("already_online")
            return multiple()
        assert isinstance(answer, Connected)
        assert answer.user_id == user
        assert answer.resumed == (not self.expected[session_id].endswith("|"))
        if held is not None:
            assert held.owner in answer.displaced
            if held.session_id != session_id:
                del self.expected[held.session_id]
        self.holder[user] = Record(session_id, asked.owner, user)
        self.vanished.discard(user)
        self.expected[session_id] = f"{user}|{asked.owner}"
        return self.holder[user]

    @rule(record=connections, node=st.integers(0, 1))
    def clear(self, record: Record, node: int) -> None:
        """A resume window is over, or a suspicion: in time, late, or for the second time."""
        self.nodes[node].clear(record)
        self.loop.run(self._done(node))
        self._gone(record)

    @rule(record=connections, node=st.integers(0, 1))
    def clear_without_knowing_the_user(self, record: Record, node: int) -> None:
        """What is left to do when the store did not answer an authentication."""
        held = self.holder.get(record.user_id) == record and record.user_id not in self.vanished
        self.nodes[node].clear(Record(record.session_id, record.owner))
        self.loop.run(self._done(node))
        if held:
            self._gone(record)

    @rule(record=connections, node=st.integers(0, 1))
    def refresh(self, record: Record, node: int) -> None:
        """Of the newest it brings back what vanished; of an older one it does nothing, and says so."""
        newest = self.holder.get(record.user_id) == record
        known = record.user_id in self.holder and record.user_id not in self.vanished
        if not newest and not known:
            return  # it was told of its end long before, and nothing in Redis could say so any more
        superseded: list[bool] = []
        self.nodes[node].refresh(record, lambda: superseded.append(True))
        self.loop.run(self._done(node))
        assert bool(superseded) != newest
        if newest:
            self.vanished.discard(record.user_id)
            self.expected[record.session_id] = f"{record.user_id}|{record.owner}"

    @rule(session_id=sessions_made, node=st.integers(0, 1))
    def logout(self, session_id: str, node: int) -> None:
        found = self.loop.run(self.nodes[node].logout(session_id))
        assert (found is not None) == (session_id in self.expected)
        self.expected.pop(session_id, None)
        held = self.holder.get(self.user_of[session_id])
        if held is not None and held.session_id == session_id:
            self._forget(held.user_id)

    @rule()
    def redis_is_flushed(self) -> None:
        if keys := self.store.keys(f"{self.prefix}*"):
            self.store.delete(*keys)
        self.expected.clear()
        self.vanished = set(self.holder)

    def _gone(self, record: Record) -> None:
        if self.expected.get(record.session_id) == f"{record.user_id}|{record.owner}":
            del self.expected[record.session_id]
        if self.holder.get(record.user_id) == record:
            self._forget(record.user_id)

    def _forget(self, user: str) -> None:
        del self.holder[user]
        self.vanished.discard(user)

    # -- what must be so -----------------------------------------------------------------------

    @invariant()
    def redis_holds_what_the_model_says(self) -> None:
        if not hasattr(self, "store"):
            return
        found = {
            key.removeprefix(f"{self.prefix}session:"): self.store.get(key)
            for key in self.store.scan_iter(match=f"{self.prefix}session:*", count=1000)
        }
        assert found == self.expected
        for user in USERS:
            held = None if user in self.vanished else self.holder.get(user)
            status = self.store.get(f"{self.prefix}status:{user}")
            assert status == (f"{held.session_id}|{held.owner}" if held else None)
            online = self.store.zscore(f"{self.prefix}online", user)
            assert (online is not None) == (held is not None)


@pytest.fixture(autouse=True)
def _redis(private_redis: RedisServer) -> Iterator[None]:
    Ownership.url = private_redis.url
    yield


@pytest.mark.parametrize("refuse", [False, True], ids=["take over", "refuse"])
def test_the_newest_connection_keeps_its_records_in_any_order_of_events(refuse: bool) -> None:
    machine = type("Machine", (Ownership,), {"refuse": refuse})
    quick = settings(max_examples=30, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(machine, settings=quick)


def test_a_clean_up_without_the_owner_token_would_be_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: the same machine against a clean-up that only names the session."""
    from reference_server import scripts, sessions
    from reference_server.store import Script

    careless = scripts.CLEAR.source.replace("if by ~= owner then return 0 end", "")
    careless = careless.replace(
        "if status and status ~= session .. '|' .. owner then return 0 end", ""
    )
    assert careless != scripts.CLEAR.source
    broken = Script(careless)
    monkeypatch.setattr(sessions, "CLEAR", broken)
    monkeypatch.setattr(f"{__name__}.SCRIPTS", (*SCRIPTS, broken))
    machine = Ownership()
    machine.begin()
    try:
        session_id = machine.login(user="ann", node=0)
        first = machine.connect(session_id=session_id, node=0)
        machine.connect(session_id=session_id, node=1)
        machine.redis_holds_what_the_model_says()
        machine.clear(record=first, node=0)
        with pytest.raises(AssertionError):
            machine.redis_holds_what_the_model_says()
    finally:
        machine.teardown()
