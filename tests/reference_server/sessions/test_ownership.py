"""No order of logins, connections, ends, take-overs, reapings and late calls harms the newest connection.

The scripts are atomic in Redis, so what can go wrong is their order. Hypothesis draws orders, calls that Redis
carries out late or twice among them, on two nodes that die, stand still and lose their Redis. Checked after every
step: what a newer connection has written is untouched by an older one's call, and every node's list says what
the session records say.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from types import SimpleNamespace
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

from harness.real.processes.redis import RedisServer
from reference_server.config import GatewayConfig
from reference_server.sessions.owner_tokens import Owners
from reference_server.sessions.records import (
    Connected,
    ConnectRefused,
    OlderThan,
    Record,
    Sessions,
    session_id_of,
)
from reference_server.sessions.redis_writer import Call, StoreUnavailable, StoreWriter, open_redis
from reference_server.sessions.scripts import Script
from tests.reference_server.gateways import incarnation_of

SCRIPTS: tuple[str, ...] = tuple(Script)

pytestmark = pytest.mark.real

USERS = ("ann", "bob|x")  # one with the separator in it
DEVICES = ("phone", "web/1")
AHEAD_US = 3_600_000_000  # a clock that is an hour fast
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
    per_device: ClassVar[bool] = False
    skewed: ClassVar[bool] = False  # a clock is ahead; what a flush then decides is not promised
    sessions_made = Bundle("sessions_made")
    connections = Bundle("connections")

    @initialize()
    def begin(self) -> None:
        self.prefix = f"test:{secrets.token_hex(6)}:"
        RecordingWriter.sent.clear()
        self.loop = asyncio.Runner()
        self.loop.run(self._open())
        self.store = redis.Redis.from_url(self.url, decode_responses=True)
        self.slot_of: dict[str, str] = {}  # session to user, or user and device
        self.live: list[set[Record]] = [set(), set()]  # by node: connections not told of their end
        # Who must have a slot's records, as far as Redis has not lost them, and its node was not reaped.
        self.holder: dict[str, Record] = {}
        self.lost: set[str] = set()  # slots of whose holder that does not hold
        self.ended: set[str] = set()  # owners that somebody has ended
        self.logged_out: set[str] = set()  # sessions, as far as Redis knows
        self.settled = [False, False]  # has its lease, all its records asserted
        for node in (0, 1):
            self.settle(node)

    async def _open(self) -> None:
        self.clients = [open_redis(self.url) for _ in range(2)]
        self.writers = [RecordingWriter(c, SCRIPTS, self.prefix) for c in self.clients]
        self.tasks = [asyncio.create_task(writer.run()) for writer in self.writers]
        self.nodes = [self._node(n) for n in range(2)]

    def _node(self, n: int) -> Sessions:
        ahead_us = AHEAD_US if self.skewed and n == 1 else 0
        owners = Owners(f"node-{n}", lambda: time.time_ns() // 1000 + ahead_us)
        config = GatewayConfig(
            second_login="refuse" if self.refuse else "take_over",
            one_connection_per="device" if self.per_device else "user",
        )
        return Sessions(self.writers[n], owners, config)

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

    @rule(target=sessions_made, user=st.sampled_from(USERS), device=st.sampled_from(DEVICES), node=NODES)
    def login(self, user: str, device: str, node: int) -> Any:
        slot = self.nodes[node].slot(user, device)
        online = self.store.exists(f"{self.prefix}status:{slot}")
        token = self.loop.run(self.nodes[node].login(user, device))
        assert (token is None) == bool(self.refuse and online)
        if token is None:
            return multiple()
        session_id = session_id_of(token)
        self.slot_of[session_id] = slot
        return session_id

    @rule(target=connections, session_id=sessions_made, node=NODES)
    def connect(self, session_id: str, node: int) -> Any:
        """A refresh, a reconnect, or another device; the older connection may not know for a while."""
        answers: list[Connected | ConnectRefused | OlderThan | StoreUnavailable] = []
        sessions, slot = self.nodes[node], self.slot_of[session_id]
        known: Any = self.store.get(f"{self.prefix}session:{session_id}")
        status: Any = self.store.get(f"{self.prefix}status:{slot}")
        asked = self._ask_for(sessions, node, session_id, answers)
        if isinstance(refused := answers[0], OlderThan):
            assert self.skewed, "with one clock who asks last is the newest"
            sessions.owners.learn(refused.owner)
            answers.clear()
            asked = self._ask_for(sessions, node, session_id, answers)
        (answer,) = answers
        if known is None:
            assert answer == ConnectRefused("session_unknown")
            return multiple()
        if self.refuse and status is not None and not status.startswith(f"{session_id}|"):
            assert answer == ConnectRefused("already_online")
            return multiple()
        assert isinstance(answer, Connected)
        assert answer.user_id == (slot.rpartition("/")[0] if self.per_device else slot)
        assert answer.resumed == (not known.endswith("|"))
        had = {value.rpartition("|")[2] for value in (known, status) if value}
        assert answer.displaced == had - {""}
        self.ended |= answer.displaced
        if slot in self.holder:
            self.ended.add(self.holder[slot].owner)
        record = sessions.record_of(session_id, f"{slot}|{asked.owner}")
        self.holder[slot] = record
        self.lost.discard(slot)
        self.live[node].add(record)
        return record

    def _ask_for(self, sessions: Sessions, node: int, session_id: str, answers: list[Any]) -> Record:
        asked = Record(session_id, sessions.owners.next())
        self._do(node, asked, lambda: sessions.connect(asked, answers.append))
        return asked

    @rule(target=connections, session_id=sessions_made, node=NODES)
    def connect_in_vain(self, session_id: str, node: int) -> Any:
        """Redis did not answer, the client was sent away; Redis will carry the call out some time."""
        sessions = self.nodes[node]
        asked = Record(session_id, sessions.owners.next())
        record = sessions.record_of(session_id, f"{self.slot_of[session_id]}|{asked.owner}")
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
        held = self.holder.get(record.slot)
        mine = self._has(record)
        self._do(node, record, lambda: self.nodes[node].refresh(record, told.append))
        if record.owner in told:
            assert not mine
            assert held != record
            self.live[node].discard(record)
            return
        self.ended |= set(told)
        if record.session_id in self.logged_out and not self._has(record):
            self.live[node].discard(record)  # its node is told by a message
            return
        assert self._has(record)
        assert held in (None, record) or record.slot in self.lost, "an older one took a newer one's records"
        if self.settled[node]:
            assert record.owner not in self.ended or mine, "it was ended, and came back"
        self._now_has(record)

    def _now_has(self, record: Record) -> None:
        held = self.holder.get(record.slot)
        if held is None or number(held.owner) <= number(record.owner):
            self.holder[record.slot] = record
            self.lost.discard(record.slot)

    @precondition(lambda self: bool(RecordingWriter.sent))
    @rule(data=st.data(), node=NODES)
    def a_call_comes_late_or_again(self, data: st.DataObject, node: int) -> None:
        by, call = data.draw(st.sampled_from(RecordingWriter.sent))
        late = Call(call.script, call.keys, call.args)
        had = self._has(by)
        self._do(node, by, lambda: StoreWriter.submit(self.writers[node], late))
        value = f"{self.slot_of[by.session_id]}|{by.owner}"
        record = self.nodes[node].record_of(by.session_id, value)
        if call.script in (Script.CONNECT, Script.REFRESH):
            if self._has(record):
                self._now_has(record)
        elif had and not self._has(record):
            self._end(record)

    @rule(session_id=sessions_made, node=NODES)
    def logout(self, session_id: str, node: int) -> None:
        known = self.store.exists(f"{self.prefix}session:{session_id}")
        found = self.loop.run(self.nodes[node].logout(session_id))
        assert (found is not None) == bool(known)
        is_kept = bool(self.store.exists(f"{self.prefix}ended:{session_id}"))
        assert is_kept or not known, "nothing keeps its node from bringing it back"
        if is_kept:
            self.logged_out.add(session_id)
        if found is not None:
            self.ended.add(found.owner)
            held = self.holder.get(found.slot)
            if held is not None and held.session_id == session_id and held.owner == found.owner:
                self._end(held)

    @precondition(lambda self: not self.skewed)
    @rule()
    def redis_is_flushed(self) -> None:
        if keys := self.store.keys(f"{self.prefix}*"):
            self.store.delete(*keys)
        self.lost = set(self.holder)
        self.logged_out.clear()
        self.settled = [False, False]

    @rule(node=NODES)
    def settle(self, node: int) -> None:
        """What a node does that finds its lease gone: afterwards no ghost is left in its name."""
        sessions, nonce = self.nodes[node], secrets.token_hex(4)
        incarnation = sessions.owners.incarnation
        lease = f"{self.prefix}lease:{incarnation}"
        keys = (f"{self.prefix}nodes", lease, f"{self.prefix}epoch")
        state, epoch, run_id = self._ask(node, Script.RENEW, keys, (incarnation, 60_000, "", nonce))
        assert (state == b"held") == self.settled[node]
        for record in sorted(self.live[node], key=lambda r: r.owner):
            self._refresh(record, node)
        if state != b"held":
            assert self._ask(node, Script.HOLD, (lease,), (60_000, nonce)) == 1
            self.settled[node] = True
        sessions.known = (epoch + run_id).decode()
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
        args = (self.prefix, int(self.per_device), incarnation, 2, f"node-{1 - node}", "", 60_000)
        left = 1
        while left:
            _, left, *ended = self._ask(1 - node, Script.REAP, keys, args)
            for owner in ended[2::3]:
                assert incarnation_of(owner.decode()) == incarnation
        for key, value in self._records().items():
            assert incarnation_of(value.rpartition("|")[2]) != incarnation, f"a ghost: {key}"
        self.settled[node] = False
        for held in list(self.holder.values()):
            if incarnation_of(held.owner) == incarnation:
                self.lost.add(held.slot)
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
        if self.holder.get(record.slot) == record:
            del self.holder[record.slot]
            self.lost.discard(record.slot)

    def _has(self, record: Record) -> bool:
        slot = self.slot_of[record.session_id]
        status = self.store.get(f"{self.prefix}status:{slot}")
        return bool(status == f"{record.session_id}|{record.owner}")

    def _listed(self, node: int) -> dict[str, str]:
        incarnation = self.nodes[node].owners.incarnation
        found: Any = self.store.hgetall(f"{self.prefix}node:{incarnation}:sessions")
        return dict(found)

    # -- what must be so -----------------------------------------------------------------------

    @invariant()
    def the_newest_has_its_records(self) -> None:
        for slot, held in getattr(self, "holder", {}).items():
            status = self.store.get(f"{self.prefix}status:{slot}")
            if slot in self.lost:
                assert status is None or number(str(status)) <= number(held.owner)
            else:
                assert status == f"{held.session_id}|{held.owner}"
                record = self.store.get(f"{self.prefix}session:{held.session_id}")
                assert record == f"{slot}|{held.owner}"

    @invariant()
    def the_lists_say_what_the_records_say(self) -> None:
        if not hasattr(self, "store"):
            return
        records = self._records()
        held = {
            key.removeprefix(f"{self.prefix}session:"): value
            for key, value in records.items()
            if key.startswith(f"{self.prefix}session:") and value[-1] != "|" and "|:" not in value
        }
        listed: list[tuple[str, str]] = []
        for key in self.store.scan_iter(match=f"{self.prefix}node:*", count=1000):
            of_node: Any = self.store.hgetall(key)
            listed += of_node.items()
            for value in of_node.values():
                assert key == f"{self.prefix}node:{incarnation_of(value.rpartition('|')[2])}:sessions"
        assert sorted(listed) == sorted(held.items())
        online: Any = self.store.zrange(f"{self.prefix}online", 0, -1)
        status = [key for key in records if key.startswith(f"{self.prefix}status:")]
        assert len(status) == len(held), "a session that has a connection has its slot's status"
        for key in status:
            session_id, _, owner = records[key].rpartition("|")
            assert held[session_id] == f"{self.slot_of[session_id]}|{owner}"
        slots = {key.removeprefix(f"{self.prefix}status:") for key in status}
        users = {slot.rpartition("/")[0] for slot in slots} if self.per_device else slots
        assert set(online) == users, "online is who has a connection left"
        for slot in slots if self.per_device else ():
            user, _, device = slot.rpartition("/")
            assert self.store.sismember(f"{self.prefix}devices:{user}", device)


def number(value: str) -> int:
    """Return the number of the owner that a record or a token ends with; 0: nobody's."""
    return int(value.rpartition(":")[2] or "0", 16) if value and ":" in value else 0


