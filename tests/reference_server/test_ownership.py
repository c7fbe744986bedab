"""No order of logins, connections, ends, take-overs, reapings and late calls harms the newest connection.

The scripts are atomic in Redis, so what can go wrong is their order. Hypothesis draws orders, calls that Redis
carries out late or twice among them, on two nodes that die, stand still and lose their Redis. Checked after every
step: what a newer connection has written is untouched by an older one's call, and every node's list says what
the session records say.
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
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.real.redis_server import RedisServer
from reference_server.liveness import LivenessPolicy
from reference_server.node_scripts import HOLD, NODE_SCRIPTS, REAP, RENEW
from reference_server.owners import Owners, incarnation_of
from reference_server.scripts import CONNECT, REFRESH, SCRIPTS
from reference_server.sessions import Connected, ConnectRefused, OlderThan, Record, Sessions
from reference_server.store import Call, StoreUnavailable, StoreWriter, open_redis

pytestmark = pytest.mark.real

USERS = ("ann", "bob|x")  # one with the separator in it
NODES = st.integers(0, 1)


class RecordingWriter(StoreWriter):
    """Remembers the connections' own calls, so that they can come once more."""

    sent: ClassVar[list[tuple[Record, Call]]] = []
    by: Record | None = None

    def submit(self, call: Call) -> None:
        if self.by is not None:
            self.sent.append((self.by, call))
        super().submit(call)