@pytest.fixture(autouse=True)
def _redis(private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Ownership.url = private_redis.url
    # The loop stands still between two steps: longer than a second on a busy machine, which is no outage.
    monkeypatch.setattr("reference_server.sessions.redis_writer._ANSWER_DEADLINE_S", 60.0)


@pytest.mark.timeout(600)  # 3 s alone; each of thousands of round trips waits its turn on a busy machine
@pytest.mark.parametrize("variant", ["take over", "refuse", "per_device", "skewed"])
def test_the_newest_connection_keeps_its_records_in_any_order_of_events(variant: str) -> None:
    machine = type("Machine", (Ownership,), {variant: True})
    quick = settings(max_examples=12, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(machine, settings=quick)


def test_a_clean_up_without_the_owner_token_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same machine against a clean-up that only names the session."""
    careless = Script.CLEAR.replace("if by ~= owner then return 0 end", "")
    careless = careless.replace("if status and status ~= session .. '|' .. owner then return 0 end", "")
    assert careless != Script.CLEAR
    broken = SimpleNamespace(**{**Script.__members__, "CLEAR": careless})
    monkeypatch.setattr("reference_server.sessions.records.Script", broken)
    monkeypatch.setattr(f"{__name__}.SCRIPTS", (*Script, careless))
    machine = Ownership()
    machine.begin()
    try:
        session_id = machine.login(user="ann", device="web/1", node=0)
        first = machine.connect(session_id=session_id, node=0)
        machine.connect(session_id=session_id, node=1)
        machine.the_newest_has_its_records()
        with pytest.raises(AssertionError, match="changed"):
            machine.clear(record=first, node=0)
    finally:
        machine.teardown()


def test_who_came_after_a_reaping_keeps_its_records_whatever_the_clocks_say() -> None:
    """Rare among random orders: the node with the fast clock was taken for dead, and comes back."""
    machine: Any = type("Machine", (Ownership,), {"skewed": True})()
    machine.begin()
    try:
        session_id = machine.login(user="ann", device="phone", node=0)
        fast = machine.connect(session_id=session_id, node=1)
        machine.reap(node=1, stands_still=True)
        again = machine.login(user="ann", device="phone", node=0)
        machine.connect(session_id=again, node=0)
        machine.settle(1)
        assert fast not in machine.live[1], "told of its end"
        machine.the_newest_has_its_records()
        machine.the_lists_say_what_the_records_say()
    finally:
        machine.teardown()


@pytest.mark.parametrize("sessions", ["one session", "two sessions"])
def test_after_a_flush_the_newer_wins_though_the_older_is_first(sessions: str) -> None:
    """Rare among random orders: both connections live, because the older one was not told."""
    machine = Ownership()
    machine.begin()
    try:
        first: Any = machine.login(user="ann", device="phone", node=0)
        second: Any = first
        if sessions == "two sessions":
            second = machine.login(user="ann", device="phone", node=1)
        older: Any = machine.connect(session_id=first, node=0)
        newer: Any = machine.connect(session_id=second, node=1)
        machine.redis_is_flushed()
        machine._refresh(older, 0)
        assert machine._has(older), "nobody in Redis knows better"
        machine._refresh(newer, 1)
        machine._refresh(older, 0)
        assert older not in machine.live[0], "told of its end"
        machine.the_newest_has_its_records()
        machine.the_lists_say_what_the_records_say()
    finally:
        machine.teardown()