class Ownership(RuleBasedStateMachine):
    """Two nodes, two users, any number of sessions and connections."""

    url: ClassVar[str]
    refuse: ClassVar[bool] = False
    sessions_made = Bundle("sessions_made")
    connections = Bundle("connections")

    @initialize()
    def begin(self) -> None:
        self.prefix = f"test:{secrets.token_hex(6)}:"
        RecordingWriter.sent.clear()
        self.loop = asyncio.Runner()
        self.loop.run(self._open())
        self.store = redis.Redis.from_url(self.url, decode_responses=True)
        self.user_of: dict[str, str] = {}
        self.live: list[set[Record]] = [set(), set()]  # by node: connections not told of their end
        self.holder: dict[
            str, Record
        ] = {}  # who must have the user's records, as far as Redis lost nothing
        self.lost: set[str] = (
            set()
        )  # users whose holder's records Redis has lost, or its node's peers ended
        self.ended: set[str] = set()  # owners that somebody has ended
        self.settled = [False, False]  # has its lease, all its records asserted
        for node in (0, 1):
            self.settle(node)

    async def _open(self) -> None:
        self.clients = [open_redis(self.url) for _ in range(2)]
        self.writers = [RecordingWriter(c, (*SCRIPTS, *NODE_SCRIPTS)) for c in self.clients]
        self.tasks = [asyncio.create_task(writer.run()) for writer in self.writers]
        self.nodes = [self._node(n) for n in range(2)]

    def _node(self, n: int) -> Sessions:
        owners = Owners(f"node-{n}")
        return Sessions(self.writers[n], self.prefix, owners, LivenessPolicy(), refuse=self.refuse)

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

    def _do(self, node: int, by: Record | None, submit: Any) -> None:
        """Let something be submitted and carried out; an older connection's call leaves a newer's records alone."""
        before = self._records()
        self.writers[node].by = by

        async def go() -> None:
            submit()
            assert await self.writers[node].drain(5)

        self.loop.run(go())
        self.writers[node].by = None
        if by is not None:
            after = self._records()
            for key, value in before.items():
                if number(value) > number(by.owner):
                    assert after.get(key) == value, f"{by} changed {key}"

    def _records(self) -> dict[str, str]:
        keys = [
            key
            for kind in ("session", "status")
            for key in self.store.scan_iter(match=f"{self.prefix}{kind}:*", count=1000)
        ]
        values: Any = self.store.mget(keys) if keys else []
        return dict(zip(keys, values, strict=True))

    # -- what happens ------------------------------------------------------------------------

    @rule(target=sessions_made, user=st.sampled_from(USERS), node=NODES)
    def login(self, user: str, node: int) -> Any:
        online = self.store.exists(f"{self.prefix}status:{user}")
        session_id = self.loop.run(self.nodes[node].login(user))
        assert (session_id is None) == bool(self.refuse and online)
        if session_id is None:
            return multiple()
        self.user_of[session_id] = user
        return session_id

    @rule(target=connections, session_id=sessions_made, node=NODES)
    def connect(self, session_id: str, node: int) -> Any:
        """A refresh, a reconnect, or another device; the older connection may not know for a while."""
        answers: list[Connected | ConnectRefused | OlderThan | StoreUnavailable] = []
        sessions, user = self.nodes[node], self.user_of[session_id]
        asked = Record(session_id, sessions.owners.next())
        known: Any = self.store.get(f"{self.prefix}session:{session_id}")
        status: Any = self.store.get(f"{self.prefix}status:{user}")
        self._do(node, asked, lambda: sessions.connect(asked, answers.append))
        (answer,) = answers
        if known is None:
            assert answer == ConnectRefused("session_unknown")
            return multiple()
        if self.refuse and status is not None and not status.startswith(f"{session_id}|"):
            assert answer == ConnectRefused("already_online")
            return multiple()
        assert isinstance(answer, Connected)  # one clock: who asks last is the newest
        assert answer.user_id == user
        assert answer.resumed == (not known.endswith("|"))
        had = {value.rpartition("|")[2] for value in (known, status) if value}
        assert answer.displaced == had - {""}
        self.ended |= answer.displaced
        if user in self.holder:
            self.ended.add(self.holder[user].owner)
        record = self.holder[user] = Record(session_id, asked.owner, user)
        self.lost.discard(user)
        self.live[node].add(record)
        return record

    @rule(target=connections, session_id=sessions_made, node=NODES)
    def connect_in_vain(self, session_id: str, node: int) -> Any:
        """Redis did not answer, the client was sent away; Redis will carry the call out some time."""
        sessions = self.nodes[node]
        record = Record(session_id, sessions.owners.next(), self.user_of[session_id])
        asked = Record(session_id, record.owner)
        writer = self.writers[node]
        submit, writer.by = StoreWriter.submit, record
        StoreWriter.submit = lambda *_: None  # type: ignore[method-assign]
        sessions.connect(asked, lambda _: None)
        StoreWriter.submit, writer.by = submit, None  # type: ignore[method-assign]
        return record

    @rule(record=connections, node=NODES)
    def clear(self, record: Record, node: int) -> None:
        """A resume window is over, or a suspicion: in time, late, or for the second time."""
        self._do(node, record, lambda: self.nodes[node].clear(record))
        self._end(record)

    @rule(record=connections, node=NODES)
    def clear_without_knowing_the_user(self, record: Record, node: int) -> None:
        """What is left to do when the store did not answer an authentication."""
        nameless = Record(record.session_id, record.owner)
        had = self._has(record)
        self._do(node, record, lambda: self.nodes[node].clear(nameless))
        if had:
            self._end(record)

    @rule(record=connections, node=NODES)
    def release(self, record: Record, node: int) -> None:
        self._do(node, record, lambda: self.nodes[node].release(record))

    @rule(data=st.data())
    def refresh(self, data: st.DataObject) -> None:
        """Of the newest it brings back what vanished; one that was ended does nothing, and is told so."""
        node = data.draw(NODES)
        if not self.live[node]:
            return
        record = data.draw(st.sampled_from(sorted(self.live[node], key=lambda r: r.owner)))
        self._refresh(record, node)

    def _refresh(self, record: Record, node: int) -> None:
        told: list[str] = []
        held = self.holder.get(record.user_id)
        mine = self._has(record)
        self._do(node, record, lambda: self.nodes[node].refresh(record, told.append))
        if record.owner in told:
            assert not mine
            assert held != record
            self.live[node].discard(record)
            return
        self.ended |= set(told)
        assert self._has(record)
        if self.settled[node]:
            assert record.owner not in self.ended or mine, "it was ended, and came back"
        self._now_has(record)

    def _now_has(self, record: Record) -> None:
        held = self.holder.get(record.user_id)
        if held is None or number(held.owner) <= number(record.owner):
            self.holder[record.user_id] = record
            self.lost.discard(record.user_id)

    @precondition(lambda self: bool(RecordingWriter.sent))
    @rule(data=st.data(), node=NODES)
    def a_call_comes_late_or_again(self, data: st.DataObject, node: int) -> None:
        by, call = data.draw(st.sampled_from(RecordingWriter.sent))
        late = Call(call.script, call.keys, call.args)
        had = self._has(by)
        self._do(node, by, lambda: StoreWriter.submit(self.writers[node], late))
        user = self.user_of[by.session_id]
        record = Record(by.session_id, by.owner, user)
        if call.script in (CONNECT, REFRESH):
            if self._has(record):
                self._now_has(record)
        elif had and not self._has(record):
            self._end(record)

    @rule(session_id=sessions_made, node=NODES)
    def logout(self, session_id: str, node: int) -> None:
        known = self.store.exists(f"{self.prefix}session:{session_id}")
        found = self.loop.run(self.nodes[node].logout(session_id))
        assert (found is not None) == bool(known)
        if found is not None:
            self.ended.add(found.owner)
            held = self.holder.get(found.user_id)
            if held is not None and held.session_id == session_id and held.owner == found.owner:
                self._end(held)

    @rule()
    def redis_is_flushed(self) -> None:
        if keys := self.store.keys(f"{self.prefix}*"):
            self.store.delete(*keys)
        self.lost = set(self.holder)
        self.settled = [False, False]

    @rule(node=NODES)
    def settle(self, node: int) -> None:
        """What a node does that finds its lease gone: afterwards no ghost is left in its name."""
        sessions, nonce = self.nodes[node], secrets.token_hex(4)
        incarnation = sessions.owners.incarnation
        lease = f"{self.prefix}lease:{incarnation}"
        keys = (f"{self.prefix}nodes", lease, f"{self.prefix}epoch")
        state = self._ask(node, RENEW, keys, (incarnation, 60_000, "", nonce))[0]
        assert (state == b"held") == self.settled[node]
        for record in sorted(self.live[node], key=lambda r: r.owner):
            self._refresh(record, node)
        if state != b"held":
            assert self._ask(node, HOLD, (lease,), (60_000, nonce)) == 1
            self.settled[node] = True
        known = {record.owner for record in self.live[node]}
        for session_id, value in self._listed(node).items():
            stray = sessions.record_of(session_id, value)
            if stray.owner not in known:
                self.clear(stray, node)
        assert {sessions.record_of(*item).owner for item in self._listed(node).items()} <= known

    @rule(node=NODES, stands_still=st.booleans())
    def reap(self, node: int, stands_still: bool) -> None:
        """A node is dead, or seems to be; its peer ends its sessions, and none is left."""
        incarnation = self.nodes[node].owners.incarnation
        self.store.delete(f"{self.prefix}lease:{incarnation}")
        keys = (f"{self.prefix}nodes", f"{self.prefix}node:{incarnation}:sessions")
        args = (self.prefix, 0, incarnation, 2, f"node-{1 - node}")
        left = 1
        while left:
            _, left, *ended = self._ask(1 - node, REAP, keys, args)
            for owner in ended[2::3]:
                assert incarnation_of(owner.decode()) == incarnation
        for key, value in self._records().items():
            assert incarnation_of(value.rpartition("|")[2]) != incarnation, f"a ghost: {key}"
        self.settled[node] = False
        for held in list(self.holder.values()):
            if incarnation_of(held.owner) == incarnation:
                self.lost.add(held.user_id)
                if not stands_still:
                    self._end(held)
        if not stands_still:  # its calls may still be on the way, but nobody will assert anything
            self.live[node].clear()
            self.nodes[node] = self._node(node)
            self.settle(node)

    def _ask(self, node: int, *call: Any) -> Any:
        return self.loop.run(self.writers[node].ask(Call(*call)))

    def _end(self, record: Record) -> None:
        self.ended.add(record.owner)
        for live in self.live:
            live.discard(record)
        if self.holder.get(record.user_id) == record:
            del self.holder[record.user_id]
            self.lost.discard(record.user_id)

    def _has(self, record: Record) -> bool:
        user = self.user_of[record.session_id]
        status = self.store.get(f"{self.prefix}status:{user}")
        return bool(status == f"{record.session_id}|{record.owner}")

    def _listed(self, node: int) -> dict[str, str]:
        incarnation = self.nodes[node].owners.incarnation
        found: Any = self.store.hgetall(f"{self.prefix}node:{incarnation}:sessions")
        return dict(found)

    # -- what must be so -----------------------------------------------------------------------

    @invariant()
    def the_newest_has_its_records(self) -> None:
        for user, held in getattr(self, "holder", {}).items():
            status = self.store.get(f"{self.prefix}status:{user}")
            if user in self.lost:
                assert status is None or number(str(status)) <= number(held.owner)
            else:
                assert status == f"{held.session_id}|{held.owner}"
                record = self.store.get(f"{self.prefix}session:{held.session_id}")
                assert record == f"{user}|{held.owner}"

    @invariant()
    def the_lists_say_what_the_records_say(self) -> None:
        if not hasattr(self, "store"):
            return
        records = self._records()
        held = {
            key.removeprefix(f"{self.prefix}session:"): value
            for key, value in records.items()
            if key.startswith(f"{self.prefix}session:") and not value.endswith("|")
        }
        listed: list[tuple[str, str]] = []
        for key in self.store.scan_iter(match=f"{self.prefix}node:*", count=1000):
            of_node: Any = self.store.hgetall(key)
            listed += of_node.items()
            for value in of_node.values():
                assert (
                    key == f"{self.prefix}node:{incarnation_of(value.rpartition('|')[2])}:sessions"
                )
        assert sorted(listed) == sorted(held.items())
        online: Any = self.store.zrange(f"{self.prefix}online", 0, -1)
        status = [key for key in records if key.startswith(f"{self.prefix}status:")]
        assert {f"{self.prefix}status:{user}" for user in online} == set(status)
        for key in status:
            session_id, _, owner = records[key].rpartition("|")
            assert held[session_id] == f"{self.user_of[session_id]}|{owner}"


def number(value: str) -> int:
    """Return the number of the owner that a record or a token ends with; 0: nobody's."""
    return int(value.rpartition(":")[2] or "0", 16) if value and ":" in value else 0


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
        machine.the_newest_has_its_records()
        with pytest.raises(AssertionError, match="changed"):
            machine.clear(record=first, node=0)
    finally:
        machine.teardown()
